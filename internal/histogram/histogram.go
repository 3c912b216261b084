// Package histogram counts durations by bucket, without a lock and without
// allocating.
package histogram

import (
	"sync/atomic"
	"time"
)

// Buckets are the upper bounds of the buckets; one more is without bound.
var Buckets = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Histogram is a histogram in the making. The zero value is empty. It is safe for
// concurrent use.
type Histogram struct {
	counts [len(Buckets) + 1]atomic.Uint64
	sum    atomic.Int64
}

// Observe counts d in the first bucket whose bound it does not exceed.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(Buckets) && d > Buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns what was counted by now. Of what is counted meanwhile, Sum may
// have a duration that Counts lacks, or the other way round.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
		s.Count += s.Counts[i]
	}
	return s
}

// Snapshot is a copy of a histogram.
type Snapshot struct {
	// Counts are by bucket, not cumulative; the last is of what exceeds all bounds.
	Counts [len(Buckets) + 1]uint64
	// Count is the sum of Counts.
	Count uint64
	// Sum is of the durations themselves.
	Sum time.Duration
}
