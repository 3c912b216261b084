package pool_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// oneByOne is a resolver that answers each time with another address.
type oneByOne struct{ next int }

func (r *oneByOne) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	r.next++
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, byte(r.next)})}, nil
}

// addrsOf returns the figures of the only origin's addresses.
func addrsOf(t *testing.T, p *pool.Pool) []pool.AddrStats {
	t.Helper()
	s := p.Snapshot()
	if len(s.Origins) != 1 {
		t.Fatalf("%d origins", len(s.Origins))
	}
	return s.Origins[0].Addrs
}

// carried returns of figures only what went where.
func carried(all []pool.AddrStats) (list []pool.AddrStats) {
	for _, a := range all {
		list = append(list, pool.AddrStats{Addr: a.Addr, Open: a.Open, Requests: a.Requests})
	}
	return list
}

func TestFiguresByAddressSayWhereRequestsGo(t *testing.T) {
	u := newUpstreamAt(t, "0.0.0.0:0")
	p := newPool(t, func(c *pool.Config) { c.Resolver = &oneByOne{} })
	o := p.Origin(pool.Lookup{Host: []byte("some.host"), Port: u.addr.Port()})
	first := acquire(t, o, pool.Ticket{})
	second := acquire(t, o, pool.Ticket{})
	first.Release()
	for range 5 {
		acquire(t, o, pool.Ticket{}).Release()
	}
	one, two := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	if got, want := carried(addrsOf(t, p)), []pool.AddrStats{{Addr: one, Open: 1, Requests: 6}, {Addr: two, Open: 1, Requests: 1}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	second.Discard(pool.NotKept)
	if got := carried(addrsOf(t, p)); got[1] != (pool.AddrStats{Addr: two, Requests: 1}) {
		t.Errorf("after its connection was closed: %v", got)
	}
	if s := stats(t, p); s.Handshake <= 0 || s.SavedTime <= 0 {
		t.Errorf("a handshake takes %v, %v are saved", s.Handshake, s.SavedTime)
	}
}

func TestFiguresByAddressAreBounded(t *testing.T) {
	u := newUpstreamAt(t, "0.0.0.0:0")
	p := newPool(t, func(c *pool.Config) { c.Resolver = &oneByOne{} })
	o := p.Origin(pool.Lookup{Host: []byte("some.host"), Port: u.addr.Port()})
	const more = 5
	var leases []*pool.Lease
	for range pool.MaxAddrs + more { // all open: those beyond the bound count together
		leases = append(leases, acquire(t, o, pool.Ticket{Fresh: true}))
	}
	got := carried(addrsOf(t, p))
	if n := len(got); n != pool.MaxAddrs+1 || got[n-1] != (pool.AddrStats{Open: more, Requests: more}) {
		t.Errorf("%d addresses: %v", n, got)
	}
	for _, l := range leases {
		l.Discard(pool.NotKept)
	}
	acquire(t, o, pool.Ticket{}).Discard(pool.NotKept) // takes the place of the first
	got = carried(addrsOf(t, p))
	last := netip.AddrFrom4([4]byte{127, 0, 0, pool.MaxAddrs + more + 1})
	if n := len(got); n != pool.MaxAddrs+1 || got[n-1] != (pool.AddrStats{Requests: more + 1}) || got[n-2].Addr != last {
		t.Errorf("%d addresses: %v", n, got)
	}
}

// An address that was tried in vain is known, but carried nothing.
func TestAnAddressThatWasDeadHasNoFigures(t *testing.T) {
	p, o, _, second := twoAddresses(t, time.Second)
	o.Avoid(netip.MustParseAddr("127.0.0.1"), 0)
	acquire(t, o, pool.Ticket{}).Release()
	if got := addrsOf(t, p); len(got) != 1 || got[0].Addr != second.addr.Addr() || o.Avoided() != 1 {
		t.Errorf("%v, %d are avoided", got, o.Avoided())
	}
}
