package names

import (
	"net/netip"
	"slices"
	"time"
)

// Set are the addresses of a name at one time. It never changes.
type Set struct {
	// Gen grows when an address comes or goes. In sets of one name that have the same
	// Gen, only the order differs.
	Gen uint64
	// Addrs are the addresses: those of the last answer in its order, the family
	// first that is likelier to work, and then those that it did not name.
	Addrs []netip.Addr
	// Missing is how many of them, at the end, the last answer did not name. They go
	// if those to come do not name them either.
	Missing int
	// whole is false if there may be more, of the other family.
	whole bool
}

const (
	// maxAddrs is how many addresses a Set has at most.
	maxAddrs = 256
	// goneAfter is in how many answers in turn an address has to be missing, and
	// goneFor for how long, before it goes. Where more than one in everyFew of those
	// that an answer names have come back after they had gone, answers rotate, and
	// both double, up to most. Fewer come back where servers are restarted one by one.
	goneAfter, mostGoneAfter = 2, 32
	goneFor, mostGoneFor     = 5 * time.Second, 5 * time.Minute
	everyFew                 = 3
	// backWithin is how soon an address has to come back for that; a name of which
	// none has for restedAfter begins anew.
	backWithin  = 5 * time.Minute
	restedAfter = 10 * time.Minute
	// maxLeft bounds the addresses of which it is known that they have gone.
	maxLeft = 256
)

// member is an address that a name has, or had a moment ago.
type member struct {
	addr   netip.Addr
	missed int       // answers since the last that has named it
	seen   time.Time // when that was
}

// memory makes sets of answers: of answers that each name a few of many addresses,
// it makes one set of all. The zero value is ready.
type memory struct {
	members []member // as in Set.Addrs
	anew    bool     // what comes next is the first answer in a while
	doubts  bool     // of members that the last answer should have named
	gen     uint64
	left    map[netip.Addr]time.Time // which have gone, and when
	after   int                      // see goneAfter; 0 is that
	stay    time.Duration            // see goneFor
	back    time.Time                // when an address last came back
}

// restart has the next answer alone count.
func (m *memory) restart() { m.anew = true }

// clear forgets all members.
func (m *memory) clear() {
	if len(m.members) > 0 {
		m.members = nil
		m.gen++
	}
}

// rotates reports whether answers are known to name a few of many addresses each.
func (m *memory) rotates() bool { return m.after > goneAfter }

// take makes a set of an answer. Members that it could not have named, by what
// known says, stay.
func (m *memory) take(addrs []netip.Addr, known func(netip.Addr) bool, now time.Time) *Set {
	m.learn(addrs, now)
	m.doubts = false
	next := make([]member, 0, len(addrs)+len(m.members))
	for _, a := range addrs {
		if len(next) < maxAddrs && !slices.ContainsFunc(next, func(n member) bool { return n.addr == a }) {
			next = append(next, member{addr: a, seen: now})
		}
	}
	named := len(next)
	for _, old := range m.members {
		if slices.ContainsFunc(next[:named], func(n member) bool { return n.addr == old.addr }) {
			continue
		}
		if known(old.addr) {
			old.missed++
		}
		if !m.anew && len(next) < maxAddrs && (old.missed < m.after || now.Sub(old.seen) < m.stay) {
			next = append(next, old)
			m.doubts = m.doubts || old.missed > 0
		} else {
			m.gone(old.addr, now)
		}
	}
	if !sameMembers(m.members, next) {
		m.gen++
	}
	m.members, m.anew = next, false
	s := &Set{Gen: m.gen, Addrs: make([]netip.Addr, len(next)), Missing: len(next) - named}
	for i := range next {
		s.Addrs[i] = next[i].addr
	}
	return s
}

// learn finds out whether addresses come back that have gone.
func (m *memory) learn(addrs []netip.Addr, now time.Time) {
	if m.after == 0 || now.Sub(m.back) > restedAfter {
		m.after, m.stay = goneAfter, goneFor
	}
	came := 0
	for _, a := range addrs {
		if left, was := m.left[a]; was {
			if now.Sub(left) <= backWithin {
				came++
			}
			delete(m.left, a)
		}
	}
	if came == 0 {
		return
	}
	m.back = now
	if m.rotates() || came*everyFew > len(addrs) {
		m.after, m.stay = min(m.after*2, mostGoneAfter), min(m.stay*2, mostGoneFor)
	}
}

func (m *memory) gone(a netip.Addr, now time.Time) {
	if m.left == nil || len(m.left) >= maxLeft {
		m.left = map[netip.Addr]time.Time{}
	}
	m.left[a] = now
}

func sameMembers(a, b []member) bool {
	if len(a) != len(b) {
		return false
	}
	in := make(map[netip.Addr]bool, len(a))
	for _, m := range a {
		in[m.addr] = true
	}
	return !slices.ContainsFunc(b, func(m member) bool { return !in[m.addr] })
}
