package pool_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func TestAWaitIsDividedIntoTheStepsThatTookPlaceInIt(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, c := range map[string]struct {
		began, resolved, connected, secured time.Duration
		since, until                        time.Duration
		want                                pool.Waited
	}{
		"no dial":                         {since: 5 * s, until: 9 * s, want: pool.Waited{Queue: 4 * s}},
		"a dial begun for it":             {10 * s, 12 * s, 15 * s, 19 * s, 10 * s, 19 * s, pool.Waited{DNS: 2 * s, Connect: 3 * s, TLS: 4 * s}},
		"without TLS":                     {10 * s, 12 * s, 15 * s, 0, 10 * s, 15 * s, pool.Waited{DNS: 2 * s, Connect: 3 * s}},
		"it waited for a slot before":     {10 * s, 12 * s, 15 * s, 0, 4 * s, 15 * s, pool.Waited{Queue: 6 * s, DNS: 2 * s, Connect: 3 * s}},
		"begun before it came":            {10 * s, 12 * s, 15 * s, 19 * s, 13 * s, 19 * s, pool.Waited{Connect: 2 * s, TLS: 4 * s}},
		"over before it came":             {10 * s, 12 * s, 15 * s, 19 * s, 20 * s, 25 * s, pool.Waited{Queue: 5 * s}},
		"failed at the name":              {10 * s, 14 * s, 0, 0, 10 * s, 14 * s, pool.Waited{DNS: 4 * s}},
		"failed to connect":               {10 * s, 11 * s, 14 * s, 0, 9 * s, 14 * s, pool.Waited{Queue: s, DNS: s, Connect: 3 * s}},
		"what came after the last step":   {10 * s, 11 * s, 12 * s, 0, 10 * s, 14 * s, pool.Waited{Queue: 2 * s, DNS: s, Connect: s}},
		"it gave up before the last step": {10 * s, 11 * s, 15 * s, 0, 10 * s, 13 * s, pool.Waited{DNS: s, Connect: 2 * s}},
	} {
		if got := pool.WaitedOf(c.began, c.resolved, c.connected, c.secured, c.since, c.until); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// heldNames is a resolver that answers when it is told to.
type heldNames struct {
	asked  chan struct{}
	answer chan []netip.Addr
}

func (h heldNames) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	h.asked <- struct{}{}
	select {
	case a := <-h.answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestATicketSaysHowItHasWaited(t *testing.T) {
	u := newUpstream(t)
	h := heldNames{make(chan struct{}, 10), make(chan []netip.Addr, 10)}
	p := newPool(t, func(c *pool.Config) { c.Resolver, c.MaxConnsPerHost = h, 1 })
	o := p.Origin(pool.Lookup{Host: []byte("slow.test"), Port: u.addr.Port()})
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the name is asked for", h.asked)
	h.answer <- []netip.Addr{u.addr.Addr()}
	l := w.lease(t)
	got := w.ticket.Waited()
	if got.DNS <= 0 || got.Connect <= 0 || got.TLS != 0 || got.DNS+got.Connect > p.Snapshot().Dials.Sum {
		t.Errorf("for a new connection: %+v", got)
	}
	if total := got.Queue + got.DNS + got.Connect; p.Snapshot().Waits.Sum != total {
		t.Errorf("%v were waited, %+v", p.Snapshot().Waits.Sum, got)
	}
	second := enqueue(t, p, o, pool.Ticket{Replayable: true})
	l.Release()
	l = second.lease(t)
	if got := second.ticket.Waited(); got.Queue <= 0 || got != (pool.Waited{Queue: got.Queue}) {
		t.Errorf("for one that came free: %+v", got)
	}
	l.Release()
	l, err := o.Acquire(&second.ticket)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.ticket.Waited(); got != (pool.Waited{}) {
		t.Errorf("for one that was idle: %+v", got)
	}
	l.Release()
}

func TestATicketSaysHowItHasWaitedInVain(t *testing.T) {
	p := newPool(t, func(c *pool.Config) { c.Resolver = names{} })
	var k pool.Ticket
	if l, err := p.Origin(pool.Lookup{Host: []byte("none.test"), Port: 80}).Acquire(&k); err == nil {
		l.Discard(pool.NotKept)
		t.Fatal("it does not fail")
	}
	if got := k.Waited(); got.DNS <= 0 || got.Connect+got.TLS != 0 {
		t.Errorf("%+v", got)
	}
}

func TestATicketSaysHowLongTLSTook(t *testing.T) {
	s, _, o := newSecure(t)
	accepted := s.accept()
	var k pool.Ticket
	l, err := o.Acquire(&k)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the server has shaken hands", accepted)
	if got := k.Waited(); got.Connect <= 0 || got.TLS <= 0 {
		t.Errorf("%+v", got)
	}
	l.Release()
}

func TestALeaseSaysWhenTheFirstByteCame(t *testing.T) {
	u := newUpstream(t)
	l := acquire(t, u.origin(newPool(t)), pool.Ticket{})
	first := l.FirstByte()
	testkit.Eventually(t, "the wait for it goes on", func() bool { return l.FirstByte() > first })
	waited := l.FirstByte()
	testkit.Write(t, u.next(), "a")
	var b sock.Buffer
	defer b.Release()
	if err := l.Fill(&b); err != nil {
		t.Fatal(err)
	}
	if came := l.FirstByte(); came < waited || came != l.FirstByte() {
		t.Errorf("it came after %v, when it had been waited for for %v; then it came after %v", came, waited, l.FirstByte())
	}
	l.Discard(pool.NotKept)
}
