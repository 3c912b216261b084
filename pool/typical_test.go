package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

func TestWhatIsTypicalIsNotChangedByAStall(t *testing.T) {
	var typical pool.Typical
	if got := typical.Add(7 * ms); got != 7*ms {
		t.Errorf("of one it is %v", got)
	}
	// Most of the first ones came while the machine stalled.
	typical = pool.Typical{}
	var got time.Duration
	for _, d := range []time.Duration{800 * ms, 300 * ms, 2 * ms, 900 * ms, 1200 * ms, 3 * ms, 700 * ms} {
		got = typical.Add(d)
	}
	if got != 3*ms {
		t.Errorf("after a stall it is %v", got)
	}
	// It follows what really changes.
	for range 16 {
		got = typical.Add(50 * ms)
	}
	if got != 50*ms {
		t.Errorf("after it has changed it is %v", got)
	}
	for range 12 {
		got = typical.Add(5 * sec)
	}
	if got != 50*ms {
		t.Errorf("three of four changed it to %v", got)
	}
}
