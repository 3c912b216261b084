package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// P22 of the catalogue: as many connections are opened ahead of need as the rate
// keeps warm, one at a time.
func TestP22ARateThatKeepsMoreConnectionsWarmHasThemOpened(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr, c.MaxAge = d.check, 20*sec })
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	first := w.lease(t)
	first.Release()
	o.Busy(50)
	if l := acquire(t, o, pool.Ticket{Replayable: true}); l != first {
		t.Error("the request waits for another")
	} else {
		l.Release()
	}
	ahead := testkit.Await(t, "one is dialled for ahead of need", d)
	acquire(t, o, pool.Ticket{Replayable: true}).Release()
	if n := o.Dialing(); n != 1 {
		t.Errorf("%d dials are under way", n)
	}
	ahead <- nil
	testkit.Eventually(t, "it is there", func() bool { return stats(t, p).Idle == 2 })
	used := map[*pool.Lease]bool{}
	for range 2 {
		l := acquire(t, o, pool.Ticket{Replayable: true})
		used[l] = true
		l.Release()
		o.PassTime(pool.TurnLasts)
	}
	if len(used) != 2 {
		t.Error("the two are not used in turn")
	}
}

// P22: the oldest is replaced, and used until its replacement is there, also under a
// request. One that cannot be had changes nothing.
func TestP22TheOldestIsReplacedWhenItsReplacementIsThere(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr, c.MaxAge = d.check, sec })
	p.StopJanitor()
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	old := w.lease(t)
	old.PassTime(-time.Hour) // its own age is far away
	old.Release()
	o.Busy(30) // by which one each second is replaced
	acquire(t, o, pool.Ticket{Replayable: true}).Release()
	testkit.Await(t, "its replacement is dialled for", d) <- errors.New("none can be had")
	testkit.Eventually(t, "that has failed", func() bool { return stats(t, p).DialErrors == 1 })
	if l := acquire(t, o, pool.Ticket{Replayable: true}); l != old || l.Overdue(0) {
		t.Fatal("the old one is not used as before")
	} else {
		l.Release()
	}
	o.Busy(30)
	held := acquire(t, o, pool.Ticket{Replayable: true})
	testkit.Await(t, "its replacement is dialled for", d) <- nil
	testkit.Eventually(t, "it is there", func() bool { return stats(t, p).Idle == 1 })
	if s := stats(t, p); s.Closed[pool.MaxAge] != 0 {
		t.Error("it was closed under a request")
	}
	held.Release()
	if s := stats(t, p); held != old || s.Closed[pool.MaxAge] != 1 || s.Idle != 1 || s.Opened != 2 {
		t.Errorf("%d opened, %d idle, closed %v", s.Opened, s.Idle, s.Closed)
	}
}

// P22: where one of the addresses in use has no connection the next one leads there,
// in place of one that another has too many of.
func TestP22AnAddressInUseWithoutAConnectionGetsTheNext(t *testing.T) {
	f := newFleet(t, 2, func(c *pool.Config) { c.MaxAge = sec })
	p := f.pool
	p.StopJanitor()
	bare, other := f.addrs[0], f.addrs[1]
	var leases []*pool.Lease
	for range 2 {
		l := acquire(t, f.o, pool.Ticket{Fresh: true, Avoid: bare})
		l.PassTime(-time.Hour)
		leases = append(leases, l)
	}
	for _, l := range leases {
		l.Release()
	}
	f.o.Busy(30)
	acquire(t, f.o, pool.Ticket{Replayable: true}).Release()
	testkit.Eventually(t, "it has one", func() bool { return figuresOf(t, p, bare).Open == 1 })
	f.o.Tidy()
	if n := figuresOf(t, p, other).Open; n != 1 || stats(t, p).Closed[pool.MaxAge] != 1 {
		t.Errorf("the other has %d, closed %v", n, stats(t, p).Closed)
	}
}

// What is used in turn is needed, though never at a time.
func TestP22WhatIsInTurnIsNoSurplus(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxAge = time.Hour })
	p.StopJanitor()
	o := u.origin(p)
	fill(t, u, o, 20)
	for _, c := range []struct{ width, want int }{{12, 13}, {4, 5}} {
		o.Choose(1, c.width)
		o.ForgetPeak()
		acquire(t, o, pool.Ticket{}).Release()
		for range 40 {
			o.Tidy()
		}
		if s := stats(t, p); s.Idle != c.want || o.Peak() != 1 {
			t.Errorf("%d in turn: %d idle, want %d, closed %v", c.width, s.Idle, c.want, s.Closed)
		}
	}
}

// P22: what nobody needs is not opened: an origin that is not used stays as it is.
func TestP22NothingIsOpenedWithoutRequests(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxAge = sec })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	l.PassTime(-time.Hour)
	l.Release()
	o.Busy(100)
	for range 5 {
		o.Tidy()
	}
	if s := stats(t, p); s.Opened != 1 || o.Dialing() != 0 {
		t.Errorf("%d opened, %d dials", s.Opened, o.Dialing())
	}
}

// P22: with reuse alone nothing is opened ahead of need.
func TestP22ReuseOpensNothingAhead(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse, func(c *pool.Config) { c.MaxAge = time.Hour })
	o := u.origin(p)
	acquire(t, o, pool.Ticket{}).Release()
	o.Busy(1000)
	for range 100 {
		acquire(t, o, pool.Ticket{Replayable: true}).Release()
	}
	if s := stats(t, p); s.Opened != 1 || o.Dialing() != 0 {
		t.Errorf("%d opened, %d dials", s.Opened, o.Dialing())
	}
}

// P22: limits come before balance.
func TestP22NothingIsOpenedAheadBeyondTheLimits(t *testing.T) {
	for name, limit := range map[string]func(*pool.Config){"of the origin": atMost(1), "of the pool": budget(1)} {
		t.Run("P22 "+name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, limit, func(c *pool.Config) { c.MaxAge = 20 * sec })
			o := u.origin(p)
			acquire(t, o, pool.Ticket{}).Release()
			for range 20 {
				o.Busy(100)
				acquire(t, o, pool.Ticket{Replayable: true}).Release()
			}
			if s := stats(t, p); s.Opened != 1 || o.Dialing() != 0 {
				t.Errorf("%d opened, %d dials", s.Opened, o.Dialing())
			}
		})
	}
}
