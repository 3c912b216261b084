package proxy_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/proxy"
)

// X27: one eviction at a time, and only what helps.
func TestX27EvictionsThatDoNotHelpGetRare(t *testing.T) {
	var r proxy.Relief
	evictions := 0
	for now := time.Duration(0); now < 10*time.Second; now += 20 * time.Millisecond {
		if r.Due(now) {
			evictions++
		}
	}
	if evictions < 10 || evictions > 14 { // at 0, 0.1, 0.3, 0.7, 1.5, 2.5 … seconds
		t.Errorf("%d evictions in ten seconds", evictions)
	}
	r.Helped()
	if now := 10 * time.Second; !r.Due(now) || r.Due(now+proxy.FirstRelief-1) || !r.Due(now+proxy.FirstRelief) {
		t.Error("after one that helped it does not begin anew")
	}
}
