package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carpoolproxy/carpool/ci/compare/internal/figures"
)

// A Load is one that was measured.
type Load struct {
	Name, Title string
	Rated       bool // as many exchanges a second as were due
}

// A Report is results, and what a reader has to know about them.
type Report struct {
	*Results
	// Head says on what, when and how they were measured; each is a sentence or more.
	Head []string
	// Base is compared with all others. Again is a copy of it.
	Base, Again string
	// Others are the other peers. Direct, if not empty, is no proxy.
	Others []string
	Direct string
	Loads  []Load
}

// Figures is all of it, in Markdown.
func (r *Report) Figures() string {
	parts := []string{strings.Join(r.Head, " "),
		fmt.Sprintf("Each ratio is %s's figure divided by the other's, within a round: the median of all rounds, with the smallest and the "+
			"largest. `≈` marks noise: the rounds lie on both sides of 1, or the ratio is no further from 1 than those of two copies of "+
			"the same %s (%q) under that load.", r.Base, r.Base, r.Again)}
	for _, t := range []struct {
		title, text, unit, format string
		metric                    Metric
	}{
		{"CPU for each request", "Below 1 " + r.Base + " is cheaper. For tunnels it is for each exchange: 1 MB, or what one https request moves.", "µs", "%.1f", CPU},
		{"Requests a second", "Above 1 " + r.Base + " serves more. It means little where the proxy was not the limit: see the conditions.", "", "%.0f", PerSecond},
		{"Typical request (p50)", "Below 1 " + r.Base + " is faster.", "µs", "%.0f", P50},
		{"Slow request, 1 in 100 (p99)", "Below 1 " + r.Base + " is faster.", "µs", "%.0f", P99},
	} {
		if table := r.ratios(t.metric, t.unit, t.format); table != "" {
			parts = append(parts, "### "+t.title, t.text, table)
		}
	}
	for _, part := range []string{r.added(), r.growth(), r.memory(), r.startAndDrain(), r.conditions(), r.missing()} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "\n\n") + "\n"
}

// ratios is a table of one metric, load by load.
func (r *Report) ratios(m Metric, unit, format string) string {
	peers := append([]string{r.Again}, r.Others...)
	if m != CPU && r.Direct != "" {
		peers = append(peers, r.Direct)
	}
	title := r.Base
	if unit != "" {
		title += ", " + unit
	}
	rows := [][]string{append([]string{"load", title}, peers...)}
	for _, l := range r.Loads {
		base := r.median(l.Name, r.Base, m)
		if math.IsNaN(base) {
			continue
		}
		row := []string{l.Title, fmt.Sprintf(format, base)}
		same := r.ratio(l.Name, r.Base, r.Again, m)
		for _, p := range peers {
			reference := same
			if p == r.Again {
				reference = figures.Ratio{} // noise by nature: its rounds lie on both sides, or show a bias
			}
			row = append(row, show(r.ratio(l.Name, r.Base, p, m), reference))
		}
		rows = append(rows, row)
	}
	return table(rows)
}

func show(ratio, same figures.Ratio) string {
	if ratio.Rounds == 0 {
		return "–"
	}
	s := fmt.Sprintf("%.2f (%.2f–%.2f)", ratio.Median, ratio.Min, ratio.Max)
	if ratio.Noise(same) {
		s += " ≈"
	}
	return s
}

