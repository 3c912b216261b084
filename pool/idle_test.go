package pool_test

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func TestAReleasedConnectionIsUsedAgain(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	peer := u.next()
	if l.Reused() || !joins(l, peer) || l.Addr() != u.addr {
		t.Fatalf("reused %v, to %v", l.Reused(), l.Addr())
	}
	l.Release()
	for range 5 {
		l := acquire(t, o, pool.Ticket{})
		if !l.Reused() || !joins(l, peer) {
			t.Fatal("not the same connection")
		}
		testkit.Write(t, l, "ping")
		testkit.Read(t, peer, "ping")
		testkit.Write(t, peer, "pong")
		testkit.Read(t, l, "pong")
		l.Release()
	}
	if s := stats(t, p); s.Opened != 1 || s.Reused != 5 || s.Idle != 1 || s.InUse != 0 || s.SavedTime <= 0 {
		t.Errorf("%+v", s)
	}
}

func TestTheConnectionUsedLastIsUsedFirst(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse)
	o := u.origin(p)
	peers := fill(t, u, o, 3)
	for _, peer := range slices.Backward(peers) {
		l := acquire(t, o, pool.Ticket{})
		defer l.Release()
		if !joins(l, peer) {
			t.Error("another one came first")
		}
	}
}

// P14 of the catalogue.
func TestAnIdleConnectionThatItsPeerClosesIsRemovedAtOnce(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"FIN": func(c *net.TCPConn) { _ = c.Close() },
		"RST": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			peers := fill(t, u, o, 3)
			end(peers[1])
			closedFor(t, p, pool.UpstreamClosed, 1)
			if s := stats(t, p); s.Idle != 2 || s.InUse != 0 {
				t.Errorf("%d idle, %d in use", s.Idle, s.InUse)
			}
		})
	}
}

// A server that ends a connection without a word of it in its answer hangs up
// before the exchange is over.
func TestAConnectionThatItsPeerClosedWhileInUseIsNotKept(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	_ = u.next().Close()
	testkit.Eventually(t, "the hang-up is seen", l.HungUp)
	l.Release()
	if s := stats(t, p); s.Idle != 0 || s.Closed[pool.UpstreamClosed] != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
}

// P2 of the catalogue. The other connections of such an upstream are not used
// either (P24).
func TestAConnectionWithStrayBytesIsNotUsed(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	p.StopJanitor()
	o := u.origin(p)
	peers := fill(t, u, o, 2)
	testkit.Write(t, peers[1], "HTTP/1.1 200 OK\r\n\r\n")
	testkit.Eventually(t, "the bytes arrive", o.IdlePending)
	l := acquire(t, o, pool.Ticket{})
	if joins(l, peers[0]) || joins(l, peers[1]) {
		t.Error("a used connection")
	}
	l.Release()
	if o.Tidy(); stats(t, p).Idle != 0 {
		t.Errorf("%d connections are kept", stats(t, p).Idle)
	}
	if s := stats(t, p); s.Closed[pool.StrayBytes] != 1 || s.Closed[pool.NotTrusted] != 2 || s.Opened != 3 {
		t.Errorf("%d opened, closed %v", s.Opened, s.Closed)
	}
	for _, c := range peers {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	}
}

// Servers say 408 when they close what was idle for long. What comes with the
// end soon after an answer is something else.
func TestLastWordsAreNoStrayBytes(t *testing.T) {
	for name, c := range map[string]struct {
		idle   time.Duration
		inUse  bool
		reason pool.Reason
		kept   bool // what comes after it
	}{
		"after a while": {5 * sec, false, pool.UpstreamClosed, true},
		"at once":       {0, false, pool.StrayBytes, false},
		"while in use":  {0, true, pool.StrayBytes, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			l := acquire(t, o, pool.Ticket{})
			peer := u.next()
			if !c.inUse {
				l.Release()
				o.PassTime(c.idle)
			}
			testkit.Write(t, peer, "HTTP/1.1 408 Request Timeout\r\n\r\n")
			_ = peer.Close()
			if c.inUse {
				testkit.Eventually(t, "the hang-up is seen", l.HungUp)
				l.Release()
			}
			closedFor(t, p, c.reason, 1)
			acquire(t, o, pool.Ticket{}).Release()
			if s := stats(t, p); (s.Idle == 1) != c.kept {
				t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
			}
		})
	}
}

// P2 of the catalogue: no request is needed for it.
func TestP2StrayBytesOnAnIdleConnectionCloseItSoon(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	p := newPool(t)
	peers := fill(t, u, u.origin(p), 2)
	testkit.Write(t, peers[0], "stray")
	closedFor(t, p, pool.StrayBytes, 1)
}

