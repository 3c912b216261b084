package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// seen is an observation of an upstream at a time: it closed a connection that
// was idle for so long, or it did not.
type seen struct {
	at, idle time.Duration
	open     bool
}

const sec, ms = time.Second, time.Millisecond

func TestAnIdleLimitIsLearnedFromWhatIsSeen(t *testing.T) {
	for name, c := range map[string]struct {
		seen []seen
		want time.Duration
	}{
		"nothing": {nil, 0},
		"one close proves nothing": {
			[]seen{{at: 10 * sec, idle: 5 * sec}}, 0,
		},
		"two that agree, at different times": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 5 * sec}}, 5 * sec,
		},
		"the shorter of two that agree counts": {
			[]seen{{at: 10 * sec, idle: 5100 * ms}, {at: 20 * sec, idle: 4900 * ms}}, 4900 * ms,
		},
		"two that do not agree": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 9 * sec}}, 0,
		},
		"the last two agree": {
			[]seen{{at: 10 * sec, idle: 60 * sec}, {at: 20 * sec, idle: 5 * sec}, {at: 30 * sec, idle: 5 * sec}}, 5 * sec,
		},
		"a restart closes all at whatever age they have": {
			[]seen{{at: 10 * sec, idle: 1 * sec}, {at: 10*sec + 5*ms, idle: 40 * sec}, {at: 10*sec + 9*ms, idle: 7 * sec}}, 0,
		},
		"a restart closes all at about one age": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 10*sec + ms, idle: 5 * sec}, {at: 10*sec + 50*ms, idle: 5 * sec}}, 0,
		},
		"a restart, and another close that agrees with the shortest of it": {
			[]seen{{at: 10 * sec, idle: 5300 * ms}, {at: 10*sec + ms, idle: 5 * sec}, {at: 30 * sec, idle: 5 * sec}}, 5 * sec,
		},
		"forgotten when a connection outlives it": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 5 * sec}, {idle: 7 * sec, open: true}}, 0,
		},
		"kept when a connection outlives it by no more than timers are coarse": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 5 * sec}, {idle: 6 * sec, open: true}}, 5 * sec,
		},
		"a close that another connection has outlived since does not count": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {idle: 7 * sec, open: true}, {at: 20 * sec, idle: 5 * sec}}, 0,
		},
		"learned again after it was forgotten": {
			[]seen{
				{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 5 * sec}, {idle: 7 * sec, open: true},
				{at: 40 * sec, idle: 2 * sec}, {at: 50 * sec, idle: 2 * sec},
			}, 2 * sec,
		},
		"closes shortly after an answer are of no limit": {
			[]seen{{at: 10 * sec, idle: 30 * ms}, {at: 20 * sec, idle: 40 * ms}, {at: 30 * sec, idle: 0}, {at: 40 * sec, idle: 800 * ms}}, 0,
		},
		"nor do they disturb one": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 15 * sec, idle: 20 * ms}, {at: 20 * sec, idle: 5 * sec}}, 5 * sec,
		},
		"a limit of a second": {
			[]seen{{at: 10 * sec, idle: sec}, {at: 20 * sec, idle: sec}}, sec,
		},
		"a new, shorter limit replaces the old": {
			[]seen{
				{at: 10 * sec, idle: 60 * sec}, {at: 100 * sec, idle: 60 * sec},
				{at: 200 * sec, idle: 5 * sec}, {at: 300 * sec, idle: 5 * sec},
			}, 5 * sec,
		},
		"one odd close does not unlearn": {
			[]seen{{at: 10 * sec, idle: 5 * sec}, {at: 20 * sec, idle: 5 * sec}, {at: 30 * sec, idle: sec}}, 5 * sec,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var l pool.Manners
			for _, s := range c.seen {
				if s.open {
					l.Survived(s.idle)
				} else {
					l.ClosedAfter(s.idle, s.at)
				}
			}
			if got := l.Learned(); got != c.want {
				t.Errorf("learned %v, want %v", got, c.want)
			}
		})
	}
}

func TestTheMarginLeavesRoomAndNeverTakesAll(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{
		60 * sec: 6 * sec, 5 * sec: 500 * ms, 2 * sec: 500 * ms, sec: 500 * ms, 100 * ms: 50 * ms, 2 * ms: ms,
	} {
		if got := pool.Margin(limit); got != want {
			t.Errorf("of %v: %v, want %v", limit, got, want)
		}
	}
}

// P12 of the catalogue.
func TestAnUpstreamsIdleTimeoutIsLearned(t *testing.T) {
	t.Parallel()
	const timeout = 5 * sec
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	for i := range uint64(2) {
		l := acquire(t, o, pool.Ticket{Fresh: true})
		peer := u.next()
		l.Release()
		o.PassTime(timeout)
		_ = peer.Close()
		closedFor(t, p, pool.UpstreamClosed, i+1)
		testkit.Eventually(t, "the next close is another event", sameEventIsOver())
	}
	limit := stats(t, p).IdleLimit
	if limit < timeout || limit > timeout+5*sec {
		t.Fatalf("learned %v", limit)
	}
	peers := fill(t, u, o, 1)
	o.PassTime(limit)
	l := acquire(t, o, pool.Ticket{Replayable: true})
	if joins(l, peers[0]) {
		t.Error("a connection that its upstream is about to close is used")
	}
	l.Release()
}

// What a request that is not sent twice finds closed teaches, too; but not if
// the connection was handed on without a pause.
func TestAConnectionThatWasClosedAsItWasUsedAgainTeaches(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxConnsPerHost = 1 })
	o := u.origin(p)
	closeAfter := func(idle time.Duration) {
		t.Helper()
		l := acquire(t, o, pool.Ticket{})
		if idle > 0 {
			l.Release()
			o.PassTime(idle)
			l = acquire(t, o, pool.Ticket{})
		} else {
			w := enqueue(t, p, o, pool.Ticket{})
			l.Release()
			l = w.lease(t)
		}
		if !l.Reused() {
			t.Fatal("a new connection")
		}
		l.Discard(pool.ClosedOnReuse)
		testkit.Eventually(t, "the next close is another event", sameEventIsOver())
	}
	for i, idle := range []time.Duration{5 * sec, 0, 5 * sec} {
		if closeAfter(idle); i < 2 && stats(t, p).IdleLimit != 0 {
			t.Errorf("learned %v too early", stats(t, p).IdleLimit)
		}
	}
	if got := stats(t, p); got.IdleLimit < 5*sec || got.IdleLimit > 6*sec || got.Reused != 0 {
		t.Errorf("learned %v, %d reused", got.IdleLimit, got.Reused)
	}
}

func sameEventIsOver() func() bool {
	start := time.Now()
	return func() bool { return time.Since(start) > 110*ms }
}

func TestALearnedLimitIsForgottenWhenAnIdleConnectionOutlivesIt(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 1)
	o.Learn(5 * sec)
	o.PassTime(6 * sec)
	if o.Tidy(); stats(t, p).IdleLimit == 0 {
		t.Fatal("forgotten too early")
	}
	o.PassTime(2 * sec)
	if o.Tidy(); stats(t, p).IdleLimit != 0 {
		t.Error("not forgotten")
	}
	if stats(t, p).Idle != 1 {
		t.Error("the connection was closed")
	}
}
