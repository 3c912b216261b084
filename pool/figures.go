package pool

import (
	"net/netip"
	"time"
)

// AddrStats are the figures of one address of an origin. Behind a Kubernetes
// Service with a cluster IP that one stands for all pods.
type AddrStats struct {
	// Addr is the address; the zero Addr stands for all that have no figures of
	// their own, or none any more.
	Addr netip.Addr
	// Open is how many connections lead there now, InUse how many of them are in use.
	Open, InUse int
	// Requests counts exchanges on connections that lead there.
	Requests uint64
	// Latency is how long it takes to answer, of late; 0 if that is not known.
	Latency time.Duration
	// Chosen says that requests go there by choice; others are used when those are
	// busy or do not work.
	Chosen bool
	// InTurn is how many of its connections are used in turn; 0: the one used last is
	// used first.
	InTurn int
	// Benched says why no request goes there for now, "" if that is not so, and
	// BenchedFor for how long still; 0: it is on trial.
	Benched    string
	BenchedFor time.Duration
	// Leaving says that the name does not have the address any more.
	Leaving bool
}

// figures are an endpoint's, as they are now.
func (e *endpoint) figures(now time.Duration) AddrStats {
	f := AddrStats{
		Addr: e.addr, Open: e.leases.Len(), InUse: e.busy(), Requests: e.requests,
		Latency: e.load.latency, Chosen: e.chosen, InTurn: e.idle.lanes, Benched: e.bench.why, Leaving: e.leaving,
	}
	if e.bench.sits(now) {
		f.BenchedFor = e.bench.until - now
	}
	return f
}

// snapshot returns the figures as they are now, those of the rest last.
func (s *endpoints) snapshot(now time.Duration) []AddrStats {
	figures := make([]AddrStats, 0, min(len(s.known), maxAddrs)+1)
	rest := AddrStats{Requests: s.rest}
	for _, e := range s.known {
		if e.named {
			figures = append(figures, e.figures(now))
		} else {
			rest.Open += e.leases.Len()
			rest.InUse += e.busy()
			rest.Requests += e.requests
		}
	}
	if rest.Requests > 0 {
		figures = append(figures, rest)
	}
	return figures
}
