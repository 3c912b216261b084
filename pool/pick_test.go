package pool_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// The twin of TestTheConnectionUsedLastIsUsedFirst: behind one address each
// connection may lead to another server.
func TestP22BehindOneAddressConnectionsAreUsedInTurn(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 5)
	o.Choose(1, 3)
	used := map[*pool.Lease]int{}
	var order []*pool.Lease
	for range 12 {
		l := acquire(t, o, pool.Ticket{Replayable: true})
		used[l]++
		order = append(order, l)
		l.Release()
		o.PassTime(pool.TurnLasts)
	}
	if len(used) != 3 {
		t.Errorf("%d connections are used, want 3", len(used))
	}
	for i := 3; i < len(order); i++ {
		if order[i] != order[i-3] {
			t.Fatal("not the one that was used longest ago")
		}
	}
	var busy []*pool.Lease
	for range 5 { // the others are there when those in turn are busy
		l := acquire(t, o, pool.Ticket{Replayable: true})
		if i := len(busy); (used[l] > 0) != (i < 3) || !l.Reused() {
			t.Errorf("number %d is one of those in turn: %v", i, used[l] > 0)
		}
		busy = append(busy, l)
	}
	for _, l := range busy {
		l.Release()
	}
	o.Choose(1, 1)
	last := acquire(t, o, pool.Ticket{Replayable: true})
	last.Release()
	for range 3 {
		if l := acquire(t, o, pool.Ticket{Replayable: true}); l != last {
			t.Error("without turns not the one used last is used")
		} else {
			l.Release()
		}
	}
}

// What comes at once takes the connections whose turn it is: they are warm.
func TestP22AConnectionKeepsItsTurnForAMoment(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 4)
	o.Choose(1, 4)
	o.PassTime(pool.TurnLasts)
	take := func() *pool.Lease { return acquire(t, o, pool.Ticket{Replayable: true}) }
	first := take()
	second := take()
	first.Release()
	second.Release()
	for range 3 {
		if l := take(); l != second {
			t.Fatal("not the one used last of those whose turn it is")
		}
		if l := take(); l != first {
			t.Fatal("not the other one whose turn it is")
		}
		first.Release()
		second.Release()
	}
	o.PassTime(pool.TurnLasts)
	third, fourth := take(), take()
	if third == fourth || third == first || third == second || fourth == first || fourth == second {
		t.Error("the turn of the others has not come")
	}
	if l := take(); l != first {
		t.Error("not the one that was used longest ago")
	} else {
		l.Release()
	}
	third.Release()
	fourth.Release()
}

// P26 of the catalogue, and the twin of
// TestWhatCannotBeSentTwiceTakesAYoungConnection: the oldest few rest, the others
// are used in turn.
func TestP26InTurnWhatCannotBeSentTwiceLeavesOutTheOldest(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 8)
	o.Choose(1, 8)
	used := map[*pool.Lease]int{}
	for i := range 80 {
		l := acquire(t, o, pool.Ticket{})
		if i >= 10 { // by when all have had their turn
			used[l]++
		}
		l.Release()
		o.PassTime(pool.TurnLasts)
	}
	for _, n := range used {
		if n < 9 || n > 11 {
			t.Errorf("one is used %d times, the others %v", n, used)
		}
	}
	if len(used) != 7 {
		t.Errorf("%d are used, want all but the oldest", len(used))
	}
}

// P26: what keeps connections from being used keeps them from being used in turn.
func TestP26ALearnedIdleLimitHoldsInTurn(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 4)
	o.Choose(1, 4)
	for range 4 {
		acquire(t, o, pool.Ticket{Replayable: true}).Release()
	}
	o.Learn(10 * sec)
	o.PassTime(6 * sec)
	once := acquire(t, o, pool.Ticket{})
	if once.Reused() {
		t.Error("a request that cannot be sent twice got one that was idle for long")
	}
	twice := acquire(t, o, pool.Ticket{Replayable: true})
	if !twice.Reused() {
		t.Error("one that can did not")
	}
	o.PassTime(4 * sec)
	fresh := acquire(t, o, pool.Ticket{Replayable: true})
	if fresh.Reused() {
		t.Error("one beyond the limit was used")
	}
	for _, l := range []*pool.Lease{once, twice, fresh} {
		l.Release()
	}
}

