package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// deed is something that an upstream was seen to do.
type deed func(*pool.Manners)

func closes(at, idle time.Duration) deed {
	return func(m *pool.Manners) { m.ClosedAfter(idle, at) }
}

func survives(times int, idle time.Duration) deed {
	return func(m *pool.Manners) {
		for range times {
			m.Survived(idle)
		}
	}
}

func strays(at time.Duration) deed { return func(m *pool.Manners) { m.Strayed(at) } }

// often is a deed done again and again, as time passes.
func often(times int, from, every time.Duration, do func(at time.Duration) deed) deed {
	return func(m *pool.Manners) {
		for i := range times {
			do(from + time.Duration(i)*every)(m)
		}
	}
}

// P26 of the catalogue: when requests that cannot be sent twice take no
// connection that has just been used.
func TestHasteIsLearnedFromClosesShortlyAfterAnswers(t *testing.T) {
	atOnce := func(at time.Duration) deed { return closes(at, 0) }
	mixed := often(100, sec, ms, func(at time.Duration) deed {
		return func(m *pool.Manners) { survives(5, ms)(m); closes(at, 0)(m) }
	})
	for name, c := range map[string]struct {
		seen  []deed
		hasty bool
	}{
		"nothing":                        {nil, false},
		"one close":                      {[]deed{closes(sec, 0)}, false},
		"two, at idle 0":                 {[]deed{closes(sec, 0), closes(2*sec, 0)}, true},
		"two, a little later":            {[]deed{closes(sec, 2*ms), closes(2*sec, 800*ms)}, true},
		"an idle limit is no haste":      {[]deed{closes(10*sec, 5*sec), closes(20*sec, 5*sec), closes(30*sec, sec)}, false},
		"a process ends":                 {[]deed{often(100, sec, 100*time.Microsecond, atOnce)}, true},
		"a process ends, others go on":   {[]deed{often(100, sec, 100*time.Microsecond, atOnce), survives(1, ms)}, false},
		"one connection survived":        {[]deed{closes(sec, 0), closes(2*sec, 0), survives(1, ms)}, false},
		"it goes on after that":          {[]deed{closes(sec, 0), closes(2*sec, 0), survives(1, ms), closes(3*sec, 0)}, true},
		"often, and many survived since": {[]deed{mixed, survives(101, ms)}, false},
		"and not enough of them":         {[]deed{mixed, survives(99, ms)}, true},
		"one close in a hundred": {[]deed{often(100, sec, sec, func(at time.Duration) deed {
			return func(m *pool.Manners) { closes(at, 0)(m); survives(99, ms)(m) }
		})}, false},
		"one close in twenty": {[]deed{often(100, sec, sec, func(at time.Duration) deed {
			return func(m *pool.Manners) { closes(at, 10*ms)(m); survives(19, ms)(m) }
		})}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var m pool.Manners
			for _, do := range c.seen {
				do(&m)
			}
			want := time.Duration(0)
			if c.hasty {
				want = pool.Settled
			}
			if got := m.Rest(false, 1000*sec); got != want {
				t.Errorf("before a request that cannot be sent twice it rests for %v, want %v", got, want)
			}
			if got := m.Rest(true, 1000*sec); got != 0 || !m.Keeps(1000*sec) {
				t.Errorf("before another it rests for %v, is kept: %v", got, m.Keeps(1000*sec))
			}
		})
	}
}

