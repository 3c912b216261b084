package pool_test

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// sparing has so many spare tunnels wait for each origin.
func sparing(n int) func(*pool.Config) { return func(c *pool.Config) { c.SpareTunnels = n } }

// expect has tunnels come one soon after the other, and waits for as many spares.
func expect(t testing.TB, p *pool.Pool, o *pool.Origin, spares int) {
	t.Helper()
	o.ExpectTunnel()
	o.ExpectTunnel()
	testkit.Eventually(t, "the spares are there", func() bool { return stats(t, p).Spares == spares && o.Dialing() == 0 })
}

// checkSpares checks that of each spare it is known what has become of it.
func checkSpares(t testing.TB, p *pool.Pool, used, unused uint64) {
	t.Helper()
	s := stats(t, p)
	if s.SparesUsed != used || s.SparesUnused != unused || s.SparesMade != used+unused+uint64(s.Spares) {
		t.Errorf("%d made, %d used, %d unused, %d wait; want %d used, %d unused",
			s.SparesMade, s.SparesUsed, s.SparesUnused, s.Spares, used, unused)
	}
	checkBalance(t, p)
}

var tunnelled = pool.Ticket{Virgin: true}

func TestATunnelGetsASpare(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, sparing(1))
	o := u.origin(p)
	expect(t, p, o, 1)
	spare := u.next()
	request := acquire(t, o, pool.Ticket{Replayable: true})
	if joins(request, spare) {
		t.Error("a request got it")
	}
	u.next()
	l := acquire(t, o, tunnelled)
	if !joins(l, spare) || l.Carried() {
		t.Error("the tunnel did not get it")
	}
	if n := p.Carrying(); n != 1 {
		t.Errorf("%d carry requests", n)
	}
	l.CarriesTunnel()
	checkSpares(t, p, 1, 0)
	o.ExpectTunnel() // it was the last
	testkit.Eventually(t, "another is there", func() bool { return stats(t, p).Spares == 1 })
	checkSpares(t, p, 1, 0)
	l.Discard(pool.Tunnelled)
	request.Release()
	if s := stats(t, p); s.Idle != 2 || s.InUse != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOneTunnelAloneCostsNoOther(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, sparing(3))
	o := u.origin(p)
	o.ExpectTunnel()
	o.PassTime(16 * time.Second)
	o.ExpectTunnel()
	if n := o.Dialing(); n != 0 || stats(t, p).Opened != 0 {
		t.Errorf("%d dials", n)
	}
	o.ExpectTunnel()
	testkit.Eventually(t, "three are there", func() bool { return stats(t, p).Spares == 3 })
	for range 5 {
		o.ExpectTunnel()
	}
	testkit.Eventually(t, "dials end", func() bool { return o.Dialing() == 0 })
	if s := stats(t, p); s.Opened != 3 {
		t.Errorf("%d were opened for three", s.Opened)
	}
}

func TestASpareThatIsNotUsedEnds(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, sparing(1))
	o := u.origin(p)
	expect(t, p, o, 1)
	o.PassTime(14 * time.Second)
	o.Tidy()
	checkSpares(t, p, 0, 0)
	o.PassTime(2 * time.Second)
	spare := u.next()
	if l := acquire(t, o, tunnelled); joins(l, spare) {
		t.Error("one that has waited for too long was used")
	} else {
		l.Discard(pool.Tunnelled)
	}
	o.Tidy()
	closedFor(t, p, pool.IdleTimeout, 1)
	checkSpares(t, p, 0, 1)
	if o.Dialing() != 0 {
		t.Error("it is replaced")
	}
}

// A spare is not near the idle limit that was learned.
func TestASpareEndsBeforeTheUpstreamEndsIt(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, sparing(1))
	o := u.origin(p)
	o.Learn(8 * time.Second)
	expect(t, p, o, 1)
	o.PassTime(3 * time.Second)
	o.Tidy()
	checkSpares(t, p, 0, 0)
	o.PassTime(2 * time.Second)
	o.Tidy()
	checkSpares(t, p, 0, 1)
}

