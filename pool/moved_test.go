package pool_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// X3 of the catalogue: what the name has no more gets no new request; what is under
// way there goes on.
func TestX3AnAddressThatGoesIsLeft(t *testing.T) {
	f := newFleet(t, 3)
	f.o.Moved(f.addrs...)
	f.open(t, 2)
	gone := f.addrs[1]
	var held *pool.Lease
	var others []*pool.Lease
	for held == nil {
		l := acquire(t, f.o, pool.Ticket{})
		if l.Addr().Addr() == gone {
			held = l
		} else {
			others = append(others, l)
		}
	}
	for _, l := range others {
		l.Release()
	}
	k := new(pool.Ticket)
	defer k.Leave()
	f.o.Moved(f.addrs[0], f.addrs[2])
	if s := stats(t, f.pool); s.Closed[pool.AddressGone] != 1 || s.Idle != 4 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
	if s := figuresOf(t, f.pool, gone); !s.Leaving || s.Chosen || s.Open != 1 {
		t.Errorf("%+v", s)
	}
	for range 50 {
		l := acquire(t, f.o, pool.Ticket{Replayable: true, Fresh: len(others)%2 == 0})
		if l.Addr().Addr() == gone {
			t.Fatal("a request went there")
		}
		l.Release()
	}
	if held.Release(); stats(t, f.pool).Closed[pool.AddressGone] != 2 {
		t.Errorf("what was under way is not closed: %v", stats(t, f.pool).Closed)
	}
	f.o.Moved(f.addrs...) // it comes back
	if s := figuresOf(t, f.pool, gone); s.Leaving {
		t.Errorf("%+v", s)
	}
	testkit.Eventually(t, "it is used again", func() bool {
		l := acquire(t, f.o, pool.Ticket{Fresh: true})
		defer l.Release()
		return l.Addr().Addr() == gone
	})
}

// X3: all of them change at once, as when a Service is made anew.
func TestX3AllAddressesChange(t *testing.T) {
	f := newFleet(t, 4)
	f.pool.StopJanitor()
	f.o.Moved(f.addrs[:2]...)
	f.addrs = f.addrs[:2]
	f.open(t, 2)
	fresh := loopback(3, 4)
	f.o.Moved(fresh...)
	for range 20 {
		l := acquire(t, f.o, pool.Ticket{Replayable: true})
		if a := l.Addr().Addr(); a != fresh[0] && a != fresh[1] {
			t.Errorf("a request went to %v", a)
		}
		l.Release()
	}
	closedFor(t, f.pool, pool.AddressGone, 4)
}

// X3: the new ones do not work yet. No request fails that the old ones could serve.
func TestX3OldAddressesServeWhileNewOnesDoNotWork(t *testing.T) {
	u := newUpstream(t)
	works := make(chan struct{})
	known := names{"moved.test": append(loopback(1), loopback(2)...)}
	p := newPool(t, func(c *pool.Config) {
		c.Resolver = known
		c.CheckAddr = func(a netip.AddrPort) error {
			select {
			case <-works:
				return nil
			default:
			}
			if a.Addr() != loopback(1)[0] {
				return errors.New("not yet")
			}
			return nil
		}
	})
	o := p.Origin(pool.Lookup{Host: []byte("moved.test"), Port: u.addr.Port()})
	o.Moved(loopback(1)...)
	old := acquire(t, o, pool.Ticket{Avoid: loopback(2)[0]})
	old.Release()
	known["moved.test"] = loopback(2)
	o.Moved(loopback(2)...)
	for range 3 {
		l := acquire(t, o, pool.Ticket{Replayable: true})
		if l != old {
			t.Fatal("not the old one")
		}
		l.Release()
		o.Tidy()
	}
	newUpstreamAt(t, netip.AddrPortFrom(loopback(2)[0], u.addr.Port()).String())
	close(works)
	l := acquire(t, o, pool.Ticket{Replayable: true})
	if l.Addr().Addr() != loopback(2)[0] {
		t.Errorf("a request went to %v", l.Addr())
	}
	l.Release()
	closedFor(t, p, pool.AddressGone, 1)
}

// X3: a dial may end after its address has gone. What waits is dialled for again.
func TestX3ADialThatEndsTooLateIsForNobody(t *testing.T) {
	d := make(dials)
	f := newFleet(t, 2, func(c *pool.Config) { c.CheckAddr = d.check })
	f.o.Moved(f.addrs[0])
	stays := enqueue(t, f.pool, f.o, pool.Ticket{Avoid: f.addrs[1]})
	testkit.Await(t, "a dial begins", d) <- nil
	l := stays.lease(t)
	f.o.Moved(f.addrs[1])
	w := enqueue(t, f.pool, f.o, pool.Ticket{})
	late := testkit.Await(t, "another begins", d)
	f.o.Moved(f.addrs[0]) // from which it leaves again
	late <- nil
	w.stillWaits(t)
	testkit.Await(t, "it is dialled for again", d) <- nil
	again := w.lease(t)
	if again.Addr().Addr() != f.addrs[0] {
		t.Errorf("it leads to %v", again.Addr())
	}
	closedFor(t, f.pool, pool.AddressGone, 1)
	again.Release()
	l.Release()
}

