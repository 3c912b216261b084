package pool_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// warmth is so many connections to this server.
func (u *upstream) warmth(n int) pool.Warmth {
	return pool.Warmth{Key: pool.Key{Host: u.addr.Addr().String(), Port: u.addr.Port()}, Conns: n}
}

// warm keeps connections open to a server and returns its origin when that has
// begun. The janitor is away.
func warm(t testing.TB, p *pool.Pool, u *upstream, n int) *pool.Origin {
	t.Helper()
	p.StopJanitor()
	p.Warm(t.Context(), []pool.Warmth{u.warmth(n)}, nil)
	return u.origin(p)
}

// tend does what the janitor does, and waits for what comes of it.
func tend(t testing.TB, o *pool.Origin) {
	t.Helper()
	o.Tidy()
	o.TendWarm()
	testkit.Eventually(t, "no dial is under way", func() bool { return o.Dialing() == 0 })
}

// word is what Warm tells.
type word struct {
	key pool.Key
	err error
}

// words collects them.
type words struct {
	mu  sync.Mutex
	all []word
}

func (w *words) told(k pool.Key, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, word{k, err})
}

func (w *words) list() []word {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]word(nil), w.all...)
}

func TestWarmConnectionsAreThereBeforeARequestIs(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := warm(t, p, u, 6)
	if s := stats(t, p); s.Idle != 6 || s.Opened != 6 || s.Warm != 6 || s.WarmOpen != 6 {
		t.Errorf("%d idle, %d opened, warm %d of %d", s.Idle, s.Opened, s.WarmOpen, s.Warm)
	}
	l := acquire(t, o, pool.Ticket{})
	if !l.Reused() || stats(t, p).Opened != 6 {
		t.Error("the first request has waited for a dial")
	}
	tend(t, o) // in use counts
	if s := stats(t, p); s.Opened != 6 || s.WarmOpen != 6 {
		t.Errorf("%d opened, %d open", s.Opened, s.WarmOpen)
	}
	l.Release()
}

// A certificate that does not hold is found before a request finds it.
func TestWarmConnectionsAreVerified(t *testing.T) {
	s, p, _ := newSecure(t)
	var w words
	key := func(host string) pool.Key { return pool.Key{TLS: true, Host: host, Port: s.addr.Port()} }
	accepted := s.accept()
	p.Warm(t.Context(), []pool.Warmth{{key("good.test"), 1}}, w.told)
	if testkit.Await(t, "the server has shaken hands", accepted).Conn == nil || len(w.list()) != 0 {
		t.Errorf("told %v", w.list())
	}
	accepted = s.accept()
	p.Warm(t.Context(), []pool.Warmth{{key("bad.test"), 1}}, w.told)
	_ = testkit.Await(t, "the server has tried", accepted)
	told := w.list()
	var failed *pool.DialError
	if len(told) != 1 || told[0].key != key("bad.test") || !errors.As(told[0].err, &failed) || failed.Stage != pool.StageTLS {
		t.Errorf("told %v", told)
	}
}

func TestAWarmConnectionThatEndsIsReplaced(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *pool.Pool, *pool.Origin, *upstream){
		"by its peer": func(t *testing.T, p *pool.Pool, _ *pool.Origin, u *upstream) {
			_ = u.next().Close()
			closedFor(t, p, pool.UpstreamClosed, 1)
		},
		"by its age": func(t *testing.T, p *pool.Pool, o *pool.Origin, u *upstream) {
			l := acquire(t, o, pool.Ticket{})
			l.Unused()
			l.ComeOfAge()
		},
		"by who used it": func(t *testing.T, p *pool.Pool, o *pool.Origin, u *upstream) {
			acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, aging)
			o := warm(t, p, u, 3)
			o.PassTime(6 * sec)
			end(t, p, o, u)
			tend(t, o)
			if s := stats(t, p); s.Idle != 3 || s.Opened != 4 {
				t.Errorf("%d idle, %d opened, closed %v", s.Idle, s.Opened, s.Closed)
			}
		})
	}
}

