package pool

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

// idleConns are the idle connections of an origin, in the order of their use over
// all addresses: what is idle longest is closed first, wherever it leads. Each is
// in a list of its endpoint too, by which it is chosen. The zero value is ready.
// The origin's mutex guards it.
type idleConns struct {
	free   list.List[*Lease] // most recently used first
	pinned list.List[*Lease] // likewise, and each for one borrower alone, or for many at a time
	ready  list.List[*Lease] // spare tunnels, the one opened last first
}

// place is where an idle connection is: among all of its origin, and among those
// of its endpoint. The zero value is of one that is not idle.
type place struct{ all, own list.Node[*Lease] }

func (p *place) init(l *Lease) { p.all.Value, p.own.Value = l, l }

// Listed reports whether the connection is idle.
func (p *place) Listed() bool { return p.all.Listed() }

// Leave takes the connection out of where it is.
func (p *place) Leave() {
	p.all.Leave()
	p.own.Leave()
}

// resting are the idle connections of an endpoint. Some of all its connections may
// be used in turn: behind one address each may lead to another server. The others
// are a reserve. What is not needed of that grows old.
type resting struct {
	turn    list.List[*Lease] // used in turn: those whose turn it is, then the next
	spare   list.List[*Lease] // most recently used first
	apart   list.List[*Lease] // not for any request: pinned, or spare tunnels
	lanes   int               // how many connections are used in turn; 0: none is
	members int               // how many are by now, idle or not
}

// len returns how many there are.
func (r *resting) len() int { return r.turn.Len() + r.spare.Len() + r.apart.Len() }

// enlist has a new connection used in turn, if there are not enough.
func (r *resting) enlist(l *Lease) {
	if r.members < r.lanes {
		l.inTurn = true
		r.members++
	}
}

// put adds a connection.
func (r *resting) put(l *Lease) {
	if l.pinned || l.ready || l.carrier != nil {
		r.leave(l)
		r.apart.PushFront(&l.node.own)
		return
	}
	switch {
	case l.inTurn && r.members > r.lanes:
		r.leave(l)
	case !l.inTurn:
		r.enlist(l)
	}
	if l.inTurn {
		r.queueUp(l)
	} else {
		stack(&r.spare, &l.node.own)
	}
}

// turnLasts is how long a connection is preferred once its turn has come. What was
// used a moment ago is still in the processor's cache, here and at the upstream.
// With 600 requests a second to each of 100 upstreams, a request that takes the
// coldest one costs a tenth more CPU. Over ten seconds the shares of servers are the
// same (docs/BALANCE.md). Requests that are further apart take a connection each.
const turnLasts = 100 * time.Millisecond

// queueUp puts a connection in front if it is still its turn, or else behind those
// that were used before it.
func (r *resting) queueUp(l *Lease) {
	if l.turnBegan != 0 && l.idleSince-l.turnBegan < turnLasts {
		r.turn.PushFront(&l.node.own)
		return
	}
	l.turnBegan = 0
	r.lineUp(l)
}

// lineUp puts a connection behind those that were used before it.
func (r *resting) lineUp(l *Lease) {
	next := (*list.Node[*Lease])(nil)
	for n := r.turn.Back(); n != nil && n.Value.idleSince > l.idleSince; n = n.Prev() {
		next = n
	}
	if next == nil {
		r.turn.PushBack(&l.node.own)
	} else {
		r.turn.InsertBefore(&l.node.own, next)
	}
}

// endTurns sends those back whose turn has ended while they were idle.
func (r *resting) endTurns(now time.Duration) {
	for n := r.turn.Front(); n != nil; n = r.turn.Front() {
		l := n.Value
		if l.turnBegan == 0 || now-l.turnBegan < turnLasts {
			return
		}
		r.turn.Remove(n)
		l.turnBegan = 0
		r.lineUp(l)
	}
}

// stack puts a connection in front of those that were used before it.
func stack(in *list.List[*Lease], n *list.Node[*Lease]) {
	next := in.Front()
	for next != nil && next.Value.idleSince > n.Value.idleSince {
		next = next.Next()
	}
	if next == nil {
		in.PushBack(n)
	} else {
		in.InsertBefore(n, next)
	}
}

// leave has a connection used in turn no more, if it was.
func (r *resting) leave(l *Lease) {
	if l.inTurn {
		l.inTurn = false
		r.members--
	}
}

// widen has so many connections used in turn. Of those that are in use some may leave
// as they come back.
func (r *resting) widen(lanes int) {
	r.lanes = lanes
	for n := r.turn.Front(); n != nil && r.members > lanes; n = r.turn.Front() {
		r.turn.Remove(n)
		r.leave(n.Value)
		r.spare.PushFront(n)
	}
}

