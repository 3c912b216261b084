package pool_test

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func aging(c *pool.Config) { c.MaxAge = time.Hour }

// A request is not to wait for the connection that takes the place of an old
// one, nor to fail if there is none.
func TestAnAgedConnectionIsUsedUntilItsReplacementIsThere(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, aging, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	l := w.lease(t)
	l.Release()
	l.ComeOfAge()
	for range 3 {
		if again := acquire(t, o, pool.Ticket{}); again != l {
			t.Fatal("it is not used")
		}
		l.Release()
		o.Tidy()
	}
	testkit.Await(t, "its replacement is dialled for", d) <- nil
	testkit.Eventually(t, "it is there", func() bool { return stats(t, p).Idle == 2 })
	again := acquire(t, o, pool.Ticket{})
	if again == l || !again.Reused() {
		t.Error("the new one was not used first")
	}
	o.Tidy()
	again.Release()
	if s := stats(t, p); s.Closed[pool.MaxAge] != 1 || s.Idle != 1 || s.Opened != 2 {
		t.Errorf("%d opened, %d idle, closed %v", s.Opened, s.Idle, s.Closed)
	}
}

// The same with one that is in use when it comes of age.
func TestAnAgedConnectionInUseIsKeptUntilItsReplacementIsThere(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, aging, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	l := w.lease(t)
	l.ComeOfAge()
	l.Release()
	replacement := testkit.Await(t, "its replacement is dialled for", d)
	if again := acquire(t, o, pool.Ticket{}); again != l {
		t.Fatal("it is not used")
	}
	replacement <- nil
	testkit.Eventually(t, "it is there", func() bool { return stats(t, p).Idle == 1 })
	l.Release()
	if s := stats(t, p); s.Closed[pool.MaxAge] != 1 || s.Idle != 1 || s.Opened != 2 {
		t.Errorf("%d opened, %d idle, closed %v", s.Opened, s.Idle, s.Closed)
	}
}

// X2 of the catalogue: the resolver is away, and there are connections.
func TestX2AgedConnectionsAreKeptWhileNoneCanBeMade(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, aging, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	l := w.lease(t)
	l.Release()
	l.ComeOfAge()
	for i := range 3 {
		o.Tidy()
		testkit.Await(t, "its replacement is dialled for", d) <- errors.New("no connection can be made")
		testkit.Eventually(t, "that has failed", func() bool { return stats(t, p).DialErrors == uint64(i+1) })
		for range 5 { // and is not tried again each time
			if again := acquire(t, o, pool.Ticket{}); again != l {
				t.Fatal("it is not used")
			}
			l.Release()
			o.Tidy()
		}
		o.PassTime(time.Second)
	}
	for past, want := range map[time.Duration]bool{0: false, pool.MaxOverAge - 1: false, pool.MaxOverAge: true} {
		if got := l.Overdue(past); got != want {
			t.Errorf("%v past its age it is closed: %v", past, got)
		}
	}
	o.Tidy()
	testkit.Await(t, "its replacement is dialled for", d) <- nil
	testkit.Eventually(t, "it is there", func() bool { return stats(t, p).Opened == 2 })
	o.Tidy()
	if s := stats(t, p); s.Closed[pool.MaxAge] != 1 || s.Idle != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
}

// One success shows that all can be replaced.
func TestOneReplacementIsEnoughForAllThatAreIdle(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, aging)
	o := u.origin(p)
	var leases []*pool.Lease
	for range 5 {
		leases = append(leases, acquire(t, o, pool.Ticket{Fresh: true}))
	}
	for _, l := range leases {
		l.Release()
		l.ComeOfAge()
	}
	o.Tidy()
	testkit.Eventually(t, "one is replaced", func() bool { return stats(t, p).Opened == 6 })
	testkit.Eventually(t, "and idle", func() bool { return o.Dialing() == 0 })
	o.Tidy()
	if s := stats(t, p); s.Closed[pool.MaxAge] != 5 || s.Idle != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
}

// Or an origin that is used no more would be dialled for ever.
func TestAnAgedConnectionThatNobodyHasUsedIsNotReplaced(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, aging, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	first := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", d) <- nil
	l := first.lease(t)
	second := enqueue(t, p, o, pool.Ticket{})
	spare := testkit.Await(t, "the next begins", d)
	l.Release()
	l = second.lease(t)
	spare <- nil
	testkit.Eventually(t, "a spare connection is idle", func() bool { return stats(t, p).Idle == 1 })
	unused := acquire(t, o, pool.Ticket{})
	unused.ComeOfAge()
	unused.Unused()
	o.Tidy()
	if s := stats(t, p); s.Closed[pool.MaxAge] != 1 || o.Dialing() != 0 {
		t.Errorf("closed %v, %d dials", s.Closed, o.Dialing())
	}
	l.Release()
}

// At the limit there is no room for two.
func TestAnAgedConnectionAtTheLimitMakesRoomForItsReplacement(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, aging, atMost(1))
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	l.ComeOfAge()
	l.Release()
	again := acquire(t, o, pool.Ticket{})
	if s := stats(t, p); again == l || s.Closed[pool.MaxAge] != 1 || s.Opened != 2 {
		t.Errorf("%d opened, closed %v", s.Opened, s.Closed)
	}
	again.Release()
}

// X5 of the catalogue: behind a Service's address the next dial may lead to a
// pod that listens.
func TestX5ADialThatIsRefusedIsTriedOnceMore(t *testing.T) {
	for name, c := range map[string]struct {
		listens int64 // from which try on
		works   bool
	}{"refused once": {2, true}, "refused twice": {3, false}} {
		t.Run("X5 "+name, func(t *testing.T) {
			addr := netip.AddrPortFrom(loopback(1)[0], vacant(t))
			var tried atomic.Int64
			var listener net.Listener
			p := newPool(t, func(cfg *pool.Config) {
				cfg.CheckAddr = func(netip.AddrPort) (err error) {
					if tried.Add(1) == c.listens {
						listener, err = net.Listen("tcp", addr.String())
					}
					return err
				}
			})
			l, err := p.Origin(pool.Lookup{Host: []byte("127.0.0.1"), Port: addr.Port()}).Acquire(&pool.Ticket{})
			if (err == nil) != c.works || tried.Load() != 2 {
				t.Errorf("got %v after %d tries", err, tried.Load())
			}
			if err == nil {
				l.Discard(pool.NotKept)
				_ = listener.Close()
			}
		})
	}
}

// X4 of the catalogue: what was just seen to fail is tried last.
func TestX4ARequestThatIsSentAgainGoesToAnotherAddress(t *testing.T) {
	_, o, first, second := twoAddresses(t, 0)
	for i, want := range []*upstream{first, second, first} {
		avoid := [...]netip.Addr{{}, first.addr.Addr(), second.addr.Addr()}[i]
		l := acquire(t, o, pool.Ticket{Fresh: true, Avoid: avoid})
		if l.Addr() != want.addr {
			t.Errorf("to avoid %v it went to %v", avoid, l.Addr())
		}
		l.Discard(pool.NotKept)
	}
}

func TestX4AnAddressToAvoidIsBetterThanNone(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.Resolver = names{"one.test": loopback(1)} })
	l := acquire(t, p.Origin(pool.Lookup{Host: []byte("one.test"), Port: u.addr.Port()}), pool.Ticket{Avoid: u.addr.Addr()})
	if l.Addr().String() != net.JoinHostPort("127.0.0.1", strconv.Itoa(int(u.addr.Port()))) {
		t.Errorf("it went to %v", l.Addr())
	}
	l.Release()
}
