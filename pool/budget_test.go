package pool_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func budget(n int) func(*pool.Config) {
	return func(c *pool.Config) { c.MaxConns = n }
}

// open reports whether the pool's end of a connection is still there.
func open(c *net.TCPConn) bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * ms))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestTheConnectionIdleLongestIsEvicted(t *testing.T) {
	p := newPool(t)
	a, b := newUpstream(t), newUpstream(t)
	first := fill(t, a, a.origin(p), 1)
	second := fill(t, b, b.origin(p), 2)
	third := fill(t, a, a.origin(p), 1)
	order := append(append(first, second...), third...)
	for i, c := range order {
		if !open(c) {
			t.Fatalf("number %d was closed too early", i)
		}
		if !p.EvictIdle() {
			t.Fatal("there was nothing to evict")
		}
		if open(c) {
			t.Fatalf("number %d was not closed", i)
		}
	}
	if p.EvictIdle() {
		t.Error("more was evicted than there was")
	}
	l := acquire(t, a.origin(p), pool.Ticket{})
	if p.EvictIdle() {
		t.Error("a connection in use was evicted")
	}
	l.Release()
}

func TestIdleConnectionsOfOtherOriginsMakeRoomInTheBudget(t *testing.T) {
	p := newPool(t, budget(2))
	a, b := newUpstream(t), newUpstream(t)
	peers := fill(t, a, a.origin(p), 2)
	l := acquire(t, b.origin(p), pool.Ticket{})
	defer l.Release()
	if open(peers[0]) || !open(peers[1]) {
		t.Error("not the one idle longest has made room")
	}
	if leases, slots := p.Open(); leases != 2 || slots != 2 {
		t.Errorf("%d connections, %d slots", leases, slots)
	}
}

func TestAConnectionComingFreeMakesRoomInTheBudget(t *testing.T) {
	p := newPool(t, budget(1))
	a, b := newUpstream(t), newUpstream(t)
	l := acquire(t, a.origin(p), pool.Ticket{})
	w := enqueue(t, p, b.origin(p), pool.Ticket{})
	testkit.Eventually(t, "the dial waits for room", func() bool { return p.Starved() == 1 })
	l.Release()
	w.lease(t).Release()
	for _, s := range p.Snapshot().Origins {
		if s.Opened != 1 || s.Origin == a.origin(p).Key().String() && s.Closed[pool.MaxIdle] != 1 {
			t.Errorf("%s: %d opened, closed %v", s.Origin, s.Opened, s.Closed)
		}
	}
}

func TestAFullBudgetIsAnError(t *testing.T) {
	p := newPool(t, budget(1), func(c *pool.Config) { c.PendingTimeout = 30 * ms })
	a, b := newUpstream(t), newUpstream(t)
	l := acquire(t, a.origin(p), pool.Ticket{})
	if _, err := b.origin(p).Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrBudget) {
		t.Errorf("got %v", err)
	}
	if _, err := borrowTunnel(p, "127.0.0.1", b.addr.Port()); !errors.Is(err, pool.ErrBudget) {
		t.Errorf("a tunnel: %v", err)
	}
	l.Release()
	acquire(t, b.origin(p), pool.Ticket{}).Release()
}

func TestTunnelsCountAgainstTheBudget(t *testing.T) {
	p := newPool(t, budget(1), func(c *pool.Config) { c.PendingTimeout = 30 * ms })
	a, b := newUpstream(t), newUpstream(t)
	fill(t, a, a.origin(p), 1) // makes room
	l, err := borrowTunnel(p, "127.0.0.1", b.addr.Port())
	if err != nil {
		t.Fatal(err)
	}
	peer := b.next()
	testkit.Write(t, l, "hello")
	testkit.Read(t, peer, "hello")
	if _, err := a.origin(p).Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrBudget) {
		t.Errorf("got %v", err)
	}
	l.Discard(pool.Tunnelled)
	acquire(t, a.origin(p), pool.Ticket{}).Release()
}

func TestATunnelThatCannotBeOpenedLeavesTheBudgetAlone(t *testing.T) {
	p := newPool(t, budget(1))
	u := newUpstream(t)
	for range 3 {
		var failed *pool.DialError
		if _, err := borrowTunnel(p, "127.0.0.1", testkit.Refused(t).Port()); !errors.As(err, &failed) || failed.Stage != pool.StageConnect {
			t.Fatalf("got %v", err)
		}
		if _, err := p.Origin(pool.Lookup{Host: []byte("127.0.0.1"), Port: testkit.Refused(t).Port()}).Acquire(&pool.Ticket{}); !errors.As(err, &failed) {
			t.Fatalf("got %v", err)
		}
	}
	acquire(t, u.origin(p), pool.Ticket{}).Release()
}

