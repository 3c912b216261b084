package pool

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// roster is which of an origin's addresses are used. Reuse comes first: an origin
// uses as few of them as its requests keep warm, each instance of carpool its own
// (see rank). The zero value knows no address.
type roster struct {
	identity string
	told     bool         // by moved, or else by what the last look-up found
	set      []netip.Addr // what it was told, as it was told
	ranked   []*endpoint  // the addresses of the name, by rank
	peers    []*endpoint  // those of them that are of the family that won
	v6, won  bool         // the family that won, if one has
	chosen   []*endpoint  // those in use; of peers, as long as not all of these are benched
	was      []*endpoint  // room for the next choice
	excused  bool         // all are benched, so none is

	balance balance
	hint    time.Duration // what an upstream said last of how long its connections may idle; 0: nothing
	revised time.Duration // when the choice is made anew; 0: at once
	full    int           // how many connections are in turn, if there are enough
	movedAt time.Duration // when addresses went last
	leavers bool          // some that went still have connections
}

const (
	// maxSet bounds the addresses of a name that are used.
	maxSet = 1024
	// reviseEvery is how often the choice is made anew.
	reviseEvery = 100 * time.Millisecond
	// rampFor is in what time a new endpoint's share grows to what others have.
	rampFor = 5 * time.Second
)

// learn notes what a look-up has found, unless moved tells what there is. Addresses
// that it did not find may have been left out: some servers name a few of many each
// time.
func (s *endpoints) learn(addrs []netip.Addr, now time.Duration) {
	if !s.told && !slices.Equal(s.set, addrs) {
		s.list(addrs, now)
	}
}

// learnMore notes addresses that a look-up has found late.
func (s *endpoints) learnMore(addrs []netip.Addr, now time.Duration) {
	if !s.told {
		s.list(append(slices.Clone(s.set), addrs...), now)
	}
}

// move notes that the name has these addresses now, and no others. Those it does not
// have any more leave.
func (s *endpoints) move(addrs []netip.Addr, now time.Duration) {
	first := len(s.ranked) == 0
	if s.told && slices.Equal(s.set, addrs) {
		return
	}
	s.told, s.movedAt, s.leavers = true, now, false
	before := make(map[*endpoint]bool, len(s.ranked))
	for _, e := range s.ranked {
		before[e] = true
	}
	s.list(addrs, now)
	for _, e := range s.known {
		if e.leaving = !e.listed; e.leaving {
			s.leavers = true
		}
		if e.listed && !before[e] && !first {
			e.since = now
		}
	}
}

// list makes these the addresses of the name.
func (s *endpoints) list(addrs []netip.Addr, now time.Duration) {
	for _, e := range s.ranked {
		e.listed = false
	}
	s.set, s.ranked = slices.Clone(addrs), s.ranked[:0]
	for _, a := range addrs[:min(len(addrs), maxSet)] {
		a = a.Unmap()
		e := s.find(a)
		if e == nil {
			e = s.add(a)
		}
		if !e.listed {
			e.listed = true
			s.ranked = append(s.ranked, e)
		}
	}
	slices.SortFunc(s.ranked, func(a, b *endpoint) int { return cmp.Compare(a.rank, b.rank) })
	s.prune(now)
	s.match()
}

// match finds the peers.
func (s *roster) match() {
	s.revised = 0
	s.peers = s.peers[:0]
	for _, e := range s.ranked {
		if s.won && e.addr.Is6() == s.v6 {
			s.peers = append(s.peers, e)
		}
	}
	if len(s.peers) == 0 { // the family that won is gone, or none has
		s.won = false
		s.peers = append(s.peers, s.ranked...)
	}
}

// wins notes that a dial has reached an address. The family of the first one is
// used from then on.
func (s *roster) wins(a netip.Addr) {
	if !s.won || s.excused && a.Is6() != s.v6 {
		s.won, s.v6 = true, a.Is6()
		s.match()
	}
}

// choose chooses n endpoints, over whose connections so many are in turn.
func (s *roster) choose(n, width int, now time.Duration) {
	s.was, s.chosen = s.chosen, s.was[:0]
	for _, e := range s.was {
		e.chosen = false
	}
	for _, e := range s.peers {
		if len(s.chosen) < n && !e.bench.sits(now) {
			s.chosen = append(s.chosen, e)
		}
	}
	if s.excused = len(s.chosen) == 0; s.excused {
		s.chosen = append(s.chosen, s.ranked[:min(n, len(s.ranked))]...)
	}
	lanes := 0
	if len(s.chosen) == len(s.peers) { // what is left of the width goes behind each address
		if lanes = width / max(len(s.chosen), 1); lanes < 2 {
			lanes = 0 // the one used last is used first
		}
	}
	for _, e := range s.chosen {
		e.chosen = true
		e.idle.widen(lanes)
	}
	for _, e := range s.was {
		if !e.chosen {
			e.idle.widen(0)
		}
	}
	clear(s.was)
}

// reviseLocked makes the choice anew, and reports whether a connection is due that
// no request waits for.
func (o *Origin) reviseLocked(now time.Duration) (due bool) {
	s, b := &o.endpoints, &o.endpoints.balance
	s.revised = now + reviseEvery
	b.alone = o.manners.alone(now)
	width := b.width(now, o.manners.usable(s.hint, false))
	n := b.endpoints(width, len(s.peers))
	if len(o.shared.carriers) > 0 {
		width = min(width, max(n, fewCarriers))
	}
	s.choose(n, width, now)
	s.full = max(n, width)
	return b.due(now, s.full, o.openLocked()+o.queue.dialing) || s.missing(now) != nil
}

// missing returns an endpoint that has come to others a moment ago and has no
// connection yet; nil if there is none.
func (s *roster) missing(now time.Duration) *endpoint {
	for _, e := range s.chosen {
		if e.since > 0 && now-e.since < rampFor && e.leases.Len()+e.dialing == 0 && e.bench.why == "" {
			return e
		}
	}
	return nil
}

// young reports whether the endpoint leaves a request to another, because it is
// new and its share grows still. chance is a random number from 0 to 1.
func (e *endpoint) young(chance float64, now time.Duration) bool {
	if e.since == 0 {
		return false
	}
	age := now - e.since
	if age >= rampFor {
		e.since = 0
		return false
	}
	return chance > max(float64(age)/float64(rampFor), 0.1)
}
