// Package figures is the arithmetic of the comparison: percentiles, pairs of rounds, and which differences are noise.
package figures

import (
	"math"
	"math/bits"
	"slices"
)

// A Histogram counts durations. Buckets are at most 1/256 of their value wide, so a percentile is within 0.2 % of the
// exact one. The zero value is empty.
type Histogram struct {
	Counts []uint64 `json:"counts"` // by bucket
}

const sub = 256 // buckets for each doubling

// buckets holds durations up to nine minutes without growing.
const buckets = 32 * sub

// Record counts a duration; a negative one counts as 0.
func (h *Histogram) Record(nanoseconds int64) {
	if h.Counts == nil {
		h.Counts = make([]uint64, buckets)
	}
	h.Counts[min(bucket(nanoseconds), buckets-1)]++
}

// Reset forgets what was recorded and keeps the memory.
func (h *Histogram) Reset() { clear(h.Counts) }

// Trimmed returns the histogram without the empty buckets at its end. It shares the memory.
func (h *Histogram) Trimmed() Histogram {
	n := len(h.Counts)
	for n > 0 && h.Counts[n-1] == 0 {
		n--
	}
	return Histogram{Counts: h.Counts[:n]}
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 {
	var sum uint64
	for _, n := range h.Counts {
		sum += n
	}
	return sum
}

// Percentile returns the smallest recorded duration, in nanoseconds, that the share p (0 to 1) of all does not exceed;
// NaN if there is none.
func (h *Histogram) Percentile(p float64) float64 {
	total := h.Count()
	if total == 0 {
		return math.NaN()
	}
	rank := max(1, uint64(math.Ceil(p*float64(total))))
	var seen uint64
	for i, n := range h.Counts {
		if seen += n; seen >= rank {
			return middle(i)
		}
	}
	return math.NaN() // not reached: all were seen
}

func bucket(nanoseconds int64) int {
	v := uint64(max(0, nanoseconds))
	shift := max(0, bits.Len64(v)-9)
	return shift*sub + int(v>>shift)
}

func middle(bucket int) float64 {
	if bucket < 2*sub {
		return float64(bucket)
	}
	shift := bucket/sub - 1
	low := uint64(bucket-shift*sub) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Median returns the middle value, the mean of the middle two of an even number; NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
