package pool_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func atMost(n int) func(*pool.Config) {
	return func(c *pool.Config) { c.MaxConnsPerHost = n }
}

// P21 of the catalogue.
func TestRequestsBeyondTheLimitAreServedInOrder(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1))
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	var waiters []*waiter
	for range 10 {
		waiters = append(waiters, enqueue(t, p, o, pool.Ticket{}))
	}
	for i, w := range waiters {
		for _, later := range waiters[i:] {
			later.stillWaits(t)
		}
		if i%2 == 0 {
			l.Release()
		} else {
			l.Discard(pool.NotKept) // a dial serves the next
		}
		l = w.lease(t)
	}
	l.Release()
	if s := stats(t, p); s.Opened != 6 || s.Reused != 5 || s.Waiting != 0 {
		t.Errorf("%d opened, %d reused, %d wait", s.Opened, s.Reused, s.Waiting)
	}
}

func TestTheLimitHoldsUnderLoad(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(3))
	o := u.origin(p)
	done := make(chan struct{}, 20)
	for i := range 20 {
		go func() {
			defer func() { done <- struct{}{} }()
			for j := range 20 {
				l, err := o.Acquire(&pool.Ticket{Fresh: (i+j)%5 == 0})
				if err != nil {
					t.Error(err)
					return
				}
				if s := stats(t, p); s.InUse+s.Idle > 3 {
					t.Errorf("%d in use, %d idle", s.InUse, s.Idle)
				}
				if j%7 == 0 {
					l.Discard(pool.NotKept)
				} else {
					l.Release()
				}
			}
		}()
	}
	for range 20 {
		testkit.Await(t, "all are served", done)
	}
}

func TestTooManyRequestsInTheQueueAreRefused(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.MaxPendingPerHost = 2 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	first, second := enqueue(t, p, o, pool.Ticket{}), enqueue(t, p, o, pool.Ticket{})
	if _, err := o.Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrFull) {
		t.Fatalf("got %v", err)
	}
	// One that gives up frees its place.
	o.Cancel(&first.ticket)
	if err := first.fails(t); !errors.Is(err, pool.ErrCanceled) {
		t.Fatalf("got %v", err)
	}
	third := enqueue(t, p, o, pool.Ticket{})
	if _, err := o.Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrFull) {
		t.Fatalf("got %v", err)
	}
	l.Release()
	l = second.lease(t)
	third.stillWaits(t)
	l.Release()
	third.lease(t).Release()
}

func TestNoRequestWaitsIfNoneMay(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.MaxPendingPerHost = 0 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{}) // a dial is no such wait
	if _, err := o.Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrFull) {
		t.Errorf("got %v", err)
	}
	l.Release()
	acquire(t, o, pool.Ticket{}).Release()
}

func TestAWaitHasAnEnd(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.PendingTimeout = 30 * ms })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	if _, err := o.Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrWaited) {
		t.Errorf("got %v", err)
	}
	if s := stats(t, p); s.Waiting != 0 {
		t.Errorf("%d wait", s.Waiting)
	}
	l.Release()
	acquire(t, o, pool.Ticket{}).Release()
}

// A dial has a limit of its own, which may be longer.
func TestAWaitForADialIsNotCutShort(t *testing.T) {
	u, g := newUpstream(t), newGate()
	defer g.release()
	p := newPool(t, func(c *pool.Config) { c.CheckAddr, c.PendingTimeout = g.check, 20*ms })
	o := u.origin(p)
	start := time.Now()
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Eventually(t, "the time for waiting is over", func() bool { return time.Since(start) > 70*ms })
	w.stillWaits(t)
	g.release()
	w.lease(t).Release()
}

func TestCancelWithoutAWaitDoesNothing(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	var k pool.Ticket
	o.Cancel(&k)
	for range 3 {
		l, err := o.Acquire(&k)
		if err != nil {
			t.Fatal(err)
		}
		o.Cancel(&k)
		l.Release()
		o.Cancel(&k)
	}
}

