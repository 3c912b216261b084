package pool_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

// borrowTunnel acquires a connection for a tunnel.
func borrowTunnel(p *pool.Pool, host string, port uint16) (*pool.Lease, error) {
	return p.Origin(pool.Lookup{Host: []byte(host), Port: port}).Acquire(&pool.Ticket{Virgin: true})
}

// A tunnel is a lease like any other, but for where its connection comes from and
// what becomes of it.
func TestATunnelGetsAConnectionThatHasCarriedNothing(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	used := acquire(t, o, pool.Ticket{})
	u.next()
	used.Release()
	l := acquire(t, o, pool.Ticket{Virgin: true, Replayable: true})
	peer := u.next()
	if l.Reused() || !joins(l, peer) {
		t.Error("it has been used")
	}
	l.Discard(pool.Tunnelled)
	if s := stats(t, p); s.Opened != 2 || s.Reused != 0 || s.Idle != 1 || s.Closed[pool.Tunnelled] != 1 {
		t.Errorf("%+v", s)
	}
	if got := addrsOf(t, p); len(got) != 1 || got[0].Requests != 2 || got[0].Open != 1 {
		t.Errorf("by address: %v", got)
	}
	checkBalance(t, p)
}

// What comes free while a tunnel waits for its connection is not for it.
func TestATunnelIsNotHandedAUsedConnection(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.MaxConnsPerHost = 1 })
	o := u.origin(p)
	l := acquire(t, o, pool.Ticket{})
	first := u.next()
	w := enqueue(t, p, o, pool.Ticket{Virgin: true})
	l.Release()
	tunnel := w.lease(t)
	if joins(tunnel, first) || tunnel.Reused() {
		t.Error("it has been used")
	}
	tunnel.Discard(pool.Tunnelled)
	checkBalance(t, p)
}

// A tunnel's connection that is there too late is of no use to requests: what
// answers there may be no HTTP.
func TestAConnectionForATunnelThatIsNoMoreIsClosed(t *testing.T) {
	u := newUpstream(t)
	held := holding{make(chan struct{}), u.addr.Addr()}
	p := newPool(t, func(c *pool.Config) { c.Resolver = held })
	o := p.Origin(pool.Lookup{Host: []byte("slow.test"), Port: u.addr.Port()})
	w := enqueue(t, p, o, pool.Ticket{Virgin: true})
	o.Cancel(&w.ticket)
	if err := w.fails(t); !errors.Is(err, pool.ErrCanceled) {
		t.Fatal(err)
	}
	close(held.until)
	closedFor(t, p, pool.ClientGone, 1)
	if s := stats(t, p); s.Idle != 0 {
		t.Errorf("%+v", s)
	}
}

// holding is a resolver whose answers wait.
type holding struct {
	until chan struct{}
	addr  netip.Addr
}

func (h holding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	<-h.until
	return []netip.Addr{h.addr}, nil
}
