package pool_test

import (
	"fmt"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// held holds origins until the end of the test, so that whoever looks at one of
// them is stuck.
func held(t *testing.T, origins ...*pool.Origin) (release func()) {
	t.Helper()
	var all []func()
	for _, o := range origins {
		all = append(all, o.Hold())
	}
	return func() {
		for _, f := range all {
			f()
		}
		all = nil
	}
}

// many returns a pool that knows n origins, each with an idle connection if u is
// not nil, the first of them used longest ago.
func many(t *testing.T, n int, u *upstream) (*pool.Pool, []*pool.Origin) {
	t.Helper()
	known := names{}
	p := newPool(t, func(c *pool.Config) { c.Resolver = known })
	p.SetMaxOrigins(n)
	port := uint16(80)
	if u != nil {
		port = u.addr.Port()
	}
	var origins []*pool.Origin
	for i := range 4 * n {
		known[fmt.Sprint(i, ".test")] = loopback(1)
	}
	for i := range n {
		o := p.Origin(pool.Lookup{Host: fmt.Append(nil, i, ".test"), Port: port})
		origins = append(origins, o)
		if u != nil {
			acquire(t, o, pool.Ticket{}).Release()
		}
	}
	return p, origins
}

// X28 of the catalogue: with as many origins as there may be, what one more costs
// does not depend on how many there are. All but a few cannot be looked at here.
func TestX28ANewOriginLooksAtAFewOthersOnly(t *testing.T) {
	p, origins := many(t, 100, nil)
	release := held(t, origins[pool.LookedAt:]...)
	defer release()
	testkit.Await(t, "it is there", testkit.In(func() *pool.Origin { return p.Origin(pool.Lookup{Host: []byte("new.test"), Port: 80}) }))
	if !origins[0].Gone() {
		t.Error("not the one that was used longest ago has made room")
	}
	for _, o := range origins[1:] {
		if o.Gone() {
			t.Errorf("%s is gone too", o.Key())
		}
	}
	release()
	if n := p.Origins(); n != 100 {
		t.Errorf("%d origins", n)
	}
}

func TestX28ToEvictLooksAtNoOriginTwice(t *testing.T) {
	u := newUpstream(t)
	p, origins := many(t, 20, u)
	for i, o := range origins {
		release := held(t, origins[i+1:]...)
		if !testkit.Await(t, "one is evicted", testkit.In(p.EvictIdle)) {
			t.Error("there was nothing to evict")
		}
		release()
		for _, s := range p.Snapshot().Origins {
			if s.Origin == o.Key().String() && s.Closed[pool.Evicted] != 1 {
				t.Errorf("number %d was not the one", i)
			}
		}
	}
}

// X28: a flood of names pushes out neither what is in use nor what is used again
// and again, and leaves no more connections behind than there may be origins.
func TestX28AFloodOfNames(t *testing.T) {
	u := newUpstream(t)
	const most = 32
	p, origins := many(t, most, u)
	used, lent := origins[0], origins[1]
	l := acquire(t, lent, pool.Ticket{})
	defer l.Release()
	for i := range 3 * most {
		acquire(t, used, pool.Ticket{}).Release()
		o := p.Origin(pool.Lookup{Host: fmt.Append(nil, most+i, ".test"), Port: u.addr.Port()})
		acquire(t, o, pool.Ticket{}).Release()
		if n := p.Origins(); n > most {
			t.Fatalf("%d origins", n)
		}
		if leases, _ := p.Open(); leases > most {
			t.Fatalf("%d connections", leases)
		}
	}
	if used.Gone() || lent.Gone() {
		t.Errorf("used again and again, forgotten: %v; in use, forgotten: %v", used.Gone(), lent.Gone())
	}
	total := p.Snapshot().Total
	if total.Opened != 4*most || total.Closed[pool.MaxIdle] != 3*most || total.Idle+total.InUse != most {
		t.Errorf("%d opened, closed %v, %d idle, %d in use", total.Opened, total.Closed, total.Idle, total.InUse)
	}
}

// Where all are in use there is one more, until they are not.
func TestX28OriginsInUseAreNotForgotten(t *testing.T) {
	u := newUpstream(t)
	p, origins := many(t, 4, u)
	var leases []*pool.Lease
	for _, o := range origins {
		leases = append(leases, acquire(t, o, pool.Ticket{}))
	}
	p.Origin(pool.Lookup{Host: []byte("5.test"), Port: 80})
	for i, l := range leases {
		if l.Release(); origins[i].Gone() {
			t.Error("one in use is forgotten")
		}
	}
	if n := p.Origins(); n != 5 {
		t.Errorf("%d origins", n)
	}
}