func TestATicketIsUsedAgainAfterEachOutcome(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.PendingTimeout = 30 * ms })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	var k pool.Ticket
	for range 3 {
		if _, err := o.Acquire(&k); !errors.Is(err, pool.ErrWaited) {
			t.Fatalf("got %v", err)
		}
		canceled := testkit.In(func() error { _, err := o.Acquire(&k); return err })
		testkit.Eventually(t, "the request waits", func() bool { return waiting(p) == 1 })
		o.Cancel(&k)
		// Slow machines may have seen the wait end first.
		if err := testkit.Await(t, "the wait ends", canceled); !errors.Is(err, pool.ErrCanceled) && !errors.Is(err, pool.ErrWaited) {
			t.Fatalf("got %v", err)
		}
	}
	l.Release()
	l, err := o.Acquire(&k)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
}

func TestFreshTicketsNeverGetAUsedConnection(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(2))
	o := u.origin(p)
	fill(t, u, o, 2)
	for range 5 { // the limit is reached, so idle ones make room
		l := acquire(t, o, pool.Ticket{Fresh: true, Replayable: true})
		if l.Reused() {
			t.Fatal("a used connection")
		}
		l.Release()
	}
	if s := stats(t, p); s.Opened != 7 || s.InUse+s.Idle > 2 {
		t.Errorf("%d opened, %d in use, %d idle", s.Opened, s.InUse, s.Idle)
	}
}

// At the limit a request that wants a new connection can be served only if a
// used one is closed for it.
func TestAFreshTicketAtTheLimitIsServedWhenAConnectionComesFree(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1))
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	w := enqueue(t, p, o, pool.Ticket{Fresh: true})
	l.Release()
	fresh := w.lease(t)
	if fresh.Reused() {
		t.Error("with a used connection")
	}
	fresh.Release()
}

func TestAFreshTicketKeepsItsPlaceInTheQueue(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1))
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	fresh := enqueue(t, p, o, pool.Ticket{Fresh: true})
	other := enqueue(t, p, o, pool.Ticket{})
	l.Release()
	l = fresh.lease(t)
	other.stillWaits(t)
	l.Release()
	other.lease(t).Release()
}

func TestAUsedConnectionPassesByThoseThatAreBeingDialledFor(t *testing.T) {
	u, g := newUpstream(t), newGate()
	defer g.release()
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = g.check })
	o := u.origin(p)
	first := enqueue(t, p, o, pool.Ticket{})
	g.open <- struct{}{}
	l := first.lease(t)
	fresh := enqueue(t, p, o, pool.Ticket{Fresh: true})
	other := enqueue(t, p, o, pool.Ticket{})
	l.Release()
	if got := other.lease(t); got != l {
		t.Error("not the one that came free")
	}
	fresh.stillWaits(t)
	g.release()
	fresh.lease(t).Release()
	l.Release()
}

// A request whose turn came with a connection that was dead by then is not
// sent to the back of the queue, nor refused because the queue is full.
func TestADeadConnectionDoesNotCostARequestItsTurn(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.MaxPendingPerHost = 2 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	first := enqueue(t, p, o, pool.Ticket{})
	second := enqueue(t, p, o, pool.Ticket{})
	testkit.Write(t, u.next(), "stray bytes")
	testkit.Eventually(t, "they arrive", l.Pending)
	l.Release()
	l = first.lease(t)
	second.stillWaits(t)
	l.Release()
	second.lease(t).Release()
}

