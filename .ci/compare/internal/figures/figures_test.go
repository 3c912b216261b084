package figures_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carpoolproxy/carpool/ci/compare/internal/figures"
)

func TestPercentilesAreThoseOfTheSortedValues(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 99, 100, 101, 5000} {
		var h figures.Histogram
		var all []int64
		for range n {
			v := int64(math.Exp(random.Float64() * 24)) // 1 ns to 26 s
			all = append(all, v)
			h.Record(v)
		}
		slices.Sort(all)
		for _, p := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := float64(all[max(0, int(math.Ceil(p*float64(n)))-1)])
			if got := h.Percentile(p); math.Abs(got-exact) > exact/512+0.5 {
				t.Errorf("%g of %d values: %g, not %g", p, n, got, exact)
			}
		}
		if h.Count() != uint64(n) {
			t.Errorf("%d values counted, not %d", h.Count(), n)
		}
	}
}

func TestATrimmedHistogramSaysTheSame(t *testing.T) {
	var h figures.Histogram
	h.Record(-5)
	h.Record(7000)
	got := h.Trimmed()
	if got.Percentile(1) != h.Percentile(1) || got.Percentile(0.5) != 0 || got.Count() != 2 || len(got.Counts) > 7000 {
		t.Errorf("p100 %g, not %g; p50 %g; %d values in %d buckets",
			got.Percentile(1), h.Percentile(1), got.Percentile(0.5), got.Count(), len(got.Counts))
	}
}

func TestADurationBeyondTheLastBucketIsCountedThere(t *testing.T) {
	var h figures.Histogram
	h.Record(math.MaxInt64)
	if got := h.Percentile(1); got < 500e9 {
		t.Errorf("counted as %g s", got/1e9)
	}
}

func TestNothingRecordedHasNoPercentile(t *testing.T) {
	var h figures.Histogram
	if got := h.Percentile(0.5); !math.IsNaN(got) {
		t.Errorf("%g", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{7}, 7}} {
		if got := figures.Median(c.of); got != c.want {
			t.Errorf("of %v: %g, not %g", c.of, got, c.want)
		}
	}
	if got := figures.Median(nil); !math.IsNaN(got) {
		t.Errorf("of nothing: %g", got)
	}
}

func rounds(values ...float64) (all []figures.Round) {
	for _, v := range values {
		all = append(all, figures.Round{Value: v, OK: true})
	}
	return all
}

func TestRatiosAreTakenWithinRounds(t *testing.T) {
	// The machine is twice as slow in the second round: the ratio of medians would be 1.25.
	got := figures.Compare(rounds(8, 20, 11), rounds(10, 20, 10), 40)
	if want := (figures.Ratio{Median: 1, Min: 0.8, Max: 1.1, Rounds: 3}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestARoundThatOneSideLacksDoesNotCount(t *testing.T) {
	a, b := rounds(1, 2, 3), rounds(2, 0, 6)
	a[2].OK = false
	if got := figures.Compare(a, b, 40); got.Rounds != 1 || got.Median != 0.5 {
		t.Errorf("%+v", got)
	}
	if got := figures.Compare(nil, b, 40); got.Rounds != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestLoudRoundsAreLeftOutWhereThreeStay(t *testing.T) {
	a, b := rounds(1, 1, 1, 9), rounds(1, 1, 1, 1)
	a[3].Others = 50
	if got := figures.Compare(a, b, 40); got.Rounds != 3 || got.Max != 1 {
		t.Errorf("%+v", got)
	}
	b[0].Others = 50
	if got := figures.Compare(a, b, 40); got.Rounds != 4 || got.Max != 9 {
		t.Errorf("with two quiet rounds: %+v", got)
	}
}

func TestNoise(t *testing.T) {
	same := figures.Ratio{Median: 1.01, Min: 0.95, Max: 1.03, Rounds: 5}
	for name, c := range map[string]struct {
		of   figures.Ratio
		want bool
	}{
		"rounds on both sides of 1":              {figures.Ratio{Median: 0.9, Min: 0.8, Max: 1.01, Rounds: 5}, true},
		"as far from 1 as copies are":            {figures.Ratio{Median: 0.96, Min: 0.94, Max: 0.99, Rounds: 5}, true},
		"the wider side of the copies' counts":   {figures.Ratio{Median: 1.05, Min: 1.04, Max: 1.06, Rounds: 5}, true},
		"further from 1, above":                  {figures.Ratio{Median: 1.06, Min: 1.05, Max: 1.2, Rounds: 5}, false},
		"further from 1, below":                  {figures.Ratio{Median: 0.8, Min: 0.7, Max: 0.9, Rounds: 5}, false},
		"nothing measured is not called a noise": {figures.Ratio{}, false},
	} {
		if got := c.of.Noise(same); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if (figures.Ratio{Median: 0.99, Min: 0.98, Max: 0.995, Rounds: 5}).Noise(figures.Ratio{}) {
		t.Error("without copies to go by, five rounds below 1 are noise")
	}
}
