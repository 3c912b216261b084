package pool_test

import (
	"net/netip"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

// fleet is servers on addresses of their own, all of one name and on one port.
type fleet struct {
	all   *upstream // accepts for all of them
	pool  *pool.Pool
	o     *pool.Origin
	addrs []netip.Addr
}

func newFleet(t testing.TB, n int, change ...func(*pool.Config)) *fleet {
	t.Helper()
	f := &fleet{all: newUpstreamAt(t, "0.0.0.0:0")}
	for i := range n {
		f.addrs = append(f.addrs, loopback(byte(i+1))...)
	}
	f.pool = newPool(t, append([]func(*pool.Config){func(c *pool.Config) {
		c.Resolver = names{"fleet.test": f.addrs}
	}}, change...)...)
	f.o = f.pool.Origin(pool.Lookup{Host: []byte("fleet.test"), Port: f.all.addr.Port()})
	return f
}

// at opens connections to each address and makes them idle.
func (f *fleet) open(t testing.TB, each int) {
	t.Helper()
	var leases []*pool.Lease
	counts := map[netip.Addr]int{}
	for range each * len(f.addrs) {
		l := acquire(t, f.o, pool.Ticket{Fresh: true})
		counts[l.Addr().Addr()]++
		leases = append(leases, l)
	}
	for _, a := range f.addrs {
		if counts[a] != each {
			t.Fatalf("connections lead to %v, want %d each", counts, each)
		}
	}
	for _, l := range leases {
		l.Release()
	}
}

// figuresOf returns the figures of an address.
func figuresOf(t testing.TB, p *pool.Pool, a netip.Addr) pool.AddrStats {
	t.Helper()
	for _, f := range p.Snapshot().Origins[0].Addrs {
		if f.Addr == a {
			return f
		}
	}
	return pool.AddrStats{}
}