// Two origins and room for one connection: each dial needs the other origin's
// idle connection to go, or to come back and not be kept.
func TestNobodyStarvesWhileConnectionsAreIdle(t *testing.T) {
	p := newPool(t, budget(1))
	a, b := newUpstream(t), newUpstream(t)
	done := make(chan error, 4)
	for i := range 4 {
		o := []*pool.Origin{a.origin(p), b.origin(p)}[i%2]
		go func() {
			var k pool.Ticket
			for range 200 {
				l, err := o.Acquire(&k)
				if err != nil {
					done <- err
					return
				}
				l.Release()
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := testkit.Await(t, "all are served", done); err != nil {
			t.Error(err)
		}
	}
	testkit.Eventually(t, "no dial waits for room", func() bool { return p.Starved() == 0 })
}

// An origin with requests in its queue at all times has to give way.
func TestABusyOriginDoesNotStarveAnother(t *testing.T) {
	p := newPool(t, budget(1))
	a, b := newUpstream(t), newUpstream(t)
	l := acquire(t, a.origin(p), pool.Ticket{})
	first := enqueue(t, p, a.origin(p), pool.Ticket{})
	second := enqueue(t, p, a.origin(p), pool.Ticket{})
	other := enqueue(t, p, b.origin(p), pool.Ticket{})
	l.Release()
	l = other.lease(t)
	first.stillWaits(t)
	l.Release()
	l = first.lease(t)
	l.Release() // now that the other has nothing to wait for
	second.lease(t).Release()
	for _, s := range p.Snapshot().Origins {
		if want := map[bool]uint64{true: 2, false: 1}[s.Origin == a.origin(p).Key().String()]; s.Opened != want {
			t.Errorf("%s: %d opened", s.Origin, s.Opened)
		}
	}
}

// Origins that are equally busy come to have equally many connections, and then
// leave each other alone: a request does not cost a connection.
func TestBusyOriginsShareTheBudget(t *testing.T) {
	p := newPool(t, budget(5))
	a, b := newUpstream(t), newUpstream(t)
	var held []*pool.Lease
	for range 5 {
		held = append(held, acquire(t, a.origin(p), pool.Ticket{}))
	}
	var mine, theirs []*waiter
	for range 20 {
		mine = append(mine, enqueue(t, p, a.origin(p), pool.Ticket{}))
		theirs = append(theirs, enqueue(t, p, b.origin(p), pool.Ticket{}))
	}
	next := func(ws *[]*waiter) *pool.Lease {
		w := (*ws)[0]
		*ws = (*ws)[1:]
		return w.lease(t)
	}
	held[0].Release()
	held[1].Release()
	others := []*pool.Lease{next(&theirs), next(&theirs)}
	held = held[2:]
	for range 5 {
		for i := range held {
			held[i].Release()
			held[i] = next(&mine)
		}
		for i := range others {
			others[i].Release()
			others[i] = next(&theirs)
		}
	}
	for _, s := range p.Snapshot().Origins {
		if want := map[bool]uint64{true: 5, false: 2}[s.Origin == a.origin(p).Key().String()]; s.Opened != want {
			t.Errorf("%s: %d opened", s.Origin, s.Opened)
		}
	}
	for _, l := range append(held, others...) {
		l.Discard(pool.NotKept)
	}
	for _, w := range append(mine, theirs...) {
		w.lease(t).Discard(pool.NotKept)
	}
}

// A tunnel waits for room as an origin does.
func TestABusyOriginDoesNotStarveATunnel(t *testing.T) {
	p := newPool(t, budget(1))
	a, b := newUpstream(t), newUpstream(t)
	l := acquire(t, a.origin(p), pool.Ticket{})
	w := enqueue(t, p, a.origin(p), pool.Ticket{})
	tunnel := testkit.In(func() func() {
		l, err := borrowTunnel(p, "127.0.0.1", b.addr.Port())
		if err != nil {
			t.Error(err)
			return func() {}
		}
		return func() { l.Discard(pool.Tunnelled) }
	})
	testkit.Eventually(t, "both wait for room", func() bool { return p.Starved() == 2 })
	l.Release()
	testkit.Await(t, "the tunnel opens", tunnel)()
	w.lease(t).Release()
}

// Who has given up takes no room: the connection that comes back is kept.
func TestWhoNoLongerWaitsForRoomCostsNoConnection(t *testing.T) {
	p := newPool(t, budget(1))
	a, b := newUpstream(t), newUpstream(t)
	l := acquire(t, a.origin(p), pool.Ticket{})
	w := enqueue(t, p, b.origin(p), pool.Ticket{})
	testkit.Eventually(t, "it waits for room", func() bool { return p.Starved() == 1 })
	b.origin(p).Cancel(&w.ticket)
	if err := w.fails(t); !errors.Is(err, pool.ErrCanceled) {
		t.Fatal(err)
	}
	l.Release()
	again := acquire(t, a.origin(p), pool.Ticket{})
	if again != l {
		t.Error("it was closed")
	}
	again.Release()
}
