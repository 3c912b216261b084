package carpooltest

import (
	"strconv"
	"strings"
	"testing"
)

// Exposition is what a scrape has brought.
type Exposition struct {
	t    testing.TB
	text string
}

// Sum adds up the samples of a metric whose labels, as they are written,
// include all of these.
func (e Exposition) Sum(name string, labels ...string) float64 {
	e.t.Helper()
	sum, found := 0.0, false
samples:
	for line := range strings.Lines(e.text) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.Index(line, "} "); at >= 0 {
			sample, value = line[:at], strings.TrimSpace(line[at+2:])
		}
		family, set, _ := strings.Cut(sample, "{")
		if family != name {
			continue
		}
		found = true
		for _, l := range labels {
			if !strings.Contains(set, l) {
				continue samples
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			e.t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	if !found && len(labels) == 0 {
		e.t.Fatalf("no metric %s", name)
	}
	return sum
}