// What a server that speaks first says reaches whoever it was said to, and that is not
// a spare.
func TestWhoSpeaksFirstGetsNoSpares(t *testing.T) {
	for name, notice := range map[string]func(t *testing.T, o *pool.Origin){
		"seen as it is asked for": func(*testing.T, *pool.Origin) {},
		"seen by the janitor":     func(_ *testing.T, o *pool.Origin) { o.Tidy() },
		"seen with its end":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, sparing(1))
			p.StopJanitor()
			o := u.origin(p)
			expect(t, p, o, 1)
			spare := u.next()
			testkit.Write(t, spare, "220 hello\r\n")
			testkit.Eventually(t, "it has come", o.IdlePending)
			if notice == nil {
				_ = spare.Close()
				testkit.Eventually(t, "it is over", func() bool { return stats(t, p).Spares == 0 })
			} else {
				notice(t, o)
			}
			l := acquire(t, o, tunnelled)
			if joins(l, spare) {
				t.Error("a tunnel got it")
			}
			greeting := u.next()
			testkit.Write(t, greeting, "220 hello\r\n")
			var b sock.Buffer
			if err := l.Fill(&b); err != nil || string(b.Bytes()) != "220 hello\r\n" {
				t.Errorf("%q, %v", b.Bytes(), err)
			}
			b.Release()
			l.Discard(pool.Tunnelled)
			checkSpares(t, p, 0, 1)
			o.ExpectTunnel()
			o.ExpectTunnel()
			if o.Dialing() != 0 || stats(t, p).Opened != 2 {
				t.Error("another was opened")
			}
			again := acquire(t, o, pool.Ticket{}) // nor is it known for stray bytes
			again.Release()
			if stats(t, p).Idle != 1 {
				t.Error("connections are kept no more")
			}
		})
	}
}

// What comes between the look and the use is the tunnel's.
func TestWhatIsSaidOnASpareInUseIsTheTunnels(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, sparing(1))
	o := u.origin(p)
	expect(t, p, o, 1)
	spare := u.next()
	l := acquire(t, o, tunnelled)
	testkit.Write(t, spare, "late")
	var b sock.Buffer
	if err := l.Fill(&b); err != nil || string(b.Bytes()) != "late" {
		t.Errorf("%q, %v", b.Bytes(), err)
	}
	b.Release()
	l.Discard(pool.Tunnelled)
	checkSpares(t, p, 1, 0)
}

func TestASpareThatTheUpstreamHasClosedIsNotUsed(t *testing.T) {
	for name, end := range map[string]func(c *net.TCPConn){
		"closed": func(c *net.TCPConn) { _ = c.Close() },
		"reset":  func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		u := newUpstream(t)
		p := newPool(t, sparing(1))
		o := u.origin(p)
		expect(t, p, o, 1)
		end(u.next())
		l := acquire(t, o, tunnelled)
		if !joins(l, u.next()) {
			t.Errorf("%s: the tunnel got another", name)
		}
		l.Discard(pool.Tunnelled)
		testkit.Eventually(t, "it is accounted for", func() bool { return stats(t, p).SparesUnused == 1 })
		checkSpares(t, p, 0, 1)
	}
}

