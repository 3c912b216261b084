package pool

import (
	"net/netip"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

const (
	// maxAddrs is how many addresses of an origin have figures of their own.
	maxAddrs = 16
	// benchFor is how long an address that was dead is tried last.
	benchFor = 30 * time.Second
)

// endpoint is one address of an origin.
type endpoint struct {
	addr    netip.Addr
	leases  list.List[*Lease] // the connections that lead there, idle or in use
	benched time.Duration     // until when it is tried last; 0: it is not
	named   bool              // it has figures of its own
	// requests counts exchanges on connections that lead there, since it has
	// figures of its own or since it is known.
	requests uint64
	heard    int    // of the connections, those on which an answer has come
	stalled  *Lease // in use, and another that comes back is to make room for it; nil: none
}

// answered notes that an answer has come on a connection for the first time.
func (e *endpoint) answered(l *Lease) {
	e.heard++
	e.settled(l)
}

// settled notes that no room is needed for a connection, or no more.
func (e *endpoint) settled(l *Lease) {
	if e.stalled == l {
		e.stalled = nil
	}
}

// endpoints are the addresses of an origin that have connections, are benched, or
// have figures. The zero value is ready. The origin's mutex guards it and all
// that it gives out.
type endpoints struct {
	known []*endpoint // those met first come first
	rest  uint64      // requests to what has no figures of its own any more
}

// opened notes a new connection, and an exchange on it.
func (s *endpoints) opened(l *Lease, now time.Duration) {
	e := s.at(l.addr.Addr(), now)
	if !e.named && s.hasRoom() {
		s.rest += e.requests
		e.named, e.requests = true, 0
	}
	e.requests++
	e.leases.PushBack(&l.sibling)
	l.endpoint, l.opened = e, now
}

// closed notes that a connection is no more.
func (s *endpoints) closed(l *Lease) {
	e := l.endpoint
	e.leases.Remove(&l.sibling)
	e.settled(l)
	if l.heard.Load() {
		e.heard--
	}
}

// bench has an address tried last for a while.
func (s *endpoints) bench(a netip.Addr, now time.Duration) {
	s.at(a, now).benched = now + benchFor
}

// unbench ends what bench began.
func (s *endpoints) unbench(a netip.Addr) {
	if e := s.find(a); e != nil {
		e.benched = 0
	}
}

// isBenched reports whether an address is to be tried last.
func (s *endpoints) isBenched(a netip.Addr, now time.Duration) bool {
	e := s.find(a)
	return e != nil && now < e.benched
}

func (s *endpoints) find(a netip.Addr) *endpoint {
	for _, e := range s.known {
		if e.addr == a {
			return e
		}
	}
	return nil
}

func (s *endpoints) at(a netip.Addr, now time.Duration) *endpoint {
	e := s.find(a)
	if e == nil {
		s.prune(now)
		e = &endpoint{addr: a}
		s.known = append(s.known, e)
	}
	return e
}

// prune forgets the endpoints of which nothing is to be remembered.
func (s *endpoints) prune(now time.Duration) {
	s.known = slices.DeleteFunc(s.known, func(e *endpoint) bool {
		if now >= e.benched {
			e.benched = 0
		}
		if e.named || e.benched > 0 || e.leases.Len() > 0 {
			return false
		}
		s.rest += e.requests
		return true
	})
}

// hasRoom reports whether one more may have figures of its own. If need be the
// one that was met first of those without a connection loses its own.
func (s *endpoints) hasRoom() bool {
	named, unused := 0, (*endpoint)(nil)
	for _, e := range s.known {
		if !e.named {
			continue
		}
		named++
		if unused == nil && e.leases.Len() == 0 {
			unused = e
		}
	}
	if named < maxAddrs {
		return true
	}
	if unused != nil {
		unused.named = false
	}
	return unused != nil
}

// order returns the addresses of a host in the order in which they are tried, with
// the two families taking turns (RFC 8305 section 4), and those that were dead
// a moment ago last.
func (s *endpoints) order(addrs []netip.Addr, port uint16, now time.Duration) []netip.AddrPort {
	var families [2][]netip.AddrPort
	var last []netip.AddrPort
	first := 0
	for i, a := range addrs {
		a = a.Unmap()
		f := 0
		if a.Is6() {
			f = 1
		}
		if i == 0 {
			first = f
		}
		t := netip.AddrPortFrom(a, port)
		if s.isBenched(a, now) {
			last = append(last, t)
		} else {
			families[f] = append(families[f], t)
		}
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	a, b := families[first], families[1-first]
	for len(a)+len(b) > 0 {
		if len(a) > 0 {
			out, a = append(out, a[0]), a[1:]
		}
		if len(b) > 0 {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(out, last...)
}

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

// snapshot returns the figures as they are now, those of the rest last.
func (s *endpoints) snapshot() []AddrStats {
	figures := make([]AddrStats, 0, len(s.known)+1)
	rest := AddrStats{Requests: s.rest}
	for _, e := range s.known {
		if e.named {
			figures = append(figures, AddrStats{e.addr, e.leases.Len(), e.requests})
		} else {
			rest.Open += e.leases.Len()
			rest.Requests += e.requests
		}
	}
	if rest.Requests > 0 {
		figures = append(figures, rest)
	}
	return figures
}
