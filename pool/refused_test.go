package pool_test

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// refusals is a CheckAddr by which dials are refused, as by a pod that has ended
// behind the address of a Service.
type refusals struct {
	left, tried atomic.Int64
	third       chan struct{} // if not nil, the third dial waits until it is closed
}

func (r *refusals) check(netip.AddrPort) error {
	if r.tried.Add(1) == 3 && r.third != nil {
		<-r.third
	}
	if r.left.Add(-1) >= 0 {
		return syscall.ECONNREFUSED
	}
	return nil
}

// next has the next n dials refused.
func (r *refusals) next(n int64) {
	r.tried.Store(0)
	r.left.Store(n)
}

const allOfThem = 1 << 40

// refusing returns an origin of one address, to which so many connections are open
// and idle, and what refuses dials there.
func refusing(t *testing.T, idle int, change ...func(*pool.Config)) (*pool.Pool, *pool.Origin, *refusals) {
	t.Helper()
	r := &refusals{}
	u := newUpstream(t)
	p := newPool(t, append(change, func(c *pool.Config) { c.CheckAddr = r.check })...)
	o := u.origin(p)
	fill(t, u, o, idle)
	return p, o, r
}

// only is the address of an origin that has one.
func only(o *pool.Origin) netip.Addr { return netip.MustParseAddr(o.Key().Host) }

// again is the ticket of a request that is sent again.
func again(o *pool.Origin) pool.Ticket {
	return pool.Ticket{Replayable: true, Fresh: true, Avoid: only(o)}
}

// X5 of the catalogue: what is idle leads to pods that live.
func TestX5ARequestThatIsSentAgainTakesAnIdleConnectionWhereDialsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		refused, tried int64
		used           bool
	}{"once": {1, 1, true}, "always": {allOfThem, 1, true}, "never": {0, 1, false}} {
		t.Run("X5 "+name, func(t *testing.T) {
			p, o, r := refusing(t, 2)
			r.next(c.refused)
			l := acquire(t, o, again(o))
			if l.Carried() != c.used || r.tried.Load() != c.tried {
				t.Errorf("a used connection: %v, after %d dials", l.Carried(), r.tried.Load())
			}
			l.Release()
			if s := stats(t, p); s.InUse != 0 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// X5: those that are idle may lead to the same pod, and be about to tell. Each is
// looked at.
func TestX5IdleConnectionsThatHaveEndedAreNoHelpWhereDialsAreRefused(t *testing.T) {
	r := &refusals{}
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = r.check })
	o := u.origin(p)
	peers := fill(t, u, o, 3)
	for _, c := range peers[1:] {
		_ = c.Close()
	}
	r.next(allOfThem)
	l := acquire(t, o, again(o))
	if !joins(l, peers[0]) {
		t.Error("it is not the one that is open")
	}
	l.Release()
}

// X5: what is in use comes free.
func TestX5ARequestWaitsForABusyConnectionWhereDialsAreRefused(t *testing.T) {
	for name, k := range map[string]func(*pool.Origin) pool.Ticket{
		"sent again":         again,
		"for the first time": func(*pool.Origin) pool.Ticket { return pool.Ticket{Replayable: true} },
		"a POST":             func(*pool.Origin) pool.Ticket { return pool.Ticket{} },
		"a POST, sent again": func(o *pool.Origin) pool.Ticket { return pool.Ticket{Fresh: true, Avoid: only(o)} },
	} {
		t.Run("X5 "+name, func(t *testing.T) {
			p, o, r := refusing(t, 1)
			busy := acquire(t, o, pool.Ticket{})
			r.third = make(chan struct{})
			r.next(allOfThem)
			w := enqueue(t, p, o, k(o))
			testkit.Eventually(t, "two dials were refused", func() bool { return r.tried.Load() > 2 })
			busy.Release()
			l := w.lease(t)
			close(r.third)
			if l != busy {
				t.Error("it got another")
			}
			testkit.Eventually(t, "the dial ends", func() bool { return o.Dialing() == 0 })
			if n := r.tried.Load(); n != 3 {
				t.Errorf("%d dials", n)
			}
			l.Release()
		})
	}
}

// X5: a pod that lives is found by dialling, too.
func TestX5ADialIsRepeatedWhileOtherConnectionsAreOpen(t *testing.T) {
	_, o, r := refusing(t, 1)
	busy := acquire(t, o, pool.Ticket{})
	r.next(4)
	l := acquire(t, o, pool.Ticket{})
	if r.tried.Load() != 5 {
		t.Errorf("%d dials", r.tried.Load())
	}
	l.Release()
	busy.Release()
}

// X5: there is an end to it.
func TestX5RefusedDialsFailInTheEnd(t *testing.T) {
	for name, k := range map[string]pool.Ticket{
		"a request":   {Replayable: true},
		"a handshake": {Fresh: true},
		"a tunnel":    {Virgin: true},
	} {
		t.Run("X5 "+name, func(t *testing.T) {
			_, o, r := refusing(t, 1)
			busy := acquire(t, o, pool.Ticket{})
			r.next(allOfThem)
			if l, err := o.Acquire(&k); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, %v", l, err)
			}
			busy.Release()
		})
	}
}

// X5: with nothing open the upstream is taken at its word.
func TestX5NothingIsWaitedForWhereNoConnectionIsOpen(t *testing.T) {
	_, o, r := refusing(t, 0)
	r.next(allOfThem)
	for _, k := range []pool.Ticket{{}, again(o)} {
		r.tried.Store(0)
		if l, err := o.Acquire(&k); !errors.Is(err, syscall.ECONNREFUSED) || r.tried.Load() != 2 {
			t.Errorf("got %v, %v after %d dials", l, err, r.tried.Load())
		}
	}
}

// X5: a request that cannot be sent twice takes no connection that may be about to
// be closed, nor does a handshake take one that was used.
func TestX5NotEveryIdleConnectionIsATakenRiskWhereDialsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		k     func(*pool.Origin) pool.Ticket
		idle  time.Duration
		works bool
	}{
		"a POST, early":   {func(o *pool.Origin) pool.Ticket { return pool.Ticket{Fresh: true, Avoid: only(o)} }, sec, true},
		"a POST, late":    {func(o *pool.Origin) pool.Ticket { return pool.Ticket{Fresh: true, Avoid: only(o)} }, 3 * sec, false},
		"a GET, late":     {again, 3 * sec, true},
		"a GET, too late": {again, 6 * sec, false},
		"a handshake":     {func(*pool.Origin) pool.Ticket { return pool.Ticket{Fresh: true, Replayable: true} }, sec, false},
		"what is no HTTP": {func(*pool.Origin) pool.Ticket { return pool.Ticket{Virgin: true, Replayable: true} }, sec, false},
	} {
		t.Run("X5 "+name, func(t *testing.T) {
			_, o, r := refusing(t, 1)
			l := acquire(t, o, pool.Ticket{})
			l.Hint(5, -1)
			l.Release()
			o.PassTime(c.idle)
			r.next(allOfThem)
			k := c.k(o)
			l, err := o.Acquire(&k)
			if (err == nil) != c.works {
				t.Errorf("got %v", err)
			}
			if err == nil {
				l.Release()
			}
		})
	}
}