// What comes free while a dial is in flight is used, and so is what the dial
// brings.
func TestAConnectionThatComesFreeDuringADialIsUsed(t *testing.T) {
	u, g := newUpstream(t), newGate()
	defer g.release()
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = g.check })
	o := u.origin(p)
	first := enqueue(t, p, o, pool.Ticket{})
	g.open <- struct{}{}
	l := first.lease(t)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", g.tried)
	l.Release()
	if w.lease(t) != l {
		t.Fatal("not the one that came free")
	}
	g.release()
	testkit.Eventually(t, "the new one is idle", func() bool { return stats(t, p).Idle == 1 })
	spare := acquire(t, o, pool.Ticket{})
	if spare == l || !spare.Reused() {
		t.Error("the spare connection is not used, or passes for new though it was idle")
	}
	spare.Release()
	l.Release()
	// Its first exchange is the one it was opened for.
	if s := stats(t, p); s.Opened != 2 || s.Reused != 1 {
		t.Errorf("%d opened, %d reused", s.Opened, s.Reused)
	}
}

func TestNoMoreIsDialledThanIsNeeded(t *testing.T) {
	u, g := newUpstream(t), newGate()
	defer g.release()
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = g.check })
	o := u.origin(p)
	var waiters []*waiter
	for range 5 {
		waiters = append(waiters, enqueue(t, p, o, pool.Ticket{}))
	}
	for range 5 {
		testkit.Await(t, "a dial begins", g.tried)
	}
	// Who gives up leaves a dial behind, which serves who comes next.
	for _, w := range waiters[:3] {
		o.Cancel(&w.ticket)
		if err := w.fails(t); !errors.Is(err, pool.ErrCanceled) {
			t.Fatal(err)
		}
	}
	waiters = waiters[3:]
	for range 3 {
		waiters = append(waiters, enqueue(t, p, o, pool.Ticket{}))
	}
	if n := o.Dialing(); n != 5 || len(g.tried) > 0 {
		t.Errorf("%d dials under way, %d more were begun", n, len(g.tried))
	}
	g.release()
	for _, w := range waiters {
		defer w.lease(t).Release()
	}
	if s := stats(t, p); s.Opened != 5 {
		t.Errorf("%d opened", s.Opened)
	}
}

// Otherwise a crowd that has been served by others goes on to take the room of
// connections that are useful.
func TestADialThatWaitedForRoomInVainIsNotMade(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	p := newPool(t, budget(2))
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	last := acquire(t, other.origin(p), pool.Ticket{})
	var waiters []*waiter
	for range 5 {
		waiters = append(waiters, enqueue(t, p, o, pool.Ticket{}))
	}
	testkit.Eventually(t, "dials wait for room", func() bool { return p.Starved() == 5 })
	for _, w := range waiters {
		l.Release()
		l = w.lease(t)
	}
	last.Discard(pool.NotKept)
	testkit.Eventually(t, "no dial waits for room", func() bool { return p.Starved() == 0 && o.Dialing() == 0 })
	l.Release()
	for _, s := range p.Snapshot().Origins {
		if s.Opened != 1 {
			t.Errorf("%s: %d opened", s.Origin, s.Opened)
		}
	}
}

func TestADialThatFailsFailsOneRequest(t *testing.T) {
	u := newUpstream(t)
	verdicts := make(chan error)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = verdict(verdicts) }, atMost(1))
	o := u.origin(p)
	first, second := enqueue(t, p, o, pool.Ticket{}), enqueue(t, p, o, pool.Ticket{})
	verdicts <- errors.New("not now")
	var failed *pool.DialError
	if err := first.fails(t); !errors.As(err, &failed) {
		t.Errorf("got %v", err)
	}
	second.stillWaits(t)
	verdicts <- nil
	second.lease(t).Release()
	if s := stats(t, p); s.DialErrors != 1 || s.Opened != 1 {
		t.Errorf("%d opened, %d failed", s.Opened, s.DialErrors)
	}
}

