package pool_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

// P31 of the catalogue: a lease given back twice would be lent twice.
func TestP31GivingBackWhatIsNotLentPanics(t *testing.T) {
	release := func(l *pool.Lease) { l.Release() }
	discard := func(l *pool.Lease) { l.Discard(pool.NotKept) }
	for name, c := range map[string]struct{ first, second func(*pool.Lease) }{
		"released twice":     {release, release},
		"then discarded":     {release, discard},
		"discarded twice":    {discard, discard},
		"discarded and then": {discard, release},
	} {
		t.Run("P31 "+name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			l := acquire(t, o, pool.Ticket{})
			c.first(l)
			before := stats(t, p)
			if s := panics(func() { c.second(l) }); !strings.HasPrefix(s, "bug: pool: ") {
				t.Errorf("it panics with %q", s)
			}
			// No lock is left behind, and nothing was counted.
			after := stats(t, p)
			if after.InUse != before.InUse || after.Idle != before.Idle || len(after.Closed) != len(before.Closed) {
				t.Errorf("%+v, before %+v", after, before)
			}
			again := acquire(t, o, pool.Ticket{})
			again.Release()
		})
	}
}

// panics returns what f panics with.
func panics(f func()) (with string) {
	defer func() { with, _ = recover().(string) }()
	f()
	return ""
}
