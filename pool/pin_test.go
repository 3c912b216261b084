package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// pinned returns a connection that is kept for a ticket, and the upstream's end.
func pinned(t *testing.T, u *upstream, o *pool.Origin, midway bool) (*pool.Ticket, *pool.Lease) {
	t.Helper()
	k := new(pool.Ticket)
	t.Cleanup(k.Leave)
	l, err := o.Acquire(k)
	if err != nil {
		t.Fatal(err)
	}
	l.ReleaseTo(k, midway)
	return k, l
}

// P20 of the catalogue.
func TestP20APinnedConnectionIsForOneTicketAlone(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	k, l := pinned(t, u, o, false)
	other := acquire(t, o, pool.Ticket{})
	if other == l {
		t.Fatal("another got it")
	}
	for range 3 {
		again, err := o.Acquire(k)
		if err != nil || again != l || !again.Pinned() || !again.Reused() {
			t.Fatalf("its owner got another one (%v)", err)
		}
		again.ReleaseTo(k, false)
	}
	other.Release()
	if s := stats(t, p); s.Opened != 2 || s.Reused != 3 || s.Idle != 2 || s.InUse != 0 {
		t.Errorf("%+v", s)
	}
	k.Leave()
	if s := stats(t, p); s.Closed[pool.Pinned] != 1 || s.Idle != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
}

func TestP20APinnedConnectionIsNotForAnotherOriginOrAFreshTicket(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	p := newPool(t)
	for name, take := range map[string]func(*pool.Ticket) *pool.Origin{
		"another origin": func(*pool.Ticket) *pool.Origin { return other.origin(p) },
		"a fresh ticket": func(k *pool.Ticket) *pool.Origin { k.Fresh = true; return u.origin(p) },
	} {
		t.Run(name, func(t *testing.T) {
			k, l := pinned(t, u, u.origin(p), false)
			again, err := take(k).Acquire(k)
			if err != nil || again == l || again.Pinned() {
				t.Errorf("it got the pinned one (%v)", err)
			}
			again.Discard(pool.NotKept)
		})
	}
	for _, s := range p.Snapshot().Origins {
		if s.Origin == u.origin(p).Key().String() && s.Closed[pool.Pinned] != 2 {
			t.Errorf("closed %v", s.Closed)
		}
	}
}

// It knows its client: whoever gives it back as one for all is wrong.
func TestP20APinnedConnectionIsNeverGivenToAll(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	k, _ := pinned(t, u, o, false)
	l, err := o.Acquire(k)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	if s := stats(t, p); s.Idle != 0 || s.Closed[pool.Pinned] != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
}

// P30 of the catalogue: everything that ends an idle connection ends a pinned one.
func TestP30PinnedConnectionsEndAsOthersDo(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(t *testing.T, p *pool.Pool, u *upstream, o *pool.Origin, l *pool.Lease)
		reason pool.Reason
	}{
		"idle time": {func(_ *testing.T, _ *pool.Pool, _ *upstream, o *pool.Origin, _ *pool.Lease) {
			o.PassTime(91 * sec)
			o.Tidy()
		}, pool.IdleTimeout},
		"age": {func(_ *testing.T, _ *pool.Pool, _ *upstream, o *pool.Origin, l *pool.Lease) {
			l.PassTime(2 * time.Hour)
			o.Tidy()
		}, pool.MaxAge},
		"hang-up": {func(_ *testing.T, _ *pool.Pool, u *upstream, _ *pool.Origin, _ *pool.Lease) {
			_ = u.next().Close()
		}, pool.UpstreamClosed},
		"stray bytes": {func(t *testing.T, _ *pool.Pool, u *upstream, o *pool.Origin, l *pool.Lease) {
			testkit.Write(t, u.next(), "stray")
			testkit.Eventually(t, "the bytes arrive", l.Pending)
			o.Tidy()
		}, pool.StrayBytes},
		"memory": {func(_ *testing.T, p *pool.Pool, _ *upstream, _ *pool.Origin, _ *pool.Lease) {
			p.CloseIdle(0)
		}, pool.Evicted},
		"descriptors": {func(_ *testing.T, p *pool.Pool, _ *upstream, _ *pool.Origin, _ *pool.Lease) {
			p.EvictIdle()
		}, pool.Evicted},
		"Close": {func(_ *testing.T, p *pool.Pool, _ *upstream, _ *pool.Origin, _ *pool.Lease) {
			_ = p.Close()
		}, pool.Shutdown},
	} {
		t.Run("P30 "+name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, func(c *pool.Config) { c.MaxAge = time.Hour })
			p.StopJanitor()
			o := u.origin(p)
			k, l := pinned(t, u, o, false)
			c.end(t, p, u, o, l)
			closedFor(t, p, c.reason, 1)
			if s := stats(t, p); s.Idle != 0 || s.InUse != 0 {
				t.Errorf("%d idle, %d in use", s.Idle, s.InUse)
			}
			again, err := o.Acquire(k)
			if errors.Is(err, pool.ErrClosed) {
				return
			}
			if err != nil || again.Pinned() || again.Reused() {
				t.Fatalf("its owner gets no new one (%v)", err)
			}
			again.Release()
		})
	}
}

