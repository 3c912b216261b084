package figures

import "slices"

// A Round is what was measured of one proxy in one round.
type Round struct {
	Value float64
	// Others is the CPU that other processes took meanwhile, in percent of a core.
	Others float64
	// OK is false if there is no value.
	OK bool
}

// A Ratio is how two proxies compare over rounds: the quotient is taken within each round, because a machine's speed
// changes more between rounds than between proxies.
type Ratio struct {
	Median, Min, Max float64
	Rounds           int // none: nothing is known
}

// Compare returns the ratio of a to b, round by round. Rounds in which others took more than loud percent of a core are
// left out as long as three stay.
func Compare(a, b []Round, loud float64) Ratio {
	var quiet, all []float64
	for i := range min(len(a), len(b)) {
		if !a[i].OK || !b[i].OK || b[i].Value == 0 {
			continue
		}
		r := a[i].Value / b[i].Value
		all = append(all, r)
		if max(a[i].Others, b[i].Others) <= loud {
			quiet = append(quiet, r)
		}
	}
	if len(quiet) >= 3 {
		all = quiet
	}
	if len(all) == 0 {
		return Ratio{}
	}
	return Ratio{Median: Median(all), Min: slices.Min(all), Max: slices.Max(all), Rounds: len(all)}
}

// Noise says whether the ratio tells no difference: its rounds lie on both sides of 1, or it is within what two copies
// of the same program differ by. same is the ratio of those copies; the wider of its two sides counts for both.
func (r Ratio) Noise(same Ratio) bool {
	if r.Rounds == 0 {
		return false
	}
	if r.Min <= 1 && r.Max >= 1 {
		return true
	}
	if same.Rounds == 0 {
		return false
	}
	band := max(same.Max, 1/same.Min, 1)
	return r.Median <= band && r.Median >= 1/band
}