// The replacements are there before the upstream, or IDLE_TIMEOUT, closes the old
// ones, and there is no time without any.
func TestWarmConnectionsAreReplacedBeforeTheirIdleLimit(t *testing.T) {
	for name, learned := range map[string]time.Duration{"IDLE_TIMEOUT": 0, "a learned limit": 20 * sec} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, func(c *pool.Config) { c.IdleTimeout = 30 * sec })
			o := warm(t, p, u, 3)
			if learned > 0 {
				o.Learn(learned)
			}
			for passed := range 90 {
				o.PassTime(sec)
				tend(t, o)
				// Old and new ones, and one that shows whether the limit still holds.
				if s := stats(t, p); s.Idle < 3 || s.Idle > 7 {
					t.Fatalf("after %d s: %d idle", passed, s.Idle)
				}
			}
			if s := stats(t, p); s.Opened < 9 || s.Opened > 21 {
				t.Errorf("%d opened", s.Opened)
			}
		})
	}
}

func TestWarmthStaysWithinOtherLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limit func(*pool.Config)
		want  int
	}{
		"none":                  {func(*pool.Config) {}, 8},
		"MaxConnsPerHost":       {func(c *pool.Config) { c.MaxConnsPerHost = 2 }, 2},
		"MaxIdlePerHost":        {func(c *pool.Config) { c.MaxIdlePerHost = 3 }, 3},
		"no idle ones":          {func(c *pool.Config) { c.MaxIdlePerHost = 0 }, 0},
		"MaxConns":              {func(c *pool.Config) { c.MaxConns = 5 }, 5},
		"connections not kept":  {func(c *pool.Config) { c.NoReuse = func(pool.Key) bool { return true } }, 0},
		"addresses not allowed": {func(c *pool.Config) { c.CheckAddr = func(netip.AddrPort) error { return errDenied } }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, c.limit)
			o := warm(t, p, u, 8)
			for range 3 {
				tend(t, o)
			}
			if s := stats(t, p); s.Idle != c.want || int(s.Opened) != c.want || s.Warm != 8 || s.WarmOpen != c.want {
				t.Errorf("%d idle, %d opened, warm %d of %d", s.Idle, s.Opened, s.WarmOpen, s.Warm)
			}
		})
	}
}

// A request that waits for a slot comes first, and may take a warm connection's.
func TestWarmthMakesRoomForRequests(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	p := newPool(t, budget(3))
	o := warm(t, p, u, 3)
	l := acquire(t, other.origin(p), pool.Ticket{})
	o.PassTime(time.Hour)
	tend(t, o)
	if leases, slots := p.Open(); leases > 3 || slots > 3 {
		t.Errorf("%d connections, %d slots", leases, slots)
	}
	l.Discard(pool.NotKept)
}

// A dead upstream is told of once, and dialled for after growing waits.
func TestADeadUpstreamIsToldOfOnceAndTriedAgainAfterGrowingWaits(t *testing.T) {
	u := newUpstream(t)
	var dead atomic.Bool
	var tries atomic.Int64
	dead.Store(true)
	p := newPool(t, func(c *pool.Config) {
		c.CheckAddr = func(netip.AddrPort) error {
			if tries.Add(1); dead.Load() {
				return errDenied
			}
			return nil
		}
	})
	p.StopJanitor()
	var w words
	p.Warm(t.Context(), []pool.Warmth{u.warmth(2)}, w.told)
	o := u.origin(p)
	tend(t, o)
	last := time.Duration(0)
	for range 12 {
		before, wait := tries.Load(), o.WarmWait()
		if wait < last || wait > pool.LastWarmWait*5/4 {
			t.Errorf("a wait of %v after one of %v", wait, last)
		}
		for range 20 {
			tend(t, o)
		}
		if tries.Load() != before {
			t.Fatal("it is dialled for before the wait is over")
		}
		o.PassTime(wait)
		tend(t, o)
		if n := tries.Load() - before; n < 1 || n > 4 {
			t.Fatalf("%d dials", n)
		}
		last = min(wait, pool.LastWarmWait*3/4)
	}
	if told := w.list(); len(told) != 1 || !errors.Is(told[0].err, errDenied) || told[0].key != o.Key() {
		t.Fatalf("told %v", told)
	}
	dead.Store(false)
	o.PassTime(pool.LastWarmWait * 2)
	tend(t, o)
	if s := stats(t, p); s.Idle != 2 || len(w.list()) != 1 {
		t.Fatalf("%d idle, told %v", s.Idle, w.list())
	}
	o.PassTime(6 * sec)
	tend(t, o)
	tend(t, o)
	if told := w.list(); len(told) != 2 || told[1].err != nil {
		t.Fatalf("told %v", told)
	}
	if o.WarmWait() > 0 {
		t.Error("it still waits")
	}
}

