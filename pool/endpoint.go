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
	// fewKnown is how many endpoints are looked through one by one.
	fewKnown = 8
)

// endpoint is one address of an origin: a server, or a Service behind which there
// are many.
type endpoint struct {
	addr    netip.Addr
	rank    uint64            // see rank
	leases  list.List[*Lease] // the connections that lead there, idle or in use, oldest first
	idle    resting           // those that are idle
	dialing int               // dials that try it first
	riding  int               // requests that share a connection with another
	named   bool              // it has figures of its own
	// requests counts exchanges on connections that lead there, since it has
	// figures of its own or since it is known.
	requests uint64
	heard    int    // of the connections, those on which an answer has come
	stalled  *Lease // in use, and another that comes back is to make room for it; nil: none

	listed  bool          // the name has this address
	leaving bool          // the name had it when it was told last
	chosen  bool          // it is one of those that are used
	since   time.Duration // when it came to others that were there; 0: it did not
	bench   bench
	load    load
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

// busy is how many requests it has: one on each connection that is in use, and those
// that share one.
func (e *endpoint) busy() int { return e.leases.Len() - e.idle.len() + e.riding }

// endpoints are the addresses of an origin that the name has, that have
// connections, are benched, or have figures; and the choice among them. The zero
// value is ready. The origin's mutex guards it and all that it gives out.
type endpoints struct {
	known []*endpoint              // those met first come first
	index map[netip.Addr]*endpoint // of known, if these are more than a few; or else nil
	rest  uint64                   // requests to what has no figures of its own any more
	roster
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
	if s.told && !e.listed && l.begun <= s.movedAt { // it has left while this was dialled
		e.leaving, s.leavers = true, true
	}
}

// closed notes that a connection is no more.
func (s *endpoints) closed(l *Lease) {
	e := l.endpoint
	e.leases.Remove(&l.sibling)
	e.idle.leave(l)
	e.settled(l)
	if l.heard.Load() {
		e.heard--
	}
}

// settle takes in what an exchange says of its endpoint, which is over and went
// well if whole.
func (s *endpoints) settle(l *Lease, whole bool, now time.Duration) {
	e, r := l.endpoint, l.report
	l.report = report{}
	before := e.bench.why
	switch {
	case r.overloaded > 0:
		e.bench.keep(benchOverloaded, r.overloaded, now)
	case r.failed:
		if e.load.failed(now) {
			e.bench.begin(benchFailing, now)
		}
	case whole && r.began > 0: // or else nothing was sent
		e.load.answered(r.took, now)
		if e.bench.tried(now) {
			e.bench.end()
		}
	}
	if e.bench.why != before {
		s.revised = 0
	}
}

// setAside puts an endpoint on the bench.
func (s *endpoints) setAside(a netip.Addr, why string, now time.Duration) {
	s.at(a, now).bench.begin(why, now)
	s.revised = 0
}

// sits reports whether an address is to be tried last.
func (s *endpoints) sits(a netip.Addr, now time.Duration) bool {
	e := s.find(a)
	return e != nil && e.bench.sits(now)
}

// left reports whether the name does not have an address any more.
func (s *endpoints) left(a netip.Addr) bool {
	if !s.told {
		return false
	}
	e := s.find(a)
	return e == nil || !e.listed
}

// find returns the endpoint at an address, nil if it is not known.
func (s *endpoints) find(a netip.Addr) *endpoint {
	if s.index != nil {
		return s.index[a]
	}
	for _, e := range s.known {
		if e.addr == a {
			return e
		}
	}
	return nil
}

// at returns the endpoint at an address.
func (s *endpoints) at(a netip.Addr, now time.Duration) *endpoint {
	if e := s.find(a); e != nil {
		return e
	}
	s.prune(now)
	return s.add(a)
}

func (s *endpoints) add(a netip.Addr) *endpoint {
	e := &endpoint{addr: a, rank: rank(s.identity, a)}
	s.known = append(s.known, e)
	switch {
	case s.index != nil:
		s.index[a] = e
	case len(s.known) > fewKnown:
		s.index = make(map[netip.Addr]*endpoint, 2*fewKnown)
		for _, e := range s.known {
			s.index[e.addr] = e
		}
	}
	return e
}

// prune forgets the endpoints of which nothing is to be remembered.
func (s *endpoints) prune(now time.Duration) {
	s.known = slices.DeleteFunc(s.known, func(e *endpoint) bool {
		if e.listed || e.named || e.bench.sits(now) || e.dialing+e.leases.Len() > 0 {
			return false
		}
		s.rest += e.requests
		delete(s.index, e.addr)
		return true
	})
	if len(s.known) <= fewKnown {
		s.index = nil
	}
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