func TestStrayBytesOfTheLastExchangeAreSeenByTheNext(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxConnsPerHost = 1 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	peer := u.next()
	testkit.Write(t, peer, "answer, and another answer")
	testkit.Eventually(t, "the bytes arrive", l.Pending)
	testkit.Read(t, l, "answer")
	w := enqueue(t, p, o, pool.Ticket{})
	l.Release() // handed over directly
	second := w.lease(t)
	defer second.Release()
	if joins(second, peer) || stats(t, p).Closed[pool.StrayBytes] != 1 {
		t.Error("the waiting request got the connection")
	}
}

// P13 of the catalogue.
func TestAnUpstreamsHintIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		hint, learned  int64 // seconds
		idle           time.Duration
		retry, noRetry bool // may the connection be used?
	}{
		"no hint":                     {-1, 0, 80 * sec, true, true},
		"beyond our own bound":        {-1, 0, 91 * sec, false, false},
		"well before the hint":        {5, 0, 2400 * ms, true, true},
		"past half of the hint":       {5, 0, 2600 * ms, true, false},
		"just before the margin":      {5, 0, 4400 * ms, true, false},
		"within the margin":           {5, 0, 4600 * ms, false, false},
		"past the hint":               {5, 0, 6 * sec, false, false},
		"a long hint":                 {100, 0, 89 * sec, true, false},
		"a hint beyond all bounds":    {1 << 62, 0, 80 * sec, true, true},
		"a hint of nothing":           {0, 0, 10 * ms, false, false},
		"learned, past half":          {-1, 5, 3 * sec, true, false},
		"learned, within the margin":  {-1, 5, 4600 * ms, false, false},
		"hint shorter than learned":   {5, 60, 4600 * ms, false, false},
		"learned shorter than a hint": {60, 5, 4600 * ms, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			for _, k := range []pool.Ticket{{Replayable: true}, {}} {
				o.Learn(0)
				l := acquire(t, o, pool.Ticket{Fresh: true})
				peer := u.next()
				l.Hint(c.hint, -1)
				l.Release()
				o.PassTime(c.idle)
				o.Learn(time.Duration(c.learned) * sec)
				want := c.noRetry
				if k.Replayable {
					want = c.retry
				}
				again := acquire(t, o, k)
				if joins(again, peer) != want {
					t.Errorf("replayable %v: used again %v", k.Replayable, !want)
				}
				again.Discard(pool.NotKept)
				o.PassTime(time.Hour)
				o.Tidy()
			}
		})
	}
}

func TestTheJanitorRetiresWhatNobodyMayUse(t *testing.T) {
	for name, c := range map[string]struct {
		hint   int64
		age    time.Duration // since it was opened
		idle   time.Duration
		reason pool.Reason // empty if it stays
	}{
		"young":                       {-1, 0, 80 * sec, ""},
		"idle for too long":           {-1, 0, 91 * sec, pool.IdleTimeout},
		"before the hint's margin":    {5, 0, 4400 * ms, ""},
		"within the hint's margin":    {5, 0, 4600 * ms, pool.IdleTimeout},
		"nearly at the greatest age":  {-1, 59 * time.Minute, sec, ""},
		"at the greatest age":         {-1, 61 * time.Minute, sec, pool.MaxAge},
		"idle for too long, and aged": {-1, 61 * time.Minute, 91 * sec, pool.IdleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t, reuse, func(c *pool.Config) { c.MaxAge = time.Hour })
			o := u.origin(p)
			l := acquire(t, o, pool.Ticket{})
			l.Hint(c.hint, -1)
			l.Release()
			l.PassTime(c.age)
			o.PassTime(c.idle)
			o.Tidy()
			s := stats(t, p)
			if c.reason == "" && s.Idle != 1 || c.reason != "" && s.Closed[c.reason] != 1 {
				t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
			}
		})
	}
}

func TestTheJanitorComesByItself(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.IdleTimeout = 100 * ms })
	fill(t, u, u.origin(p), 2)
	closedFor(t, p, pool.IdleTimeout, 2)
}

// P13 of the catalogue: max.
func TestAnUpstreamsCountOfRequestsIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		said []int64 // in each answer
		kept int     // how many exchanges the connection carries
	}{
		"counted down":                  {[]int64{2, 1, 0}, 3},
		"none left":                     {[]int64{0}, 1},
		"said once":                     {[]int64{2, -1, -1}, 3},
		"said late":                     {[]int64{-1, -1, 1, -1}, 4},
		"the same every time (Node)":    {[]int64{3, 3, 3, 3, 3, 3}, 3},
		"five every time (Node)":        {[]int64{5, 5, 5, 5, 5, 5}, 5},
		"two every time":                {[]int64{2, 2, 2}, 2},
		"one every time":                {[]int64{1, 1, 1}, 2}, // the first could have been the last but one
		"the same, not every time":      {[]int64{4, -1, 4, -1, -1}, 4},
		"the same, but late":            {[]int64{-1, -1, -1, 3, 3, 3}, 5},
		"the same twice, then fewer":    {[]int64{5, 5, 4, 3, 2, 1, 0}, 7},
		"beyond all bounds":             {[]int64{1<<63 - 1, 1<<63 - 1, 1<<63 - 1}, 0},
		"never":                         {[]int64{-1, -1, -1}, 0},
		"corrected to more than before": {[]int64{1, 5, -1, -1, -1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t)
			p := newPool(t)
			o := u.origin(p)
			n := 0
			for _, said := range c.said {
				l := acquire(t, o, pool.Ticket{})
				l.Hint(-1, said)
				l.Release()
				if n++; stats(t, p).Closed[pool.MaxRequests] > 0 {
					break
				}
			}
			if s := stats(t, p); c.kept == 0 && s.Idle != 1 || c.kept > 0 && (n != c.kept || s.Idle != 0) {
				t.Errorf("%d exchanges, %d idle", n, s.Idle)
			}
		})
	}
}