// However long it does so: it is dialled for less and less.
func TestAnUpstreamThatClosesAtOnceIsNotHammered(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	p.StopJanitor()
	var w words
	hangUp := func() {
		for {
			select {
			case c := <-u.conns:
				_ = c.Close()
				continue
			default:
			}
			return
		}
	}
	p.Warm(t.Context(), []pool.Warmth{u.warmth(4)}, w.told)
	o := u.origin(p)
	for range 600 {
		testkit.Eventually(t, "all are closed", func() bool {
			hangUp()
			return o.Dialing() == 0 && stats(t, p).Idle == 0
		})
		o.PassTime(sec)
		tend(t, o)
	}
	testkit.Eventually(t, "all are closed", func() bool {
		hangUp()
		return stats(t, p).Idle == 0
	})
	if n := stats(t, p).Opened; n < 8 || n > 200 {
		t.Errorf("%d dials in ten minutes", n)
	}
	if told := w.list(); len(told) != 1 || told[0].err == nil {
		t.Errorf("told %v", told)
	}
}

// One whose limit is that short is not kept warm at any price.
func TestAShortIdleLimitDoesNotKeepTheDialsBusy(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := warm(t, p, u, 4)
	o.Learn(sec)
	for range 300 {
		o.PassTime(sec)
		tend(t, o)
		o.Learn(sec) // an upstream that closes would have it so
	}
	if n := stats(t, p).Opened; n > 200 {
		t.Errorf("%d dials in five minutes", n)
	}
}

func TestWhatWasEvictedIsNotOpenedAgainAtOnce(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := warm(t, p, u, 4)
	if n := p.CloseIdle(0); n != 4 {
		t.Fatalf("%d are closed", n)
	}
	for range 5 {
		tend(t, o)
		o.PassTime(sec)
	}
	if s := stats(t, p); s.Idle != 0 || s.Opened != 4 {
		t.Fatalf("%d idle, %d opened", s.Idle, s.Opened)
	}
	o.PassTime(10 * sec)
	tend(t, o)
	if s := stats(t, p); s.Idle != 4 {
		t.Fatalf("%d idle", s.Idle)
	}
	if p.EvictIdle(); o.WarmWait() < 10*sec {
		t.Errorf("after another eviction it waits for %v", o.WarmWait())
	}
}

func TestAWarmOriginIsNotForgotten(t *testing.T) {
	u, other := newUpstream(t), newUpstream(t)
	p := newPool(t)
	o := warm(t, p, u, 1)
	p.CloseIdle(0)
	p.SetMaxOrigins(1)
	acquire(t, other.origin(p), pool.Ticket{}).Release()
	p.Forget()
	if o.Gone() || u.origin(p) != o {
		t.Error("it is forgotten")
	}
}

func TestWarmReturnsWhenItsTimeIsOver(t *testing.T) {
	u := newUpstream(t)
	g := newGate()
	p := newPool(t, func(c *pool.Config) { c.CheckAddr = g.check })
	defer g.release()
	ctx, cancel := context.WithCancel(t.Context())
	returned := testkit.In(func() bool {
		p.Warm(ctx, []pool.Warmth{u.warmth(1)}, nil)
		return true
	})
	testkit.Await(t, "it is dialled for", g.tried)
	select {
	case <-returned:
		t.Fatal("it has returned before anything was opened")
	default:
	}
	cancel()
	testkit.Await(t, "it returns", returned)
	g.release()
	testkit.Eventually(t, "it goes on", func() bool { return stats(t, p).WarmOpen == 1 })
}

