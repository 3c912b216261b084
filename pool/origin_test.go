package pool_test

import (
	"fmt"
	"testing"

	"github.com/carpoolproxy/carpool/internal/histogram"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// P20 of the catalogue.
func TestConnectionsAreSharedOnlyWithinASchemeHostAndPort(t *testing.T) {
	p := newPool(t)
	base := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
	if p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80}) != base {
		t.Error("the same origin is another one")
	}
	for name, other := range map[string]*pool.Origin{
		"scheme":    p.Origin(pool.Lookup{TLS: true, Host: []byte("a.test"), Port: 80}),
		"host":      p.Origin(pool.Lookup{Host: []byte("b.test"), Port: 80}),
		"port":      p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 8080}),
		"the label": p.Origin(pool.Lookup{Host: []byte("a.test."), Port: 80}),
	} {
		if other == base {
			t.Errorf("%s makes no difference", name)
		}
	}
}

func TestKeysReadLikeURLs(t *testing.T) {
	for want, k := range map[string]pool.Key{
		"http://a.test:80":    {Host: "a.test", Port: 80},
		"https://a.test:8443": {TLS: true, Host: "a.test", Port: 8443},
		"http://[::1]:8080":   {Host: "::1", Port: 8080},
	} {
		if k.String() != want {
			t.Errorf("got %s, want %s", k, want)
		}
	}
}

func TestTheHostIsNotKept(t *testing.T) {
	p := newPool(t)
	host := []byte("a.test")
	o := p.Origin(pool.Lookup{Host: host, Port: 80})
	host[0] = 'b'
	if o.Key().Host != "a.test" || p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80}) != o {
		t.Error("the key has changed")
	}
}

func TestAKnownOriginIsFoundWithoutAllocating(t *testing.T) {
	p := newPool(t)
	host := []byte("a-host-with-a-long-enough-name.test")
	if n := testing.AllocsPerRun(100, func() { p.Origin(pool.Lookup{TLS: true, Host: host, Port: 443}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheNumberOfOriginsIsBounded(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	kept := u.origin(p)
	fill(t, u, kept, 1)
	busy := p.Origin(pool.Lookup{Host: []byte("localhost"), Port: u.addr.Port()})
	unused := p.Origin(pool.Lookup{Host: []byte("unused.test"), Port: 80})
	l := acquire(t, busy, pool.Ticket{})
	defer l.Release()
	for i := range 2 * pool.MaxOrigins {
		p.Origin(pool.Lookup{Host: fmt.Appendf(nil, "%d.test", i), Port: 80})
	}
	if n := p.Origins(); n > pool.MaxOrigins {
		t.Errorf("%d origins", n)
	}
	if kept.Gone() || busy.Gone() || u.origin(p) != kept {
		t.Error("one with connections was forgotten")
	}
	if !unused.Gone() {
		t.Error("an unused one is still there")
	}
}

// Who still holds an origin that was forgotten gets on, but what is opened
// there is not kept where nobody would find it.
func TestAForgottenOriginKeepsNoConnections(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	if p.Forget(); !o.Gone() {
		t.Fatal("not forgotten")
	}
	l := acquire(t, o, pool.Ticket{})
	l.Release()
	if leases, _ := p.Open(); leases != 0 {
		t.Errorf("%d connections are kept", leases)
	}
}

func TestOriginsBeyondTheFirstAreCountedTogether(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	for i := range pool.MaxLabels {
		p.Origin(pool.Lookup{Host: fmt.Appendf(nil, "%d.test", i), Port: 80})
	}
	o := u.origin(p)
	fill(t, u, o, 2)
	o.Tally(2)
	for range 2 { // also when the origin is forgotten
		s := p.Snapshot()
		other := s.Origins[len(s.Origins)-1]
		if other.Origin != "other" || other.Opened != 2 || other.Tally != [8]uint64{2: 1} {
			t.Fatalf("%+v", other)
		}
		for p.EvictIdle() {
		}
		p.Forget()
	}
}

func TestTotalsOutliveTheirOrigins(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 2)
	o.Tally(2)
	before := p.Snapshot().Total
	if before.Opened != 2 || before.Idle != 2 || before.Tally[2] != 1 {
		t.Fatalf("%+v", before)
	}
	for p.EvictIdle() {
	}
	p.Forget()
	s := p.Snapshot()
	if len(s.Origins) != 0 {
		t.Fatalf("%+v", s.Origins)
	}
	if s.Total.Opened != 2 || s.Total.Idle != 0 || s.Total.Tally != before.Tally || s.Total.Closed[pool.Evicted] != 2 {
		t.Errorf("%+v", s.Total)
	}
}

func TestTalliesAreKept(t *testing.T) {
	p := newPool(t)
	o := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
	for _, i := range []int{0, 1, 2, 2, 3, 4, 5, 5, 5, 7} {
		o.Tally(i)
	}
	if got := stats(t, p).Tally; got != [8]uint64{1, 1, 2, 1, 1, 3, 0, 1} {
		t.Errorf("got %v", got)
	}
}

func TestASnapshotsFiguresAgree(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, atMost(2))
	p.StopJanitor()
	o := u.origin(p)
	n := 0
	get := func(k pool.Ticket) *pool.Lease { n++; return acquire(t, o, k) }
	a, b := get(pool.Ticket{}), get(pool.Ticket{})
	w := enqueue(t, p, o, pool.Ticket{})
	n++
	if s := stats(t, p); s.InUse != 2 || s.Idle != 0 || s.Waiting != 1 {
		t.Errorf("%+v", s)
	}
	a.Release()
	a = w.lease(t)
	a.Release()
	b.Discard(pool.BadAnswer)
	for range 4 {
		get(pool.Ticket{}).Release()
	}
	// One that finds a dead connection first still counts once.
	testkit.Write(t, u.next(), "stray")
	testkit.Eventually(t, "the bytes arrive", o.IdlePending)
	get(pool.Ticket{}).Release()
	s := p.Snapshot()
	if s.Waits.Count != uint64(n) || s.Dials.Count != s.Origins[0].Opened {
		t.Errorf("%d acquired, %d waits; %d opened, %d dials", n, s.Waits.Count, s.Origins[0].Opened, s.Dials.Count)
	}
	checkHistogram(t, s.Waits)
	checkHistogram(t, s.Dials)
	checkBalance(t, p)
}

func checkHistogram(t *testing.T, h histogram.Snapshot) {
	t.Helper()
	var sum uint64
	for _, n := range h.Counts {
		sum += n
	}
	if sum != h.Count || h.Sum < 0 {
		t.Errorf("%+v", h)
	}
}

// A counter that goes down looks like a restart.
func TestForgettingAnOriginLosesNoWaits(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	for range 5 {
		acquire(t, o, pool.Ticket{}).Release()
	}
	before := p.Snapshot().Waits.Count
	for p.EvictIdle() {
	}
	p.Forget()
	if after := p.Snapshot().Waits.Count; before != 5 || after != before {
		t.Errorf("%d before, %d after", before, after)
	}
}