// P22 of the catalogue: age.
func TestConnectionsHaveDifferentAges(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse, func(c *pool.Config) { c.MaxAge, c.AgeJitter = time.Hour, 0.5 })
	o := u.origin(p)
	ages := map[time.Duration]bool{}
	for range 20 {
		l := acquire(t, o, pool.Ticket{Fresh: true})
		age := l.Lifetime()
		if ages[age.Round(ms)] = true; age < time.Hour/2 || age > time.Hour+10*sec {
			t.Errorf("an age of %v", age)
		}
		l.Release()
	}
	if len(ages) < 15 {
		t.Errorf("%d different ages of 20", len(ages))
	}
}

func TestAnAgedConnectionIsReplacedBetweenRequestsNotUnderOne(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxAge = time.Hour })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	peer := u.next()
	l.PassTime(2 * time.Hour)
	o.Tidy()
	testkit.Write(t, l, "ping")
	testkit.Read(t, peer, "ping")
	if l.Release(); stats(t, p).Closed[pool.MaxAge] != 1 {
		t.Fatal("not closed as it was given back")
	}
	l = acquire(t, o, pool.Ticket{})
	if l.Reused() {
		t.Fatal("used again")
	}
	l.Release()
	l.PassTime(2 * time.Hour)
	again := acquire(t, o, pool.Ticket{})
	if again == l || stats(t, p).Closed[pool.MaxAge] != 2 {
		t.Error("an idle connection past its age was used")
	}
	again.Release()
}

// P22 of the catalogue: requests.
func TestAConnectionCarriesOnlySoManyRequests(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxRequests = 3 })
	o := u.origin(p)
	for range 7 {
		acquire(t, o, pool.Ticket{}).Release()
	}
	if s := stats(t, p); s.Opened != 3 || s.Reused != 4 || s.Closed[pool.MaxRequests] != 2 || s.Idle != 1 {
		t.Errorf("%d opened, %d reused, %d idle, closed %v", s.Opened, s.Reused, s.Idle, s.Closed)
	}
}

func TestNoMoreConnectionsAreIdleThanAllowed(t *testing.T) {
	for most, want := range map[int]int{0: 0, 1: 1, 2: 2, 5: 3} {
		u := newUpstream(t)
		p := newPool(t, func(c *pool.Config) { c.MaxIdlePerHost = most })
		fill(t, u, u.origin(p), 3)
		if s := stats(t, p); s.Idle != want || int(s.Closed[pool.MaxIdle]) != 3-want {
			t.Errorf("of three, %d allowed, %d are idle, closed %v", most, s.Idle, s.Closed)
		}
	}
}

// Otherwise connections that no request may take any more would keep out
// those that it could.
func TestTheConnectionIdleLongestMakesRoom(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxIdlePerHost = 1 })
	o := u.origin(p)
	fill(t, u, o, 1)
	o.Learn(60 * sec)
	o.PassTime(40 * sec)
	l := acquire(t, o, pool.Ticket{})
	if l.Reused() {
		t.Fatal("a request that is not sent twice got a connection idle for long")
	}
	l.Release()
	again := acquire(t, o, pool.Ticket{})
	if again != l {
		t.Error("the connection used last was not kept")
	}
	again.Release()
}

// The two kinds of request, with a connection idle for more than half of what
// its upstream is known to allow.
func TestOnlyWhatCanBeSentTwiceTakesAConnectionIdleForLong(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	peers := fill(t, u, o, 1)
	o.Learn(10 * sec)
	o.PassTime(6 * sec)
	once := acquire(t, o, pool.Ticket{})
	if joins(once, peers[0]) {
		t.Error("a request that cannot be sent twice got it")
	}
	twice := acquire(t, o, pool.Ticket{Replayable: true})
	if !joins(twice, peers[0]) {
		t.Error("a request that can be sent twice did not get it")
	}
	once.Release()
	twice.Release()
}
