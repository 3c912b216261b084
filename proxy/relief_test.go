package proxy

import (
	"testing"
	"time"
)

// X27: one eviction at a time, and only what helps.
func TestX27EvictionsThatDoNotHelpGetRare(t *testing.T) {
	var r relief
	evictions := 0
	for now := time.Duration(0); now < 10*time.Second; now += 20 * time.Millisecond {
		if r.due(now) {
			evictions++
		}
	}
	if evictions < 10 || evictions > 14 { // at 0, 0.1, 0.3, 0.7, 1.5, 2.5 … seconds
		t.Errorf("%d evictions in ten seconds", evictions)
	}
	r.helped()
	if !r.due(10*time.Second) || r.due(10*time.Second+firstRelief-1) || !r.due(10*time.Second+firstRelief) {
		t.Error("after one that helped it does not begin anew")
	}
}
