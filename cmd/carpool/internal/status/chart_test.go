package status

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestNiceCeil(t *testing.T) {
	for n, want := range map[uint64]uint64{
		0: 4, 1: 4, 4: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 16, 17: 20, 21: 30, 31: 40, 401: 600, 5_000: 6_000, 99_999: 100_000,
	} {
		if got := niceCeil(n); got != want {
			t.Errorf("above %d comes %d, want %d", n, got, want)
		}
	}
	if niceCeil(math.MaxUint64) == 0 {
		t.Error("no end")
	}
}

// start is a time, for charts.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// flat are rates of some minutes.
func flat(minutes int, opened, exchanges uint64) (rates []rate) {
	for i := range minutes*perMinute + 1 {
		rates = append(rates, rate{start.Add(time.Duration(i) * samplePeriod), opened, exchanges})
	}
	return rates
}

func TestAChartShowsBothOnOneScale(t *testing.T) {
	rates := flat(60, 2, 100)
	c := newChart(rates, start.Add(time.Hour), true)
	if want := "M0.0 1000L0.0 0.0L2.8 0.0"; !strings.HasPrefix(c.Without, want) {
		t.Errorf("without pooling: %.60s", c.Without)
	}
	if want := "L1000.0 980.0L1000.0 1000Z"; !strings.HasSuffix(c.With, want) {
		t.Errorf("with: %s", c.With[len(c.With)-60:])
	}
	if top := c.Grid[2]; top.Label != "100" || top.Y != plotTop {
		t.Errorf("the topmost line is %+v", top)
	}
	if c.Times[0].Label != "60 min ago" {
		t.Errorf("it begins %s", c.Times[0].Label)
	}
	if n := len(c.Minutes); n != 61 {
		t.Errorf("%d columns", n)
	}
	if got := c.Minutes[1].Title; got != "1 min ago: 2 new connections in a minute, 100 without pooling" {
		t.Errorf("a column says %q", got)
	}
}

func TestAChartOfOneHasItsOwnScale(t *testing.T) {
	c := newChart(flat(60, 2, 100), start.Add(time.Hour), false)
	if c.Without != "" || c.Grid[2].Label != "4" || strings.Contains(c.Minutes[0].Title, "without") {
		t.Errorf("%+v", c)
	}
	if !strings.HasSuffix(c.With, "L1000.0 500.0L1000.0 1000Z") {
		t.Errorf("with: %s", c.With[len(c.With)-60:])
	}
}

func TestAYoungChartIsTenMinutesWide(t *testing.T) {
	c := newChart(flat(1, 2, 100), start.Add(time.Minute), true)
	if c.Times[0].Label != "10 min ago" || !strings.HasPrefix(c.With, "M900.0 1000L") {
		t.Errorf("from %s: %s", c.Times[0].Label, c.With)
	}
	if c := newChart(flat(0, 0, 0), start, true); c.With != "" || c.Without != "" {
		t.Errorf("of one sample it draws %q, %q", c.With, c.Without)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestShare(t *testing.T) {
	for want, c := range map[string][2]uint64{
		"–": {0, 0}, "0 %": {0, 7}, "50 %": {1, 2}, "99.9 %": {9999, 10000}, "100 %": {7, 7}, "33.3 %": {1, 3},
	} {
		if got := share(c[0], c[1]); got != want {
			t.Errorf("%d of %d: %s, want %s", c[0], c[1], got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                               "0",
		120 * time.Microsecond:          "0.12 ms",
		2500 * time.Microsecond:         "2.5 ms",
		812 * time.Millisecond:          "812 ms",
		12340 * time.Millisecond:        "12.3 s",
		59990 * time.Millisecond:        "59.9 s",
		4*time.Minute + 12*time.Second:  "4 min 12 s",
		3*time.Hour + 5*time.Minute:     "3 h 5 min",
		5*24*time.Hour + 30*time.Minute: "5 days 0 h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