// P30: a request to another origin needs its slot, or one to the same origin its
// place.
func TestP30PinnedConnectionsMakeRoom(t *testing.T) {
	for name, c := range map[string]struct {
		limit func(*pool.Config)
		same  bool
	}{
		"in the budget":     {budget(1), false},
		"within the origin": {atMost(1), true},
	} {
		t.Run("P30 "+name, func(t *testing.T) {
			u, other := newUpstream(t), newUpstream(t)
			p := newPool(t, c.limit)
			o := u.origin(p)
			for range 2 {
				k, _ := pinned(t, u, o, false)
				to := other.origin(p)
				if c.same {
					to = o
				}
				// One that comes while it is idle, and one that waits as it comes back.
				acquire(t, to, pool.Ticket{}).Discard(pool.NotKept)
				l, err := o.Acquire(k)
				if err != nil {
					t.Fatal(err)
				}
				w := enqueue(t, p, to, pool.Ticket{})
				l.ReleaseTo(k, false)
				w.lease(t).Discard(pool.NotKept)
			}
		})
	}
}

// A connection whose authentication is under way is not taken away as it comes
// back, for then it would never succeed.
func TestP30APinnedConnectionMidwayIsLeftAlone(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(1), func(c *pool.Config) { c.MaxAge, c.MaxRequests = time.Hour, 1 })
	o := u.origin(p)
	k, l := pinned(t, u, o, true)
	for range 3 {
		again, err := o.Acquire(k)
		if err != nil || again != l {
			t.Fatalf("it is gone (%v)", err)
		}
		l.ComeOfAge()
		o.Tidy()
		waits := enqueue(t, p, o, pool.Ticket{})
		l.ReleaseTo(k, true)
		o.Tidy()
		waits.stillWaits(t)
		o.Cancel(&waits.ticket)
		if err := waits.fails(t); !errors.Is(err, pool.ErrCanceled) {
			t.Fatal(err)
		}
	}
	k.Leave()
	acquire(t, o, pool.Ticket{}).Release()
}

// Or nobody could authenticate there.
func TestP30APinnedConnectionIsKeptWhereNoneIs(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) {
		c.MaxIdlePerHost, c.NoReuse = 0, func(pool.Key) bool { return true }
	})
	p.StopJanitor()
	o := u.origin(p)
	k, l := pinned(t, u, o, false)
	o.Tidy()
	again, err := o.Acquire(k)
	if err != nil || again != l {
		t.Fatalf("it is gone (%v): closed %v", err, stats(t, p).Closed)
	}
	again.ReleaseTo(k, false)
}

// P24: an upstream that sends strays is not trusted with pinned ones either.
func TestP24APinnedConnectionIsNotKeptByAnUpstreamThatSendsStrays(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	p.StopJanitor()
	o := u.origin(p)
	pinned(t, u, o, false)
	k, _ := pinned(t, u, o, true)
	l, err := o.Acquire(k)
	if err != nil {
		t.Fatal(err)
	}
	acquire(t, o, pool.Ticket{}).Discard(pool.StrayBytes)
	l.ReleaseTo(k, true)
	if o.Tidy(); stats(t, p).Closed[pool.NotTrusted] != 1 || stats(t, p).Idle != 1 {
		t.Errorf("%d idle, closed %v", stats(t, p).Idle, stats(t, p).Closed)
	}
	if l, err = o.Acquire(k); err != nil {
		t.Fatal(err)
	}
	if l.ReleaseTo(k, false); stats(t, p).Closed[pool.NotTrusted] != 2 {
		t.Errorf("closed %v", stats(t, p).Closed)
	}
}
