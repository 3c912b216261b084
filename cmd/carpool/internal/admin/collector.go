package admin

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/internal/histogram"
)

// kind says how a metric's values are to be read.
type kind prometheus.ValueType

const (
	counter = kind(prometheus.CounterValue) // only grows
	gauge   = kind(prometheus.GaugeValue)
	// distribution has counts by bucket, which only grow.
	distribution = kind(0)
)

// collector exports the table of metrics. It reads the figures at each scrape,
// so that counting costs the request path nothing more.
type collector struct {
	from  Sources
	descs []*prometheus.Desc // of the metrics, in their order
}

func newCollector(from Sources) *collector {
	c := &collector{from: from}
	for i := range metrics {
		c.descs = append(c.descs, metrics[i].desc())
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	f := figures{
		pool: c.from.Pool.Snapshot(), proxy: c.from.Proxy.Stats(),
		bypass: c.from.Bypass.Snapshot(), memory: c.from.Memory.Stats(), certs: c.from.Certs.Stats(),
	}
	f.unread, f.flood = c.from.Log.Dropped()
	for i := range metrics {
		metrics[i].values(&f, &sink{ch, c.descs[i], metrics[i].kind})
	}
}

// sink takes the values of one metric.
type sink struct {
	ch   chan<- prometheus.Metric
	desc *prometheus.Desc
	kind kind
}

// put exports a value of a counter or gauge. The values of its labels are in the
// order of their names in the table.
func (s *sink) put(v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(s.desc, prometheus.ValueType(s.kind), v, labels...)
}

// spread exports a histogram, whose counts by bucket become cumulative ones.
func (s *sink) spread(h *histogram.Snapshot, labels ...string) {
	buckets := make(map[float64]uint64, len(histogram.Buckets))
	sum := uint64(0)
	for i, bound := range histogram.Buckets {
		sum += h.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	total := sum + h.Counts[len(histogram.Buckets)]
	s.ch <- prometheus.MustNewConstHistogram(s.desc, total, math.Max(h.Sum.Seconds(), 0), buckets, labels...)
}
