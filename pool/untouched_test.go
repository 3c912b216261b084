package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

func TestAConnectionThatWasNotTouchedGoesBackAsItWas(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse)
	o := u.origin(p)
	first, second := acquire(t, o, pool.Ticket{}), acquire(t, o, pool.Ticket{})
	if first.Carried() {
		t.Error("a new connection has carried something")
	}
	first.Release()
	second.Release()
	o.PassTime(30 * time.Second)
	for range 3 {
		l := acquire(t, o, pool.Ticket{Replayable: true})
		if l != second || !l.Carried() {
			t.Fatal("it is not the one that was used last")
		}
		l.Return()
	}
	if s := stats(t, p); s.Reused != 0 || s.Idle != 2 || s.Opened != 2 {
		t.Errorf("it counts as an exchange: %+v", s)
	}
	l := acquire(t, o, pool.Ticket{Replayable: true})
	if idled := l.Idled(); idled < 30*time.Second {
		t.Errorf("it has been idle for %v, it is said", idled)
	}
	l.Discard(pool.NotKept)
}

func TestANewConnectionThatWasNotTouchedServesOthers(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{Virgin: true})
	l.Return()
	again := acquire(t, o, pool.Ticket{})
	if again != l || again.Carried() || !again.Reused() {
		t.Error("it is not taken for one that was open for a while and has carried nothing")
	}
	again.Release()
	if s := stats(t, p); s.Opened != 1 || s.Reused != 0 {
		t.Errorf("%+v", s)
	}
}

func TestANewConnectionIsIdleBehindThoseThatWereUsedSince(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse)
	o := u.origin(p)
	old := acquire(t, o, pool.Ticket{Virgin: true})
	used := acquire(t, o, pool.Ticket{Fresh: true})
	used.Release()
	old.Return()
	if l := acquire(t, o, pool.Ticket{Replayable: true}); l != used {
		t.Error("the one that was used last is not in front")
	} else {
		l.Release()
	}
}

func TestAConnectionThatWasNotTouchedHasItsTurnAgain(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	first, second := acquire(t, o, pool.Ticket{}), acquire(t, o, pool.Ticket{})
	first.Release()
	second.Release()
	o.PassTime(30 * time.Second)
	l := acquire(t, o, pool.Ticket{Replayable: true})
	for range 3 {
		l.Return()
		if again := acquire(t, o, pool.Ticket{Replayable: true}); again != l {
			t.Fatal("another has its turn")
		}
	}
	l.Release()
	if s := stats(t, p); s.Reused != 1 || s.Idle != 2 || s.Opened != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAReturnedConnectionGoesToWhoWaits(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxConnsPerHost = 1 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	w := enqueue(t, p, o, pool.Ticket{Replayable: true})
	l.Return()
	next := w.lease(t)
	if next != l {
		t.Error("it went elsewhere")
	}
	next.Release()
}

func TestWhoAsksForANewConnectionMayHaveOneThatHasJustBeenOpened(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{Virgin: true})
	l.Return()
	for name, k := range map[string]pool.Ticket{
		"who is sent again":          {Fresh: true, Avoid: l.Addr().Addr()},
		"what is no HTTP":            {Virgin: true},
		"what is no HTTP, but Fresh": {Virgin: true, Fresh: true},
	} {
		other := acquire(t, o, k)
		if other == l {
			t.Errorf("%s got it", name)
		}
		other.Discard(pool.NotKept)
	}
	again := acquire(t, o, pool.Ticket{Fresh: true})
	if again != l {
		t.Error("another was opened")
	}
	again.Return()
	o.PassTime(time.Second)
	if other := acquire(t, o, pool.Ticket{Fresh: true}); other == l {
		t.Error("it is taken for new after a second")
	} else {
		other.Release()
	}
}

func TestReturnEndsALoan(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxIdlePerHost = 0 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	l.Return()
	if s := stats(t, p); s.Closed[pool.MaxIdle] != 1 {
		t.Errorf("closed %v", s.Closed)
	}
	defer func() {
		if recover() == nil {
			t.Error("it was given back twice")
		}
	}()
	l.Return()
}

func TestAnOriginRemembersWhatTunnelsCarried(t *testing.T) {
	u := newUpstream(t)
	o := u.origin(newPool(t))
	for _, is := range []bool{false, true, true, false} {
		if o.SetOpaque(is); o.Opaque() != is {
			t.Errorf("it is not %v", is)
		}
	}
}

func TestWhatBecomesATunnelCarriesNoRequests(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	if n := p.Carrying(); n != 1 {
		t.Errorf("%d carry requests", n)
	}
	l.CarriesTunnel()
	if n := p.Carrying(); n != 0 {
		t.Errorf("%d carry requests besides the tunnel", n)
	}
	l.Discard(pool.Tunnelled)
	for _, k := range []pool.Ticket{{}, {Virgin: true}, {Fresh: true}} {
		acquire(t, o, k).Return()
		if n := p.Carrying(); n != 0 {
			t.Errorf("%d carry requests after %+v went back", n, k)
		}
	}
}

// Who has had a connection opened by a CONNECT and uses it at once has a new one, and
// nobody else has.
func TestTheConnectionOfAConnectIsNewToWhoAskedForIt(t *testing.T) {
	u := newUpstream(t)
	o := u.origin(newPool(t, reuse))
	own := &pool.Ticket{}
	borrow := func(t *testing.T, k *pool.Ticket, connect bool) *pool.Lease {
		t.Helper()
		k.Connect = connect
		l, err := o.Acquire(k)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, c := range map[string]struct {
		between func()
		ticket  *pool.Ticket
		reused  bool
	}{
		"at once":                 {func() {}, own, false},
		"by another":              {func() {}, &pool.Ticket{}, true},
		"after a second":          {func() { o.PassTime(time.Second) }, own, true},
		"after another's CONNECT": {func() { borrow(t, &pool.Ticket{}, true).Return() }, own, false},
		"after another's use":     {func() { borrow(t, &pool.Ticket{}, false).Release() }, own, true},
	} {
		l := borrow(t, own, true)
		if l.Reused() {
			t.Fatalf("%s: it was not opened for the CONNECT", name)
		}
		l.Return()
		c.between()
		again := borrow(t, c.ticket, false)
		if again != l || again.Reused() != c.reused {
			t.Errorf("%s: it is the same: %v, reused: %v", name, again == l, again.Reused())
		}
		again.Return()
		once := borrow(t, c.ticket, false)
		if !once.Reused() {
			t.Errorf("%s: it is new twice", name)
		}
		once.Discard(pool.NotKept)
	}
}

func TestAConnectCountsAsNoRequest(t *testing.T) {
	u := newUpstream(t)
	o := u.origin(newPool(t))
	for range 10 {
		acquire(t, o, pool.Ticket{Connect: true}).Return()
		acquire(t, o, pool.Ticket{Connect: true, Virgin: true}).Discard(pool.Tunnelled)
	}
	if n := o.Asked(); n != 0 {
		t.Errorf("%d requests are counted", n)
	}
	acquire(t, o, pool.Ticket{}).Release()
	if n := o.Asked(); n != 1 {
		t.Errorf("%d requests are counted, want 1", n)
	}
}
