package report_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/ci/compare/internal/report"
)

// sample is a report of two loads in three rounds: HAProxy takes 1.25 times the CPU, Envoy as much as a copy does or so.
func sample() *report.Report {
	r := &report.Report{Results: &report.Results{}, Head: []string{"On a machine.", "Three rounds."}, Base: "carpool", Again: "carpool again",
		Others: []string{"HAProxy", "Envoy"}, Direct: "direct",
		Loads: []report.Load{{Name: "keepalive", Title: "kept"}, {Name: "rate", Title: "steady", Rated: true},
			{Name: "kept-32", Title: "32 clients"}, {Name: "kept-2000", Title: "2,000 clients"}}}
	for round, speed := range []float64{1, 2, 1.5} { // of the machine
		for peer, cost := range map[string]float64{"carpool": 8, "carpool again": 8.2, "HAProxy": 10, "Envoy": 8.1, "direct": 1} {
			put := func(load string, times float64, values map[report.Metric]float64) {
				values[report.P50], values[report.P99] = 10*cost*speed*times, 100*cost*speed*times
				if peer != "direct" {
					values[report.CPU] = cost * speed * times
				}
				r.Put(load, peer, round, &report.Cell{Values: values, Others: 3, Bound: "proxy"})
			}
			put("keepalive", 1, map[report.Metric]float64{report.PerSecond: 1e5 / cost / speed})
			put("rate", 4, map[report.Metric]float64{report.Late: 5})
			if peer != "direct" {
				put("kept-32", 1, map[report.Metric]float64{report.PerSecond: 1})
				put("kept-2000", 1.5, map[report.Metric]float64{report.PerSecond: 1})
			}
		}
	}
	return r
}

func TestFiguresHaveRatiosWithTheirSpread(t *testing.T) {
	got := sample().Figures()
	for _, want := range []string{
		"On a machine. Three rounds.",
		"| load | carpool, µs | carpool again | HAProxy | Envoy |\n",
		"| kept | 12.0 | 0.98 (0.98–0.98) | 0.80 (0.80–0.80) | 0.99 (0.99–0.99) ≈ |\n",
		"| kept | 8333 | 1.02 (1.02–1.02) | 1.25 (1.25–1.25) | 1.01 (1.01–1.01) ≈ | 0.12 (0.12–0.12) |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "NaN") {
		t.Error("something that was not measured is shown")
	}
}

func TestAddedLatencyIsADifferenceWithinRounds(t *testing.T) {
	// 10 × 4 × (8 - 1) µs, times 1, 2 and 1.5
	if got, want := sample().Figures(), "| steady, p50 | 420 (280–560) |"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestGrowthIsAgainstTheSameRound(t *testing.T) {
	if got, want := sample().Figures(), "| 2,000 clients | 18.0, 1.50 × (1.50–1.50) |"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestErrorsAndConditionsAreShown(t *testing.T) {
	r := sample()
	r.Put("keepalive", "Envoy", 3, &report.Cell{Values: map[report.Metric]float64{}, Errors: map[string]int{"status 502": 7}, Others: 61})
	if got, want := r.Figures(), "| kept | proxy | 3 | 61 | – | Envoy 7 |\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
	if got, want := r.Figures(), "| steady | proxy | 3 | 3 | 5 | 0 |\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestWhoIsLeftOutIsNamedWithTheFirstReason(t *testing.T) {
	r := sample()
	r.LeaveOut("http2", "carpool", "it ended: one\nlast words.")
	r.LeaveOut("http2", "carpool", "another")
	if why := r.WhyOut("http2", "carpool"); !strings.HasPrefix(why, "it ended") || r.WhyOut("http2", "Envoy") != "" {
		t.Errorf("%q", why)
	}
	if got, want := r.Figures(), "### Not measured\n\n- http2, carpool: it ended: last words.\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestSummaryIsShort(t *testing.T) {
	r := sample()
	r.Put("idle", "carpool", 0, &report.Cell{Values: map[report.Metric]float64{report.PerClient: 1.84}})
	r.Put("idle", "HAProxy", 0, &report.Cell{Values: map[report.Metric]float64{report.PerClient: 1.3}})
	want := "|  | carpool |\n|---|---|\n" +
		"| the same over kept client connections | 0.80 × HAProxy, 0.99 × Envoy |\n" +
		"| added to a typical request (p50) at that rate, kept connections | 0.42 ms (HAProxy 0.54, Envoy 0.43) |\n" +
		"| memory of an idle client connection | 1.8 KB (HAProxy 1.3 KB) |\n"
	if got := r.Summary(); got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
}

func TestNothingMeasuredIsAReportToo(t *testing.T) {
	r := &report.Report{Results: &report.Results{}, Head: []string{"Nothing."}, Base: "a", Again: "b"}
	if got := r.Figures(); strings.Contains(got, "|") || !strings.HasPrefix(got, "Nothing.") {
		t.Errorf("%s", got)
	}
}

func TestACellIsALine(t *testing.T) {
	c := report.Cell{Values: map[report.Metric]float64{report.PerSecond: 1234.4, report.CPU: 8.25, report.P50: math.Pi},
		Errors: map[string]int{"x": 2}, Others: 4.4, Bound: "proxy"}
	if got, want := c.String(), " 1234/s  CPU 8.2 µs  p50 3 µs  ERRORS map[x:2]  others 4 %  proxy"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestSectionsGoBetweenTheirMarkers(t *testing.T) {
	const text = "# Title\n<!-- compare: figures -->\nold\n<!-- /compare -->\nrest\n<!-- compare: summary --><!-- /compare -->"
	sections := map[string]string{"figures": "\nnew\n", "summary": "short"}
	got, err := report.Replace(text, sections)
	want := "# Title\n<!-- compare: figures -->\nnew\n<!-- /compare -->\nrest\n<!-- compare: summary -->\nshort\n<!-- /compare -->"
	if err != nil || got != want {
		t.Fatalf("%q, %v", got, err)
	}
	if again, err := report.Replace(got, sections); err != nil || again != want {
		t.Errorf("a second time: %q, %v", again, err)
	}
	for _, bad := range []string{"no marker", "<!-- compare: figures -->\nno end", "<!-- compare: other -->\n<!-- /compare -->"} {
		if got, err := report.Replace(bad, sections); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestAFileThatCannotBeRewrittenStaysAsItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.md")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report.Rewrite(path, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "text" {
		t.Errorf("%q", got)
	}
}