// P24 of the catalogue.
func TestStraysAreRemembered(t *testing.T) {
	last := time.Duration(0)
	always := func(m *pool.Manners) { // as soon as connections are kept again
		last = 0
		for range 20 {
			for !m.Keeps(last) {
				last += sec
			}
			m.Strayed(last)
		}
	}
	always(new(pool.Manners)) // to know when the last one comes
	for name, c := range map[string]struct {
		seen  []deed
		at    time.Duration
		keeps bool
		rest  time.Duration
	}{
		"nothing":                        {nil, sec, true, 0},
		"a stray":                        {[]deed{strays(sec)}, 2 * sec, false, pool.Settled},
		"it is still remembered":         {[]deed{strays(sec)}, 10 * sec, false, pool.Settled},
		"ten seconds later":              {[]deed{strays(sec)}, 11 * sec, true, pool.Settled},
		"minutes later":                  {[]deed{strays(sec)}, 10 * time.Minute, true, pool.Settled},
		"long ago":                       {[]deed{strays(sec)}, 11 * time.Minute, true, 0},
		"many at once":                   {[]deed{often(100, sec, ms, strays)}, 12 * sec, true, pool.Settled},
		"again, soon after":              {[]deed{strays(sec), strays(20 * sec)}, 39 * sec, false, pool.Settled},
		"again, soon after, and it ends": {[]deed{strays(sec), strays(20 * sec)}, 40 * sec, true, pool.Settled},
		"again and again":                {[]deed{often(8, sec, 30*time.Minute, strays), strays(211 * time.Minute)}, 212 * time.Minute, true, pool.Settled},
		"time and again, it gets longer": {[]deed{strays(0), strays(11 * sec), strays(40 * sec), strays(90 * sec)}, 160 * sec, false, pool.Settled},
		"but not without end":            {[]deed{always}, last + 20*time.Minute, true, pool.Settled},
		"nearly":                         {[]deed{always}, last + 20*time.Minute - ms, false, pool.Settled},
	} {
		t.Run(name, func(t *testing.T) {
			var m pool.Manners
			for _, do := range c.seen {
				do(&m)
			}
			if m.Keeps(c.at) != c.keeps || m.Rest(true, c.at) != c.rest || m.Rest(false, c.at) != c.rest {
				t.Errorf("kept: %v, rest: %v and %v; want %v, %v", m.Keeps(c.at), m.Rest(true, c.at), m.Rest(false, c.at), c.keeps, c.rest)
			}
		})
	}
}

// P26 of the catalogue.
func TestNothingThatCannotBeSentTwiceTakesAUsedConnectionOfAHastyUpstream(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, p *pool.Pool, o *pool.Origin, u *upstream){
		"closed as it answered": func(t *testing.T, _ *pool.Pool, o *pool.Origin, u *upstream) {
			l := acquire(t, o, pool.Ticket{Fresh: true})
			_ = u.next().Close()
			testkit.Eventually(t, "the hang-up is seen", l.HungUp)
			l.Release()
		},
		"closed while idle": func(t *testing.T, p *pool.Pool, o *pool.Origin, u *upstream) {
			before := stats(t, p).Closed[pool.UpstreamClosed]
			l := acquire(t, o, pool.Ticket{Fresh: true})
			l.Release()
			_ = u.next().Close()
			closedFor(t, p, pool.UpstreamClosed, before+1)
		},
		"closed as the next request came": func(t *testing.T, _ *pool.Pool, o *pool.Origin, u *upstream) {
			l := acquire(t, o, pool.Ticket{Fresh: true})
			u.next()
			l.Release()
			acquire(t, o, pool.Ticket{Replayable: true}).Discard(pool.ClosedOnReuse)
		},
		"closed as its borrower used it again": func(t *testing.T, _ *pool.Pool, o *pool.Origin, u *upstream) {
			ticket := pool.Ticket{Fresh: true}
			l, err := o.Acquire(&ticket)
			if err != nil {
				t.Fatal(err)
			}
			u.next()
			l.ReleaseTo(&ticket, false)
			ticket.Fresh = false
			if l, err = o.Acquire(&ticket); err != nil || !l.Pinned() {
				t.Fatalf("it cannot be used again: %v", err)
			}
			l.Discard(pool.ClosedOnReuse)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			for !o.Hasty() {
				end(t, p, o, u)
				if s := stats(t, p); s.Opened > 3 && !o.Hasty() {
					t.Fatalf("not learned from %d closes", s.Opened)
				}
			}
			peers := fill(t, u, o, 1)
			post := acquire(t, o, pool.Ticket{})
			if post.Reused() {
				t.Error("a request that cannot be sent twice got a used connection")
			}
			u.next()
			get := acquire(t, o, pool.Ticket{Replayable: true})
			if !joins(get, peers[0]) {
				t.Error("one that can did not")
			}
			get.Release()
			o.PassTime(pool.Settled)
			again := acquire(t, o, pool.Ticket{})
			if !joins(again, peers[0]) {
				t.Error("a connection that has outlived such closes is not used")
			}
			again.Release()
			post.Release()
			if stats(t, p).IdleLimit != 0 {
				t.Error("an idle limit was learned")
			}
		})
	}
}

