package histogram_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/histogram"
)

func TestADurationIsCountedInTheFirstBucketThatHoldsIt(t *testing.T) {
	t.Parallel()
	last := len(histogram.Buckets)
	for d, bucket := range map[time.Duration]int{
		-time.Second: 0, 0: 0, histogram.Buckets[0]: 0, histogram.Buckets[0] + 1: 1,
		histogram.Buckets[last-1]: last - 1, histogram.Buckets[last-1] + 1: last, time.Hour: last,
	} {
		var h histogram.Histogram
		h.Observe(d)
		h.Observe(d)
		want := histogram.Snapshot{Count: 2, Sum: 2 * d}
		want.Counts[bucket] = 2
		if got := h.Snapshot(); got != want {
			t.Errorf("%v: %+v, want %+v", d, got, want)
		}
	}
}

func TestObservingDoesNotAllocate(t *testing.T) {
	var h histogram.Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
