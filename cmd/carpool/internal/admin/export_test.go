package admin

import "github.com/prometheus/client_golang/prometheus"

// NewCollector is what exports the metrics.
func NewCollector(from Sources) prometheus.Collector { return newCollector(from) }

// Line is a line of the table of metrics.
type Line struct {
	Name, Kind string
	Labels     int
}

// Table returns the lines of the table of metrics.
func Table() []Line {
	var lines []Line
	for _, m := range metrics {
		name := map[kind]string{counter: "counter", gauge: "gauge", distribution: "histogram"}[m.kind]
		lines = append(lines, Line{m.name, name, len(m.labels)})
	}
	return lines
}
