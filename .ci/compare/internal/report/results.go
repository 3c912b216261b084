// Package report makes tables of what was measured.
package report

import (
	"fmt"
	"math"

	"github.com/carpoolproxy/carpool/ci/compare/internal/figures"
)

// A Metric names what is measured.
type Metric string

// The metrics. CPU and Switches are for each exchange.
const (
	CPU       Metric = "cpu"       // µs
	PerSecond Metric = "rate"      // exchanges
	P50       Metric = "p50"       // µs
	P99       Metric = "p99"       // µs
	Switches  Metric = "switches"  // how often a thread was given a CPU
	Conns     Metric = "conns"     // upstream connections opened
	Memory    Metric = "memory"    // PSS in MB
	Late      Metric = "late"      // p99 of how late the load sent, µs
	PerClient Metric = "perclient" // KB for an idle client
	IdleCPU   Metric = "idlecpu"   // ms a second
	Starts    Metric = "start"     // ms
	Drains    Metric = "drain"     // ms
)

// Units is how each metric is shown while it is measured, in this order.
var Units = []struct {
	Metric       Metric
	Name, Format string
}{
	{PerSecond, "", "%.0f/s"}, {CPU, "CPU", "%.1f µs"}, {P50, "p50", "%.0f µs"}, {P99, "p99", "%.0f µs"},
	{Switches, "switches", "%.2f"}, {Conns, "conns", "%.0f"}, {Late, "late", "%.0f µs"}, {Memory, "PSS", "%.1f MB"},
	{PerClient, "client", "%.2f KB"}, {IdleCPU, "idle CPU", "%.2f ms/s"}, {Starts, "start", "%.1f ms"}, {Drains, "drain", "%.1f ms"},
}

// A Cell is what was measured of one peer under one load in one round.
type Cell struct {
	Values map[Metric]float64
	Errors map[string]int
	Others float64 // CPU of other programs, in percent of a core
	Bound  string  // what the load was limited by
}

// Failed returns how many errors there were.
func (c *Cell) Failed() (sum int) {
	for _, n := range c.Errors {
		sum += n
	}
	return sum
}

// String shows a cell in a line.
func (c *Cell) String() string {
	text := ""
	for _, u := range Units {
		if v, ok := c.Values[u.Metric]; ok {
			text += fmt.Sprintf("%s "+u.Format+"  ", u.Name, v)
		}
	}
	if c.Failed() > 0 {
		text += fmt.Sprintf("ERRORS %v  ", c.Errors)
	}
	return text + fmt.Sprintf("others %.0f %%  %s", c.Others, c.Bound)
}

// Results are the cells. The zero value is empty.
type Results struct {
	cells map[[2]string][]*Cell // by load and peer; a round without a cell is nil
	out   map[[2]string]string  // why a peer takes no part, by workload and peer
	order [][2]string           // of out
}

// Put notes a cell.
func (r *Results) Put(load, peer string, round int, c *Cell) {
	if r.cells == nil {
		r.cells = map[[2]string][]*Cell{}
	}
	key := [2]string{load, peer}
	for len(r.cells[key]) <= round {
		r.cells[key] = append(r.cells[key], nil)
	}
	r.cells[key][round] = c
}

// LeaveOut notes why a peer takes no part in a workload any more; the first reason counts.
func (r *Results) LeaveOut(workload, peer, why string) {
	if r.out == nil {
		r.out = map[[2]string]string{}
	}
	key := [2]string{workload, peer}
	if r.out[key] == "" {
		r.out[key] = why
		r.order = append(r.order, key)
	}
}

// WhyOut returns that reason, or nothing.
func (r *Results) WhyOut(workload, peer string) string { return r.out[[2]string{workload, peer}] }

// rounds returns a metric, round by round.
func (r *Results) rounds(load, peer string, m Metric) []figures.Round {
	cells := r.cells[[2]string{load, peer}]
	all := make([]figures.Round, len(cells))
	for i, c := range cells {
		if c == nil {
			continue
		}
		v, ok := c.Values[m]
		all[i] = figures.Round{Value: v, Others: c.Others, OK: ok && !math.IsNaN(v)}
	}
	return all
}

// median returns the median of a metric; NaN if it was not measured.
func (r *Results) median(load, peer string, m Metric) float64 {
	var values []float64
	for _, round := range r.rounds(load, peer, m) {
		if round.OK {
			values = append(values, round.Value)
		}
	}
	return figures.Median(values)
}

// loud is from how much CPU of others on, in percent of a core, a round is left out if enough stay.
const loud = 40

// ratio compares two peers under one load.
func (r *Results) ratio(load, a, b string, m Metric) figures.Ratio {
	return figures.Compare(r.rounds(load, a, m), r.rounds(load, b, m), loud)
}

// grown compares two loads of one peer.
func (r *Results) grown(peer, load, base string, m Metric) figures.Ratio {
	return figures.Compare(r.rounds(load, peer, m), r.rounds(base, peer, m), loud)
}
