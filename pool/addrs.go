package pool

import (
	"net/netip"
	"slices"
)

// maxAddrs is how many addresses of an origin have figures of their own.
const maxAddrs = 16

// AddrStats are the figures of one address of an origin. Behind a Kubernetes
// Service with a cluster IP that one stands for all pods.
type AddrStats struct {
	// Addr is the address; the zero Addr stands for all that have no figures of
	// their own, or none any more.
	Addr netip.Addr
	// Open is how many connections lead there now.
	Open int
	// Requests counts exchanges on connections that lead there.
	Requests uint64
}

// addrs are the figures of an origin's addresses. The zero value is ready. The
// origin's mutex guards it and what it gives out.
type addrs struct {
	known []*AddrStats
	rest  AddrStats
}

// opened notes a new connection, and an exchange on it, and returns the figures
// it counts in until it is closed.
func (a *addrs) opened(addr netip.Addr) *AddrStats {
	s := a.of(addr)
	s.Open++
	s.Requests++
	return s
}

func (a *addrs) of(addr netip.Addr) *AddrStats {
	for _, s := range a.known {
		if s.Addr == addr {
			return s
		}
	}
	if len(a.known) == maxAddrs && !a.forget() {
		return &a.rest
	}
	s := &AddrStats{Addr: addr}
	a.known = append(a.known, s)
	return s
}

// forget makes room: of the addresses without a connection the one that was met
// first goes.
func (a *addrs) forget() bool {
	i := slices.IndexFunc(a.known, func(s *AddrStats) bool { return s.Open == 0 })
	if i < 0 {
		return false
	}
	a.rest.Requests += a.known[i].Requests
	a.known = slices.Delete(a.known, i, i+1)
	return true
}

// snapshot returns the figures as they are now, those of the rest last.
func (a *addrs) snapshot() []AddrStats {
	list := make([]AddrStats, 0, len(a.known)+1)
	for _, s := range a.known {
		list = append(list, *s)
	}
	if a.rest.Requests > 0 {
		list = append(list, a.rest)
	}
	return list
}