func TestCloseFailsWhoWaitsAndWaitsForDials(t *testing.T) {
	u := newUpstream(t)
	blocked := &stuckResolver{begun: make(chan struct{}, 1)}
	p := newPool(t, atMost(1), func(c *pool.Config) { c.Resolver = blocked })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	behind := enqueue(t, p, o, pool.Ticket{})
	named := p.Origin(pool.Lookup{Host: []byte("stuck.test"), Port: 80})
	dialling := enqueue(t, p, named, pool.Ticket{})
	testkit.Await(t, "the lookup begins", blocked.begun)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if named.Dialing() != 0 {
		t.Error("a dial has outlived Close")
	}
	for _, w := range []*waiter{behind, dialling} {
		if err := w.fails(t); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := o.Acquire(&pool.Ticket{}); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
	l.Release()
	for _, s := range p.Snapshot().Origins {
		if s.Opened > 0 && (s.Closed[pool.Shutdown] != 1 || s.InUse+s.Idle > 0) {
			t.Errorf("in use at Close, then given back: closed %v", s.Closed)
		}
	}
}

func TestCloseClosesWhatIsIdle(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	peers := fill(t, u, u.origin(p), 3)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range peers {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	}
	if s := stats(t, p); s.Closed[pool.Shutdown] != 3 {
		t.Errorf("closed %v", s.Closed)
	}
}

// verdict is a CheckAddr that asks the test.
func verdict(verdicts <-chan error) func(netip.AddrPort) error {
	return func(netip.AddrPort) error { return <-verdicts }
}

// stuckResolver answers when its context ends.
type stuckResolver struct{ begun chan struct{} }

func (r *stuckResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	select {
	case r.begun <- struct{}{}:
	default: // nobody waits for it, or it was asked before
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// dials is a CheckAddr that lets the test decide on each dial.
type dials chan chan error

func (d dials) check(netip.AddrPort) error {
	verdict := make(chan error)
	d <- verdict
	return <-verdict
}

// A dial goes on when the request it was begun for has gone. What it brings is
// for whoever waits; that it fails says nothing to one that came later.
func TestADialThatNobodyNeedsAnyMoreFailsNobody(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	first := enqueue(t, p, o, pool.Ticket{})
	left := testkit.Await(t, "the dial begins", d)
	o.Cancel(&first.ticket)
	if err := first.fails(t); !errors.Is(err, pool.ErrCanceled) {
		t.Fatal(err)
	}
	second := enqueue(t, p, o, pool.Ticket{})
	left <- errors.New("for the first")
	own := testkit.Await(t, "the second has one of its own", d)
	second.stillWaits(t)
	own <- nil
	second.lease(t).Release()
	if s := stats(t, p); s.DialErrors != 1 || s.Opened != 1 {
		t.Errorf("%d opened, %d failed", s.Opened, s.DialErrors)
	}
}

func TestAFailedDialFailsTheRequestItWasBegunFor(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	first := enqueue(t, p, o, pool.Ticket{})
	firstDial := testkit.Await(t, "a dial begins", d)
	second := enqueue(t, p, o, pool.Ticket{})
	secondDial := testkit.Await(t, "another begins", d)
	secondDial <- errors.New("for the second")
	if err := second.fails(t); !strings.Contains(err.Error(), "for the second") {
		t.Errorf("got %v", err)
	}
	first.stillWaits(t)
	firstDial <- errors.New("for the first")
	if err := first.fails(t); !strings.Contains(err.Error(), "for the first") {
		t.Errorf("got %v", err)
	}
}

// The same where a connection that came free was what the first request got.
func TestADialWhoseRequestWasServedFailsNobody(t *testing.T) {
	u := newUpstream(t)
	d := make(dials)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = d.check })
	o := u.origin(p)
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "a dial begins", d) <- nil
	l := w.lease(t)
	first := enqueue(t, p, o, pool.Ticket{})
	left := testkit.Await(t, "another begins", d)
	l.Release()
	l = first.lease(t)
	second := enqueue(t, p, o, pool.Ticket{})
	left <- errors.New("for the first")
	own := testkit.Await(t, "the second has one of its own", d)
	second.stillWaits(t)
	l.Release()
	l = second.lease(t)
	own <- errors.New("for the second, which has got another")
	testkit.Eventually(t, "no dial is under way", func() bool { return o.Dialing() == 0 })
	l.Release()
}