// Otherwise who waits could get the connection just as it is closed.
func TestAConnectionOfAHastyUpstreamIsNotHandedToWhatCannotBeSentTwice(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1))
	o := u.origin(p)
	for !o.Hasty() {
		l := acquire(t, o, pool.Ticket{})
		l.Release()
		acquire(t, o, pool.Ticket{}).Discard(pool.ClosedOnReuse)
	}
	l := acquire(t, o, pool.Ticket{})
	w := enqueue(t, p, o, pool.Ticket{})
	l.Release()
	second := w.lease(t)
	if second.Reused() {
		t.Error("it got the used one")
	}
	w = enqueue(t, p, o, pool.Ticket{Replayable: true})
	second.Release()
	third := w.lease(t)
	if third != second {
		t.Error("one that can be sent twice did not")
	}
	third.Release()
}

// P24 of the catalogue: while it is possible that more strays come, a
// connection is given to nobody, and after that not without a rest.
func TestNoConnectionOfAnUpstreamThatSendsStraysIsHandedOn(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1))
	o := u.origin(p)
	acquire(t, o, pool.Ticket{}).Discard(pool.StrayBytes)
	for n, c := range []struct {
		later  time.Duration
		handed bool // straight to who waits
		kept   bool
	}{{0, false, false}, {11 * sec, false, true}, {11 * time.Minute, true, true}} {
		o.Forgive(c.later)
		l := acquire(t, o, pool.Ticket{Fresh: true})
		w := enqueue(t, p, o, pool.Ticket{Replayable: true})
		l.Release()
		next := w.lease(t)
		if (next == l) != c.handed {
			t.Errorf("%d: handed on: %v", n, next == l)
		}
		next.Release()
		if idle := stats(t, p).Idle; (idle == 1) != c.kept {
			t.Errorf("%d: %d idle", n, idle)
		}
		o.PassTime(pool.Settled)
		rested := acquire(t, o, pool.Ticket{})
		if (rested == next) != c.kept {
			t.Errorf("%d: used again after a rest: %v", n, rested == next)
		}
		rested.Release()
	}
}

func TestWhatIsNotToBeReusedIsNot(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) {
		c.NoReuse = func(k pool.Key) bool { return k.Port == u.addr.Port() }
	})
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{Replayable: true})
	w := enqueue(t, p, o, pool.Ticket{Replayable: true})
	l.Release()
	w.lease(t).Release()
	if s := stats(t, p); s.Opened != 2 || s.Idle != 0 || s.Closed[pool.NotTrusted] != 2 {
		t.Errorf("%d opened, %d idle, closed %v", s.Opened, s.Idle, s.Closed)
	}
	another := other.origin(p)
	l = acquire(t, another, pool.Ticket{})
	l.Release()
	if acquire(t, another, pool.Ticket{}) != l {
		t.Error("other origins suffer")
	}
	l.Release()
}

// What is beyond a learned limit is taken by no request. One such connection is
// enough to find out whether the limit still holds.
func TestIdleConnectionsBeyondALearnedLimitDoNotPileUp(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	old := fill(t, u, o, 5)
	o.PassTime(4 * sec)
	fill(t, u, o, 3)
	o.PassTime(sec)
	o.Learn(5 * sec)
	if o.Tidy(); stats(t, p).Idle != 4 || stats(t, p).Closed[pool.IdleTimeout] != 4 {
		t.Errorf("%d idle, closed %v", stats(t, p).Idle, stats(t, p).Closed)
	}
	o.PassTime(3 * sec)
	if o.Tidy(); stats(t, p).IdleLimit != 0 {
		t.Error("the limit is not forgotten although a connection has outlived it")
	}
	_ = old
}

// In a rollout the servers that end are the old ones.
func TestWhatCannotBeSentTwiceTakesAYoungConnection(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse)
	o := u.origin(p)
	var leases []*pool.Lease
	for range 8 {
		leases = append(leases, acquire(t, o, pool.Ticket{Fresh: true}))
	}
	for _, i := range []int{7, 0, 4, 1, 5, 2} { // 6 and 3 stay in use
		leases[i].Release()
	}
	for _, c := range []struct {
		ticket pool.Ticket
		want   int
	}{
		{pool.Ticket{Replayable: true}, 2}, // that was used last
		{pool.Ticket{}, 5},                 // the youngest of the last four
		{pool.Ticket{}, 7},
		{pool.Ticket{}, 4},
	} {
		if got := acquire(t, o, c.ticket); got != leases[c.want] {
			t.Errorf("%+v did not get number %d", c.ticket, c.want)
		} else {
			defer got.Release()
		}
	}
	leases[3].Release()
	leases[6].Release()
}