func TestOfTwoWishesTheGreaterCounts(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	p.Warm(t.Context(), []pool.Warmth{u.warmth(1), u.warmth(3), u.warmth(2)}, nil)
	if s := stats(t, p); s.Idle != 3 || s.Warm != 3 {
		t.Errorf("%d idle, %d are to be", s.Idle, s.Warm)
	}
}

// Connections that are opened on suspicion are dropped again if nobody comes.
func TestPrimedOriginsHaveConnectionsForAWhile(t *testing.T) {
	a, b := newUpstream(t), newUpstream(t)
	p := newPool(t)
	p.StopJanitor()
	p.Prime(t.Context(), []pool.Warmth{a.warmth(3), b.warmth(1), {pool.Key{Host: "127.0.0.1", Port: testkit.Refused(t).Port()}, 2}})
	testkit.Eventually(t, "they are there", func() bool { return p.Snapshot().Total.Idle == 4 })
	if s := p.Snapshot().Total; s.Warm != 0 || p.KeptWarm() != 3 {
		t.Errorf("%d are to be kept, of %d origins", s.Warm, p.KeptWarm())
	}
	o := a.origin(p)
	l := acquire(t, o, pool.Ticket{})
	if !l.Reused() {
		t.Error("the first request has waited for a dial")
	}
	l.Release()
	o.PassTime(pool.PrimedFor + sec)
	o.TendWarm()
	if p.KeptWarm() != 2 {
		t.Errorf("%d origins are kept warm", p.KeptWarm())
	}
}

func TestTheHottestOriginsAreThoseThatNeededMost(t *testing.T) {
	p := newPool(t)
	need := func(n int, reuse bool) *upstream {
		u := newUpstream(t)
		fill(t, u, u.origin(p), n)
		if reuse {
			acquire(t, u.origin(p), pool.Ticket{}).Release()
		}
		return u
	}
	few, many, some := need(1, true), need(7, true), need(3, true)
	need(9, false)
	quiet := need(5, true)
	quiet.origin(p).ForgetPeak()
	tunnels := newUpstream(t)
	acquire(t, tunnels.origin(p), pool.Ticket{Virgin: true}).Discard(pool.Tunnelled)
	got, want := p.Hottest(9), []pool.Warmth{many.warmth(7), some.warmth(3), few.warmth(1)}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%v, want %v", got, want)
	}
	if got := p.Hottest(2); len(got) != 2 || got[1] != want[1] {
		t.Errorf("two of them: %v", got)
	}
}

// The janitor does it by himself.
func TestTheJanitorKeepsOriginsWarm(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	p := newPool(t)
	p.Warm(t.Context(), []pool.Warmth{u.warmth(2)}, nil)
	u.origin(p).PassTime(6 * sec)
	_ = u.next().Close()
	testkit.Eventually(t, "it is replaced", func() bool { s := stats(t, p); return s.Opened == 3 && s.Idle == 2 })
}

func TestWhatRulesForbidIsNotKeptWarm(t *testing.T) {
	u := newUpstream(t)
	forbidden := errors.New("forbidden")
	p := newPool(t, func(c *pool.Config) { c.CheckWarm = func(pool.Key) error { return forbidden } })
	list := []pool.Warmth{{Key: pool.Key{Host: u.addr.Addr().String(), Port: u.addr.Port()}, Conns: 2}}
	var told error
	p.Warm(t.Context(), list, func(_ pool.Key, err error) { told = err })
	p.Prime(t.Context(), list)
	if s := p.Snapshot(); !errors.Is(told, forbidden) || len(s.Origins) != 0 {
		t.Errorf("told of %v; %d origins", told, len(s.Origins))
	}
}