// Where more connections are in one another's way they are not used in turn.
func TestP27NothingIsSpreadWhereOneWorkerServesOneConnection(t *testing.T) {
	for name, learn := range map[string]func(*pool.Origin){
		"one worker":     func(o *pool.Origin) { o.Crowd(2) },
		"closes at once": func(o *pool.Origin) { o.Rush() },
	} {
		t.Run("P27 "+name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			peers := fill(t, u, o, 2)
			o.Busy(100)
			learn(o)
			for range 20 {
				l := acquire(t, o, pool.Ticket{Replayable: true})
				if !joins(l, peers[1]) {
					t.Error("not the one used last")
				}
				l.Release()
			}
			if s := stats(t, p); s.Opened != 2 {
				t.Errorf("%d were opened", s.Opened)
			}
		})
	}
}

// Of two endpoints the one with fewer requests in flight is used.
func TestTheLessBusyEndpointIsUsed(t *testing.T) {
	f := newFleet(t, 2)
	f.open(t, 3)
	var held []*pool.Lease
	for i := range 6 { // so they fill evenly
		held = append(held, acquire(t, f.o, pool.Ticket{Replayable: true}))
		if i%2 == 1 && held[i].Addr() == held[i-1].Addr() {
			t.Errorf("number %d went to where the one before it went", i)
		}
	}
	for _, l := range held {
		l.Release()
	}
	if s := stats(t, f.pool); s.Opened != 6 || s.Reused != 6 {
		t.Errorf("%d opened, %d reused", s.Opened, s.Reused)
	}
}

// Reuse comes first: a name with many addresses and few requests.
func TestFewRequestsUseFewAddresses(t *testing.T) {
	const many = 60
	f := newFleet(t, many, func(c *pool.Config) { c.Identity = "a pod" })
	for range 200 {
		acquire(t, f.o, pool.Ticket{Replayable: true}).Release()
	}
	s := stats(t, f.pool)
	if s.Opened > 3 {
		t.Errorf("%d connections were opened", s.Opened)
	}
	prefers := pool.Rank("a pod", f.addrs)
	if got := f.o.Chosen(); len(got) < 2 || !slices.Equal(got[:2], prefers[:2]) {
		t.Errorf("uses %v, prefers %v", got, prefers[:2])
	}
}

// What a burst opens is spread at no cost.
func TestABurstIsDialledToDifferentAddresses(t *testing.T) {
	const n = 6
	g := newGate()
	defer g.release()
	f := newFleet(t, n, func(c *pool.Config) { c.CheckAddr = g.check })
	var waiters []*waiter
	tried := map[netip.Addr]int{}
	for range 2 * n {
		waiters = append(waiters, enqueue(t, f.pool, f.o, pool.Ticket{}))
		tried[testkit.Await(t, "it is dialled for", g.tried).Addr()]++
	}
	g.release()
	for _, w := range waiters {
		w.lease(t).Release()
	}
	for _, a := range f.addrs {
		if tried[a] != 2 {
			t.Errorf("tried %v", tried)
			break
		}
	}
}