// pick returns the connection that the request is to have, nil if it may have none.
func (r *resting) pick(q *request) *Lease {
	if r.members < r.lanes {
		if l := r.pickSpare(q); l != nil {
			return l
		}
		return r.pickTurn(q)
	}
	if l := r.pickTurn(q); l != nil {
		return l
	}
	return r.pickSpare(q)
}

// pickTurn returns the connection whose turn it is. The oldest few rest before
// requests that cannot be sent twice.
func (r *resting) pickTurn(q *request) *Lease {
	r.endTurns(q.now)
	for n := r.turn.Front(); n != nil; n = n.Next() {
		if q.fits(n.Value) {
			return youngest(n, min(max(r.lanes/fewUsedLast, 1), fewUsedLast), q)
		}
	}
	return nil
}

// pickSpare returns one of the connections that were used last.
func (r *resting) pickSpare(q *request) *Lease {
	n := r.spare.Front()
	for n != nil && !q.rested(n.Value) {
		n = n.Next()
	}
	if n == nil || !q.fits(n.Value) {
		return nil
	}
	return youngest(n, fewUsedLast, q)
}

func (s *idleConns) len() int { return s.free.Len() + s.pinned.Len() + s.ready.Len() }

// put makes a connection idle that has been so since then. That is now, unless it
// was lent meanwhile and not touched.
func (s *idleConns) put(l *Lease, since time.Duration) {
	l.idleSince = since
	l.endpoint.idle.put(l)
	switch {
	case l.ready:
		s.ready.PushFront(&l.node.all)
	case l.pinned, l.carrier != nil:
		s.pinned.PushFront(&l.node.all)
	default:
		stack(&s.free, &l.node.all)
	}
}

// pick returns one of the connections that were used last of those that the
// request may have, wherever they lead; nil if there is none.
func (s *idleConns) pick(q *request) *Lease {
	n := s.free.Front()
	for n != nil && !(q.rested(n.Value) && q.mayUse(n.Value.endpoint)) {
		n = n.Next()
	}
	if n == nil || !q.fits(n.Value) {
		return nil
	}
	return youngest(n, fewUsedLast, q)
}

// fewUsedLast is how many connections a request that cannot be sent twice
// chooses from.
const fewUsedLast = 4

// youngest returns n's connection or, for a request that cannot be sent twice, the
// one that was opened last of the few from n on that it may have. In a rollout the
// servers that end are those that have been there for long.
func youngest(n *list.Node[*Lease], few int, q *request) *Lease {
	youngest := n.Value
	if q.replayable {
		return youngest
	}
	for range few - 1 {
		if n = n.Next(); n == nil || !q.fits(n.Value) {
			break
		}
		if n.Value.id > youngest.id && q.mayUse(n.Value.endpoint) {
			youngest = n.Value
		}
	}
	return youngest
}

// takePinned takes a pinned connection, if it is still there.
func (s *idleConns) takePinned(l *Lease) bool {
	if !s.pinned.Has(&l.node.all) {
		return false
	}
	l.node.Leave()
	return true
}

// surplus takes the connection that others used longest ago if there are more
// than most of them.
func (s *idleConns) surplus(most int) *Lease {
	if s.free.Len() <= most {
		return nil
	}
	l := s.free.Back().Value
	l.node.Leave()
	return l
}

// longest returns the connection that has been idle longest, nil if none is idle.
func (s *idleConns) longest() (longest *Lease) {
	for _, in := range s.lists() {
		if n := in.Back(); n != nil && (longest == nil || n.Value.idleSince < longest.idleSince) {
			longest = n.Value
		}
	}
	return longest
}

// lists returns all there are, in each of which the one idle longest is last.
func (s *idleConns) lists() [3]*list.List[*Lease] {
	return [...]*list.List[*Lease]{&s.free, &s.pinned, &s.ready}
}

// takeLongest takes the connection that has been idle longest, nil if none is.
func (s *idleConns) takeLongest() *Lease {
	l := s.longest()
	if l != nil {
		l.node.Leave()
	}
	return l
}

// unwanted is an idle connection that was taken to be closed.
type unwanted struct {
	lease  *Lease
	reason Reason
}

// takeFor takes those for which why returns a reason, longest idle first.
func (s *idleConns) takeFor(why func(*Lease) Reason) (gone []unwanted) {
	for _, in := range s.lists() {
		for n := in.Back(); n != nil; {
			prev := n.Prev()
			if reason := why(n.Value); reason != "" {
				n.Value.node.Leave()
				gone = append(gone, unwanted{n.Value, reason})
			}
			n = prev
		}
	}
	return gone
}