// added is what proxies add to the latency of requests that come at a fixed rate.
func (r *Report) added() string {
	if r.Direct == "" {
		return ""
	}
	peers := append([]string{r.Base, r.Again}, r.Others...)
	rows := [][]string{append([]string{"load"}, peers...)}
	for _, l := range r.Loads {
		if !l.Rated {
			continue
		}
		for _, m := range []Metric{P50, P99} {
			row := []string{l.Title + ", " + string(m)}
			for _, p := range peers {
				row = append(row, r.difference(l.Name, p, r.Direct, m))
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return "### Added latency\n\nBy how many µs a request through a proxy takes longer than one without, in the same round. " +
		"It counts from when the request was due.\n\n" + table(rows)
}

func (r *Report) difference(load, a, b string, m Metric) string {
	var all []float64
	of, and := r.rounds(load, a, m), r.rounds(load, b, m)
	for i := range min(len(of), len(and)) {
		if of[i].OK && and[i].OK {
			all = append(all, of[i].Value-and[i].Value)
		}
	}
	if len(all) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f (%.0f–%.0f)", figures.Median(all), slices.Min(all), slices.Max(all))
}

// growth is what requests cost as there are more clients and upstreams, against the load that base names.
func (r *Report) growth() string {
	peers := append([]string{r.Base, r.Again}, r.Others...)
	rows := [][]string{append([]string{"CPU µs for each request, and times the reference"}, peers...)}
	for _, step := range []struct{ load, base string }{
		{"one", "keepalive"}, {"kept-32", "kept-32"}, {"kept-2000", "kept-32"}, {"close-2000", "close"},
		{"hosts-100", "keepalive"}, {"hosts-10000", "keepalive"},
	} {
		i := slices.IndexFunc(r.Loads, func(l Load) bool { return l.Name == step.load })
		if i < 0 {
			continue
		}
		row := []string{r.Loads[i].Title}
		for _, p := range peers {
			at := r.median(step.load, p, CPU)
			text := "–"
			if !math.IsNaN(at) {
				text = fmt.Sprintf("%.1f", at)
			}
			if grown := r.grown(p, step.load, step.base, CPU); grown.Rounds > 0 && step.load != step.base {
				text += fmt.Sprintf(", %.2f × (%.2f–%.2f)", grown.Median, grown.Min, grown.Max)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	if len(rows) == 1 {
		return ""
	}
	return "### As work grows\n\nThe reference is the load with 32 clients and one upstream, in the same round.\n\n" + table(rows)
}

// plain is a table of medians: one row a metric.
func (r *Report) plain(load string, lines []line) string {
	peers := append([]string{r.Base, r.Again}, r.Others...)
	rows := [][]string{append([]string{""}, peers...)}
	for _, l := range lines {
		row, any := []string{l.title}, false
		name := load
		if l.load != "" {
			name = l.load
		}
		for _, p := range peers {
			v := r.median(name, p, l.metric)
			if math.IsNaN(v) {
				row = append(row, "–")
				continue
			}
			any = true
			row = append(row, fmt.Sprintf(l.format, v))
		}
		if any {
			rows = append(rows, row)
		}
	}
	return table(rows)
}

type line struct {
	title, load, format string
	metric              Metric
}

func (r *Report) memory() string {
	upstreams := "" // how many there were
	for _, l := range r.Loads {
		if l.Name == "hosts-10000" {
			upstreams = l.Title
		}
	}
	t := r.plain("idle", []line{
		{"an idle client, KB", "", "%.2f", PerClient},
		{"CPU with the most idle clients, ms a second", "", "%.2f", IdleCPU},
		{"after the first request, MB", "", "%.1f", Memory},
		{"after 32 clients without a pause, MB", "keepalive", "%.1f", Memory},
		{"after 2,000 clients, MB", "close-2000", "%.1f", Memory},
		{"after " + upstreams + ", MB", "hosts-10000", "%.1f", Memory},
	})
	if t == "" {
		return ""
	}
	return "### Memory\n\nPSS. The kernel's own memory, such as socket buffers, is not in it.\n\n" + t
}

func (r *Report) startAndDrain() string {
	t := r.plain("start", []line{
		{"from exec to the first answered request, ms", "", "%.1f", Starts},
		{"from the signal to the end, with nothing open, ms", "", "%.1f", Drains},
	})
	if t == "" {
		return ""
	}
	return "### Start and drain\n\n" + t
}

// conditions is under what conditions each load was measured.
func (r *Report) conditions() string {
	rows := [][]string{{"load", "limited by, with " + r.Base, "others, % of a core", "most", "load late, p99 µs", "errors"}}
	for _, l := range r.Loads {
		var others []float64
		failed := map[string]int{}
		for key, cells := range r.cells {
			for _, c := range cells {
				if key[0] == l.Name && c != nil {
					others = append(others, c.Others)
					if n := c.Failed(); n > 0 {
						failed[key[1]] += n
					}
				}
			}
		}
		limits := r.limits(l.Name)
		if limits == "" {
			continue
		}
		late := "–"
		if v := r.median(l.Name, r.Base, Late); !math.IsNaN(v) {
			late = fmt.Sprintf("%.0f", v)
		}
		rows = append(rows, []string{l.Title, limits, fmt.Sprintf("%.0f", figures.Median(others)),
			fmt.Sprintf("%.0f", slices.Max(others)), late, listed(failed)})
	}
	if len(rows) == 1 {
		return ""
	}
	return fmt.Sprintf("### Conditions\n\nRounds in which other programs took more than %d %% of a core are left out of the ratios, "+
		"as long as three rounds stay.\n\n", loud) + table(rows)
}

// limits returns what limited the rounds of a load, the most frequent first.
func (r *Report) limits(load string) string {
	count := map[string]int{}
	for _, c := range r.cells[[2]string{load, r.Base}] {
		if c != nil {
			count[c.Bound]++
		}
	}
	names := make([]string, 0, len(count))
	for name := range count {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a, b)
	})
	return strings.Join(names, ", ")
}

func listed(count map[string]int) string {
	if len(count) == 0 {
		return "0"
	}
	var all []string
	for name, n := range count {
		all = append(all, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// missing is what was not measured, and why.
func (r *Report) missing() string {
	var lines []string
	for _, key := range r.order {
		if key[1] != r.Direct && key[1] != r.Again {
			lines = append(lines, fmt.Sprintf("- %s, %s: %s.", key[0], key[1], brief(r.out[key])))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return "### Not measured\n\n" + strings.Join(lines, "\n")
}

// brief is a reason in one line: of what a program said, the last.
func brief(why string) string {
	if lines := strings.Split(strings.TrimSpace(why), "\n"); len(lines) > 1 {
		first, _, _ := strings.Cut(lines[0], ":")
		why = first + ": " + lines[len(lines)-1]
	}
	return strings.TrimRight(why, ".")
}

// Summary is a few lines of it, in Markdown.
func (r *Report) Summary() string {
	rows := [][]string{{"", r.Base}}
	for _, l := range []struct{ title, load string }{
		{"CPU for a request at 1,000 a second, a client connection for each", "rate-close"},
		{"the same over kept client connections", "rate"},
	} {
		if against := r.against(l.load, CPU); against != "" {
			rows = append(rows, []string{l.title, against})
		}
	}
	if r.Direct != "" {
		if text := r.addedSummary(); text != "" {
			rows = append(rows, []string{"added to a typical request (p50) at that rate, kept connections", text})
		}
	}
	if v := r.median("idle", r.Base, PerClient); !math.IsNaN(v) {
		rows = append(rows, []string{"memory of an idle client connection", r.beside("idle", PerClient, "%.1f KB")})
	}
	if v := r.median("start", r.Base, Starts); !math.IsNaN(v) {
		rows = append(rows, []string{"from exec to the first answer", r.beside("start", Starts, "%.0f ms")})
	}
	return table(rows) + "\n"
}

// against is the ratios to the proxies that are compared with most.
func (r *Report) against(load string, m Metric) string {
	var all []string
	for _, p := range r.principal() {
		if ratio := r.ratio(load, r.Base, p, m); ratio.Rounds > 0 {
			all = append(all, fmt.Sprintf("%.2f × %s", ratio.Median, p))
		}
	}
	return strings.Join(all, ", ")
}

// principal are the first two others.
func (r *Report) principal() []string { return r.Others[:min(2, len(r.Others))] }

func (r *Report) addedSummary() string {
	var all []string
	for _, p := range append([]string{r.Base}, r.principal()...) {
		v, without := r.median("rate", p, P50), r.median("rate", r.Direct, P50)
		if math.IsNaN(v) || math.IsNaN(without) {
			continue
		}
		text := fmt.Sprintf("%.2f", (v-without)/1e3)
		if p == r.Base {
			all = append(all, text+" ms")
		} else {
			all = append(all, p+" "+text)
		}
	}
	return parenthesized(all)
}

func (r *Report) beside(load string, m Metric, format string) string {
	all := []string{fmt.Sprintf(format, r.median(load, r.Base, m))}
	for _, p := range r.principal() {
		if v := r.median(load, p, m); !math.IsNaN(v) {
			all = append(all, p+" "+fmt.Sprintf(format, v))
		}
	}
	return parenthesized(all)
}

func parenthesized(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return all[0] + " (" + strings.Join(all[1:], ", ") + ")"
}

// table is rows, of which the first is the head; no more rows are no table.
func table(rows [][]string) string {
	if len(rows) < 2 {
		return ""
	}
	lines := []string{"| " + strings.Join(rows[0], " | ") + " |", "|" + strings.Repeat("---|", len(rows[0]))}
	for _, row := range rows[1:] {
		lines = append(lines, "| "+strings.Join(row, " | ")+" |")
	}
	return strings.Join(lines, "\n")
}