// X4 of the catalogue: an endpoint that fails is left alone, tried again by what can
// be sent twice, and used again when that goes well.
func TestX4AnEndpointThatFailsIsBenchedAndTriedAgain(t *testing.T) {
	f := newFleet(t, 2)
	f.open(t, 2)
	sick := f.addrs[0]
	for figuresOf(t, f.pool, sick).Benched == "" {
		l := acquire(t, f.o, pool.Ticket{Replayable: true})
		if l.Addr().Addr() == sick {
			l.Failed()
		}
		l.Release()
	}
	use := func(times int, k pool.Ticket) (n int) {
		for range times {
			l := acquire(t, f.o, k)
			if l.Addr().Addr() == sick {
				n++
			}
			l.Release()
		}
		return n
	}
	if n := use(50, pool.Ticket{Replayable: true}); n > 0 {
		t.Errorf("it is used %d times", n)
	}
	f.o.Retry(sick)
	if n := use(50, pool.Ticket{}); n > 0 {
		t.Errorf("what cannot be sent twice is sent there %d times", n)
	}
	testkit.Eventually(t, "it is tried", func() bool { return use(1, pool.Ticket{Replayable: true}) == 1 })
	if b := figuresOf(t, f.pool, sick).Benched; b != "" {
		t.Errorf("it is still benched: %s", b)
	}
}

func TestX4AnOverloadedEndpointIsLeftAloneForAWhile(t *testing.T) {
	f := newFleet(t, 2)
	f.open(t, 1)
	l := acquire(t, f.o, pool.Ticket{})
	l.Overloaded(time.Hour)
	l.Release()
	s := figuresOf(t, f.pool, l.Addr().Addr())
	if s.Benched != "overloaded" || s.BenchedFor <= 0 || s.BenchedFor > time.Minute {
		t.Errorf("%+v", s)
	}
	for range 20 {
		again := acquire(t, f.o, pool.Ticket{Replayable: true})
		if again == l {
			t.Fatal("it is used")
		}
		again.Release()
	}
}

// X4: where all are benched none is.
func TestX4ABenchThatWouldBeAllIsIgnored(t *testing.T) {
	for _, n := range []int{1, 2} {
		f := newFleet(t, n)
		f.open(t, 1)
		for _, a := range f.addrs {
			f.o.Avoid(a, 0)
		}
		for range 20 {
			l := acquire(t, f.o, pool.Ticket{})
			if !l.Reused() {
				t.Fatalf("%d addresses: a new connection", n)
			}
			l.Release()
		}
	}
}

// X4: what does not connect is benched, the next is tried, and the name is asked for
// again.
func TestX4AnAddressThatRefusesIsBenchedAndTheNextTried(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.Resolver = names{"two.test": loopback(1, 9)} })
	asked := p.Suspects()
	o := p.Origin(pool.Lookup{Host: []byte("two.test"), Port: u.addr.Port()})
	for range 4 { // whichever of the two is tried first
		l := acquire(t, o, pool.Ticket{Fresh: true})
		defer l.Release()
		if l.Addr() != u.addr {
			t.Fatalf("connected to %v", l.Addr())
		}
	}
	if o.Avoided() != 1 || asked.Load() == 0 {
		t.Errorf("%d are benched, the name was asked for %d times", o.Avoided(), asked.Load())
	}
}

// A pool of few requests does not go from one family to the other.
func TestTheFamilyThatWonIsUsed(t *testing.T) {
	v6 := newUpstreamAt(t, "[::1]:0")
	port := v6.addr.Port()
	v4 := newUpstreamAt(t, netip.AddrPortFrom(loopback(1)[0], port).String())
	p := newPool(t, func(c *pool.Config) {
		c.Resolver = names{"both.test": {netip.IPv6Loopback(), v4.addr.Addr()}}
	})
	o := p.Origin(pool.Lookup{Host: []byte("both.test"), Port: port})
	first := acquire(t, o, pool.Ticket{Fresh: true})
	defer first.Release()
	if first.Addr() != v6.addr {
		t.Errorf("the first dial went to %v, not to what the resolver named first", first.Addr())
	}
	for range 5 {
		l := acquire(t, o, pool.Ticket{Fresh: true})
		defer l.Release()
		if l.Addr() != first.Addr() {
			t.Errorf("%v, then %v", first.Addr(), l.Addr())
		}
	}
}
