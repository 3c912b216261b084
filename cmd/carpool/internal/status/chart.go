package status

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A chart is drawn here rather than by a script: a line over time needs no
// library, and it is there without JavaScript. Positions along the time axis
// are percentages, so that text keeps its size on any screen; the areas are
// stretched to the same width.
type chart struct {
	Without, With string // paths in the box below; Without is empty in a chart of one area
	Grid          []line // horizontal, bottom first
	Times         []tick
	Minutes       []column
	Alt           string // the chart in one sentence
}

// line is a horizontal line with its value.
type line struct {
	Y     float64 // in pixels
	Label string
}

// tick is a label of the time axis.
type tick struct {
	X      string // percentage
	Anchor string // of SVG text
	Label  string
}

// column is the part of the chart that shows figures when pointed at.
type column struct {
	X, Width float64 // in the box
	Title    string
}

// The box that areas are drawn in, and where it lies on the page.
const (
	boxWidth, boxHeight = 1000, 1000
	plotTop, plotHeight = 8, 150 // pixels
)

// minSpan is the least time that a chart shows.
const minSpan = 10 * time.Minute

// newChart draws rates. With both it compares exchanges and opened, without it
// shows opened alone, on a scale of its own.
func newChart(rates []rate, now time.Time, both bool) chart {
	var c chart
	from, span := window(rates, now)
	peak := uint64(0)
	for _, r := range rates {
		peak = max(peak, r.opened)
		if both {
			peak = max(peak, r.exchanges)
		}
	}
	top := niceCeil(peak)
	x := func(t time.Time) float64 {
		return math.Max(0, boxWidth*float64(t.Sub(from))/float64(span))
	}
	y := func(n uint64) float64 { return boxHeight * (1 - float64(n)/float64(top)) }
	c.With = area(rates, x, y, func(r rate) uint64 { return r.opened })
	if both {
		c.Without = area(rates, x, y, func(r rate) uint64 { return r.exchanges })
	}
	c.Grid = grid(top)
	c.Times = times(span)
	c.Minutes = columns(rates, x, now, both)
	c.Alt = fmt.Sprintf("New upstream connections per minute over the last %d minutes; at most %s. The figures are in the table below.",
		int(span.Minutes()), count(peak))
	return c
}

// window is the time that a chart of these rates shows: an hour, less while
// there is less.
func window(rates []rate, now time.Time) (from time.Time, span time.Duration) {
	span = min(max(now.Sub(rates[0].at), minSpan), time.Hour)
	span = (span + 2*time.Minute - 1).Truncate(2 * time.Minute) // its half is labelled too
	return now.Add(-span), span
}

// area is the path around the area under a line.
func area(rates []rate, x func(time.Time) float64, y func(uint64) float64, value func(rate) uint64) string {
	if len(rates) < 2 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "M%.1f %d", x(rates[0].at), boxHeight)
	for _, r := range rates {
		fmt.Fprintf(&b, "L%.1f %.1f", x(r.at), y(value(r)))
	}
	fmt.Fprintf(&b, "L%.1f %dZ", x(rates[len(rates)-1].at), boxHeight)
	return b.String()
}

// niceCeil is the least round number that is not below n, 4 at least. Its half
// is a whole number.
func niceCeil(n uint64) uint64 {
	for unit := uint64(1); ; unit *= 10 {
		for _, m := range [...]uint64{4, 6, 8, 10, 12, 16, 20, 30} {
			if top := m * unit; top >= n || top > math.MaxUint64/100 {
				return top
			}
		}
	}
}

func grid(top uint64) []line {
	at := func(n uint64) line {
		return line{plotTop + plotHeight*(1-float64(n)/float64(top)), count(n)}
	}
	return []line{at(0), at(top / 2), at(top)}
}

func times(span time.Duration) []tick {
	ago := func(d time.Duration) string { return fmt.Sprintf("%d min ago", int(d.Minutes())) }
	return []tick{{"0%", "start", ago(span)}, {"50%", "middle", ago(span / 2)}, {"100%", "end", "now"}}
}

// columns are about one for each minute, so that a page stays small.
func columns(rates []rate, x func(time.Time) float64, now time.Time, both bool) []column {
	var list []column
	for i := len(rates) - 1; i >= 0; i -= perMinute {
		r := rates[i]
		left := x(r.at.Add(-time.Minute))
		title := fmt.Sprintf("%s: %s new connections in a minute", ago(now.Sub(r.at)), count(r.opened))
		if both {
			title += fmt.Sprintf(", %s without pooling", count(r.exchanges))
		}
		list = append(list, column{round(left), round(x(r.at) - left), title})
	}
	return list
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

func ago(d time.Duration) string {
	if m := int(d.Round(time.Minute) / time.Minute); m > 0 {
		return fmt.Sprintf("%d min ago", m)
	}
	return "now"
}