func TestSparesAreInNobodysWay(t *testing.T) {
	t.Run("slots", func(t *testing.T) {
		u, other := newUpstream(t), newUpstream(t)
		p := newPool(t, sparing(1), func(c *pool.Config) { c.MaxConns = 2 })
		o := u.origin(p)
		expect(t, p, o, 1)
		first := acquire(t, o, pool.Ticket{})
		second := acquire(t, other.origin(p), pool.Ticket{})
		s := p.Snapshot().Total
		if s.SparesUnused != 1 || s.Closed[pool.Evicted] != 1 {
			t.Errorf("%+v", s)
		}
		o.ExpectTunnel()
		if o.Dialing() != 0 {
			t.Error("one is opened where there is no slot")
		}
		first.Release()
		second.Release()
	})
	t.Run("the origin's own", func(t *testing.T) {
		u := newUpstream(t)
		p := newPool(t, sparing(1), func(c *pool.Config) { c.MaxConnsPerHost = 1 })
		o := u.origin(p)
		expect(t, p, o, 1)
		acquire(t, o, pool.Ticket{}).Release()
		checkSpares(t, p, 0, 1)
	})
	t.Run("descriptors", func(t *testing.T) {
		u := newUpstream(t)
		p := newPool(t, sparing(1))
		expect(t, p, u.origin(p), 1)
		if !p.EvictIdle() {
			t.Error("nothing to close")
		}
		checkSpares(t, p, 0, 1)
	})
	t.Run("memory", func(t *testing.T) {
		u := newUpstream(t)
		p := newPool(t, sparing(2))
		expect(t, p, u.origin(p), 2)
		if n := p.CloseIdle(0); n != 2 {
			t.Errorf("%d closed", n)
		}
		checkSpares(t, p, 0, 2)
	})
	t.Run("the end", func(t *testing.T) {
		u := newUpstream(t)
		p := newPool(t, sparing(2))
		expect(t, p, u.origin(p), 2)
		_ = p.Close()
		checkSpares(t, p, 0, 2)
	})
	t.Run("all together", func(t *testing.T) {
		u := newUpstream(t)
		p := newPool(t, sparing(100))
		expect(t, p, u.origin(p), pool.MostSpares)
	})
}

func TestWhereNoSparesAreKept(t *testing.T) {
	for name, set := range map[string]func(*pool.Config){
		"not asked for":  sparing(0),
		"NO_REUSE_HOSTS": func(c *pool.Config) { c.SpareTunnels = 1; c.NoReuse = func(pool.Key) bool { return true } },
	} {
		u := newUpstream(t)
		p := newPool(t, set)
		o := u.origin(p)
		o.ExpectTunnel()
		o.ExpectTunnel()
		if o.Dialing() != 0 || stats(t, p).Opened != 0 {
			t.Errorf("%s: one is opened", name)
		}
	}
	u := newUpstream(t)
	p := newPool(t, sparing(1))
	o := u.origin(p)
	o.Crowd(1)
	o.ExpectTunnel()
	o.ExpectTunnel()
	if o.Dialing() != 0 {
		t.Error("one is opened where it may have the only worker")
	}
}

// Whether an address may be connected to is asked again as a spare is used.
func TestASpareIsNoWayPastTheRules(t *testing.T) {
	u := newUpstream(t)
	var shut atomic.Bool
	p := newPool(t, sparing(1), func(c *pool.Config) {
		c.CheckAddr = func(netip.AddrPort) error {
			if shut.Load() {
				return errors.New("not any more")
			}
			return nil
		}
	})
	o := u.origin(p)
	expect(t, p, o, 1)
	shut.Store(true)
	k := tunnelled
	l, err := o.Acquire(&k)
	var failed *pool.DialError
	if !errors.As(err, &failed) || failed.Stage != pool.StagePolicy && failed.Stage != pool.StageConnect {
		t.Errorf("%v, %v", l, err)
	}
	checkSpares(t, p, 0, 1)
}

// A dial for a spare that finds a request waiting is that request's.
func TestASpareOnItsWayServesWhoWaits(t *testing.T) {
	u := newUpstream(t)
	g := newGate()
	defer g.release()
	p := newPool(t, sparing(1), func(c *pool.Config) { c.CheckAddr, c.MaxConnsPerHost = g.check, 1 })
	o := u.origin(p)
	o.ExpectTunnel()
	o.ExpectTunnel()
	testkit.Await(t, "it is dialled", g.tried)
	w := enqueue(t, p, o, pool.Ticket{})
	g.release()
	w.lease(t).Release()
	checkSpares(t, p, 0, 0)
	if s := stats(t, p); s.Opened != 1 || s.SparesMade != 0 || s.Idle != 1 {
		t.Errorf("%+v", s)
	}
}