// X3: at the limit it makes room for the next dial.
func TestX3ADialThatEndsTooLateIsInNobodysWay(t *testing.T) {
	d := make(dials)
	f := newFleet(t, 2, atMost(1), func(c *pool.Config) { c.CheckAddr = d.check })
	f.o.Moved(f.addrs[0])
	w := enqueue(t, f.pool, f.o, pool.Ticket{})
	late := testkit.Await(t, "a dial begins", d)
	f.o.Moved(f.addrs[1])
	late <- nil
	testkit.Await(t, "it is dialled for again", d) <- nil
	l := w.lease(t)
	if l.Addr().Addr() != f.addrs[1] {
		t.Errorf("it leads to %v", l.Addr())
	}
	l.Release()
}

// X3: the same with an address that a dial comes to after another has failed.
func TestX3ASecondAddressThatGoesMeanwhileIsForNobody(t *testing.T) {
	d := make(chan asked)
	f := newFleet(t, 2, func(c *pool.Config) {
		c.CheckAddr = func(a netip.AddrPort) error {
			verdict := make(chan error)
			d <- asked{a.Addr(), verdict}
			return <-verdict
		}
	})
	f.o.Moved(f.addrs...)
	w := enqueue(t, f.pool, f.o, pool.Ticket{})
	first := testkit.Await(t, "one is tried", d)
	first.verdict <- errors.New("not here")
	second := testkit.Await(t, "the other is tried", d)
	f.o.Moved(first.addr)
	second.verdict <- nil
	again := testkit.Await(t, "it is dialled for again", d)
	if again.addr != first.addr {
		t.Errorf("%v is tried, which has gone", again.addr)
	}
	again.verdict <- nil
	l := w.lease(t)
	if l.Addr().Addr() != first.addr {
		t.Errorf("it leads to %v", l.Addr())
	}
	l.Release()
}

// asked is a dial that waits for the test's word.
type asked struct {
	addr    netip.Addr
	verdict chan error
}

// X3: what a look-up still names is dialled only where nothing else works.
func TestX3AnAddressThatTheNameHasNotIsTriedLast(t *testing.T) {
	f := newFleet(t, 2)
	f.o.Moved(f.addrs[0])
	for range 40 {
		l := acquire(t, f.o, pool.Ticket{Fresh: true})
		defer l.Release()
		if l.Addr().Addr() != f.addrs[0] {
			t.Fatal("it was dialled")
		}
	}
}

// X3: a new address is used within a second, by more requests as time passes.
func TestX3ANewAddressIsUsedAtOnce(t *testing.T) {
	f := newFleet(t, 3)
	f.o.Moved(f.addrs[:2]...)
	for range 2 {
		acquire(t, f.o, pool.Ticket{Fresh: true}).Release()
	}
	f.o.Busy(100)
	f.o.Spent()
	f.o.Moved(f.addrs...)
	testkit.Eventually(t, "the new one has a connection", func() bool {
		acquire(t, f.o, pool.Ticket{Replayable: true}).Release()
		return figuresOf(t, f.pool, f.addrs[2]).Open > 0
	})
	for pass, c := range []struct {
		age         time.Duration
		least, most int // of 900
	}{{0, 1, 150}, {5 * sec, 200, 400}} {
		f.o.Settle(f.addrs[2], c.age)
		before := figuresOf(t, f.pool, f.addrs[2]).Requests
		for range 900 {
			acquire(t, f.o, pool.Ticket{Replayable: true}).Release()
		}
		if n := int(figuresOf(t, f.pool, f.addrs[2]).Requests - before); n < c.least || n > c.most {
			t.Errorf("pass %d: %d requests of 900", pass, n)
		}
	}
}

// P20 and X3: what authenticates a connection is not cut off in the middle, be it
// idle when its address goes or in use.
func TestX3APinnedConnectionMidwayStays(t *testing.T) {
	for name, c := range map[string]struct{ midway, idle bool }{
		"idle": {false, true}, "in use": {false, false}, "idle, midway": {true, true}, "in use, midway": {true, false},
	} {
		t.Run("X3 "+name, func(t *testing.T) {
			f := newFleet(t, 2)
			f.o.Moved(f.addrs[0])
			first := acquire(t, f.o, pool.Ticket{Avoid: f.addrs[1]})
			f.o.Moved(f.addrs[1])
			other := acquire(t, f.o, pool.Ticket{Avoid: f.addrs[0]})
			defer other.Release()
			f.o.Moved(f.addrs...)
			k := new(pool.Ticket)
			defer k.Leave()
			if c.idle {
				first.ReleaseTo(k, c.midway)
				f.o.Moved(f.addrs[1])
			} else {
				f.o.Moved(f.addrs[1])
				first.ReleaseTo(k, c.midway)
			}
			if got := stats(t, f.pool).Closed[pool.AddressGone]; (got == 1) == c.midway {
				t.Errorf("%d are closed", got)
			}
			l, err := f.o.Acquire(k)
			if err != nil || (l == first) != c.midway {
				t.Fatalf("its client gets it: %v (%v)", l == first, err)
			}
			l.Discard(pool.NotKept)
		})
	}
}
