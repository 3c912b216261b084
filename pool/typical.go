package pool

import (
	"slices"
	"time"
)

// typical learns how long something usually takes. It is the lower quartile of
// the last few times: what happened while the machine stalled, or a packet was
// lost, only makes a time longer, and often happens to most of a few. The zero
// value is ready. It is for one goroutine at a time.
type typical struct {
	last  [16]time.Duration // a ring
	n     int               // how many there have been
	value time.Duration     // 0 before the first
}

func (t *typical) add(d time.Duration) {
	t.last[t.n%len(t.last)] = d
	t.n++
	known := t.last // a copy
	sorted := known[:min(t.n, len(known))]
	slices.Sort(sorted)
	t.value = sorted[(len(sorted)-1)/4]
}
