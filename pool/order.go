package pool

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// maxTargets is how many addresses one dial tries.
const maxTargets = 64

// aim is what a dial prefers.
type aim struct {
	avoid netip.Addr // to be tried last
	first netip.Addr // to be tried first, if nothing speaks against it
	trial bool       // it may go to an endpoint that is on trial
	ahead bool       // no request waits for it
	v6    bool       // the family to be tried first
}

// bid is an address that may be dialled, and what speaks for it.
type bid struct {
	addr netip.Addr
	at   *endpoint // nil: it is not known
	last int       // it is tried behind those with less
	load int       // connections that lead there, or will
	rank uint64
}

// byLoad compares by what is used least.
func byLoad(a, b bid) int {
	return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.load, b.load), cmp.Compare(a.rank, b.rank))
}

// byRank compares by what is preferred.
func byRank(a, b bid) int { return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.rank, b.rank)) }

// aimLocked returns the endpoint that a dial to one of these addresses tries first,
// and the others, in no order. A dial goes where the fewest connections lead, of
// the chosen endpoints and of as many more as there are connections: what a burst
// opens is spread at no cost.
func (o *Origin) aimLocked(addrs []netip.Addr, a aim, now time.Duration) (first *endpoint, bids []bid) {
	s := &o.endpoints
	if a.v6 = s.v6; !s.won && len(addrs) > 0 {
		a.v6 = addrs[0].Unmap().Is6()
	}
	bids = make([]bid, 0, len(addrs))
	for _, addr := range addrs {
		bids = append(bids, s.bid(addr.Unmap(), a, now))
	}
	wide := s.reach(o.holdsLocked(), now)
	best := -1
	for i := range bids {
		b := &bids[i]
		if b.at == nil || !b.at.listed || b.rank > wide {
			b.load += widest // tried behind those, but before those that are last
		}
		if best < 0 || byLoad(*b, bids[best]) < 0 {
			best = i
		}
	}
	if best < 0 {
		return nil, nil
	}
	bids[0], bids[best] = bids[best], bids[0]
	return bids[0].at, bids
}

// bid says what speaks for an address.
func (s *endpoints) bid(addr netip.Addr, a aim, now time.Duration) bid {
	b := bid{addr: addr, at: s.find(addr)}
	if addr == a.avoid {
		b.last = 4
	}
	e := b.at
	if e == nil {
		e = &endpoint{addr: addr, rank: rank(s.identity, addr)}
	}
	b.rank, b.load = e.rank, e.leases.Len()+e.dialing
	switch {
	case b.last > 0:
	case e.leaving, s.told && !e.listed:
		b.last = 3
	case e.bench.sits(now):
		b.last = 2
	case !e.bench.admits(a.trial, e.busy()+e.dialing, now), addr.Is6() != a.v6:
		b.last = 1
	case addr == a.first:
		b.load = -1
	}
	return b
}

// reach returns the greatest rank of the endpoints that a dial goes to where there
// are so many connections.
func (s *roster) reach(conns int, now time.Duration) (most uint64) {
	n := max(s.balance.endpoints(s.full, len(s.peers)), conns+1)
	for _, e := range s.peers {
		if n == 0 {
			break
		}
		if !e.bench.sits(now) {
			most = e.rank
			n--
		}
	}
	return most
}

// targets returns where a dial goes: first first, then the others by what speaks
// for them, with the families taking turns (RFC 8305 section 4).
func targets(bids []bid, port uint16) []netip.AddrPort {
	if len(bids) == 0 {
		return nil
	}
	slices.SortFunc(bids[1:], byRank)
	var alive, last []netip.AddrPort
	for _, b := range bids {
		t := netip.AddrPortFrom(b.addr, port)
		if b.last > 1 {
			last = append(last, t)
		} else {
			alive = append(alive, t)
		}
	}
	all := append(inTurn(alive, bids[0].addr.Is6()), last...)
	return all[:min(len(all), maxTargets)]
}

// order returns the addresses of a host in the order of the answer, with the two
// families taking turns, and last those that were dead a moment ago or have left.
func (s *endpoints) order(addrs []netip.Addr, port uint16, now time.Duration) []netip.AddrPort {
	var alive, dead, left []netip.AddrPort
	for _, a := range addrs {
		a = a.Unmap()
		t := netip.AddrPortFrom(a, port)
		switch {
		case s.left(a):
			left = append(left, t)
		case s.sits(a, now):
			dead = append(dead, t)
		default:
			alive = append(alive, t)
		}
	}
	v6 := len(addrs) > 0 && addrs[0].Unmap().Is6()
	return slices.Concat(inTurn(alive, v6), dead, left)
}

// inTurn returns a list with the two families taking turns as long as there are of
// each, beginning with IPv6 or not.
func inTurn(list []netip.AddrPort, v6 bool) []netip.AddrPort {
	var a, b []netip.AddrPort
	for _, t := range list {
		if t.Addr().Is6() == v6 {
			a = append(a, t)
		} else {
			b = append(b, t)
		}
	}
	out := make([]netip.AddrPort, 0, len(list))
	for len(a)+len(b) > 0 {
		if len(a) > 0 {
			out, a = append(out, a[0]), a[1:]
		}
		if len(b) > 0 {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}
