package status

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// count writes a number with commas between thousands.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// gauge writes a number that is a size.
func gauge(n int) string { return count(uint64(max(n, 0))) }

// plural is a noun that stands behind a number.
func plural(n uint64, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// share writes part of whole in per cent, rounded down so that only all of it
// is 100; "–" for a part of nothing.
func share(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	permille := math.Floor(float64(part) / float64(whole) * 1000)
	return strconv.FormatFloat(permille/10, 'f', -1, 64) + " %"
}

// duration writes a length of time with about three digits.
func duration(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", math.Floor(d.Seconds()*10)/10)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}
