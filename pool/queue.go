package pool

import (
	"net/netip"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

// Ticket is a place in the queue for connections. Its owner uses it for one
// Acquire at a time. The zero value is ready.
type Ticket struct {
	// Replayable says that the request can be sent twice without harm: it may
	// take any idle connection. One that cannot takes only a connection that the
	// upstream is most unlikely to be closing just now.
	Replayable bool
	// Fresh asks for a new connection, or one that has just been opened and has
	// carried nothing.
	Fresh bool
	// Virgin asks for a new connection too, for something other than HTTP. One that
	// is opened for it, and not needed when it is there, is closed: it is no use to
	// requests, for what speaks there may speak first.
	Virgin bool
	// Connect says that the loan is for a CONNECT. It is no request: those that come
	// in it borrow for themselves.
	Connect bool
	// Exclusive asks for a connection of its own, in HTTP/1.1: for what HTTP/2 does not
	// have, and for credentials that authenticate a connection.
	Exclusive bool
	// Avoid, if valid, is an address that a connection opened for this request
	// leads to only if there is no other: the request has failed there, and is sent
	// again. With Fresh a connection that was used will do where dials are refused.
	Avoid netip.Addr

	ch      chan grant // made when first needed; holds one
	node    list.Node[*Ticket]
	dial    *opening // begun for this request; guarded by the origin's mutex
	own     *Lease   // pinned for this ticket; it may have been closed since
	opened  uint64   // the id of the new connection that was lent for its last CONNECT; 0: there was none
	since   time.Duration
	waited  bool   // in this Acquire
	spent   Waited // likewise
	rides   bool   // it waits for one dial with others
	tried   uint64 // the id of the connection that was lent last
	makesDo bool   // in this Acquire a connection that was used will do after all; guarded as dial is
}

// takesUsed reports whether a connection that was used will do.
func (t *Ticket) takesUsed() bool { return !t.Virgin && (!t.Fresh || t.makesDo) }

// opening is a dial under way. Whatever it brings is for who waits first by
// then, but if it fails that says something only to the request that it was
// begun for, if that still waits: another may have come just now, and is tried
// for anew.
type opening struct {
	by     *Ticket    // nil if there is none that waits still; guarded by the origin's mutex
	avoid  netip.Addr // to be tried last
	first  netip.Addr // to be tried first
	virgin bool       // begun for something other than HTTP
	trial  bool       // it may lead to an endpoint that is on trial
	ahead  bool       // no request waited for it
	shares bool       // it may bring a connection that carries many requests at a time
	spare  bool       // it is for a tunnel that may come
	course course
	// replaces is what has come of age when this one is there; nil: nothing.
	replaces *Lease
	// over is closed when its request has got another connection, or is given up.
	over chan struct{} // nil if the dial does not wait for that; guarded as by is
}

// aim is what the dial prefers.
func (d *opening) aim() aim {
	return aim{avoid: d.avoid, first: d.first, trial: d.trial, ahead: d.ahead}
}

// letGo notes that the dial is for its request no more.
func (d *opening) letGo() {
	d.by.dial, d.by = nil, nil
	if d.over != nil {
		close(d.over)
		d.over = nil
	}
}

// grant is what ends a wait.
type grant struct {
	lease  *Lease
	err    error
	course course // of the dial that has led to it, if one has
}

// queue is the requests that wait for a connection of an origin, and the dials
// that are under way for them. The zero value is ready. The origin's mutex guards
// it.
//
// First come first served: a connection goes to the first that may have it,
// whoever it was opened for. There are no more dials than requests, but for those
// whose request has got another connection meanwhile, or that replace one.
type queue struct {
	offered  bool               // connections may carry many requests at a time; set once
	waiting  list.List[*Ticket] // first come first
	dialing  int
	pioneers int // of the dials, those that may bring a connection for many
	riding   int // of the requests, those that wait for one dial
}

// join puts a request into the queue, in front if its turn had come before.
func (q *queue) join(t *Ticket, now time.Duration) {
	if t.ch == nil {
		t.ch = make(chan grant, 1)
	}
	t.node.Value = t
	if t.waited { // the connection it got was dead
		q.waiting.PushFront(&t.node)
		return
	}
	t.since, t.waited = now, true
	q.waiting.PushBack(&t.node)
}

// undialled is how many requests wait although no dial is under way for them.
func (q *queue) undialled() int { return q.waiting.Len() - q.dialing }

// begin notes a dial for a request that none was begun for; there is one.
func (q *queue) begin() *opening {
	t := q.firstUndialled()
	t.dial = &opening{by: t, avoid: t.Avoid, virgin: t.Virgin, trial: t.Replayable, shares: t.shares()}
	q.count(t.dial, 1)
	return t.dial
}

// beginForNone notes a dial that no request waits for.
func (q *queue) beginForNone() *opening {
	d := &opening{trial: true, ahead: true, shares: true}
	q.count(d, 1)
	return d
}

// exclude has a dial bring a connection in HTTP/1.1.
func (q *queue) exclude(d *opening) {
	q.count(d, -1)
	d.shares = false
	q.count(d, 1)
}

// part has no request wait for another one's dial.
func (q *queue) part() {
	if q.riding == 0 {
		return
	}
	for n := q.waiting.Front(); n != nil; n = n.Next() {
		n.Value.rides = false
	}
	q.riding = 0
}

// count counts a dial as begun, or as over with -1.
func (q *queue) count(d *opening, n int) {
	q.dialing += n
	if d.shares {
		q.pioneers += n
	}
}

// firstUndialled returns a request that no dial under way was begun for, the
// first of them if there may be many. There is one if there are fewer dials.
func (q *queue) firstUndialled() *Ticket {
	if last := q.waiting.Back().Value; last.dial == nil && q.undialled() == 1 {
		return last
	}
	first := (*Ticket)(nil)
	for n := q.waiting.Front(); n != nil; n = n.Next() {
		t := n.Value
		if t.dial == nil && !(t.rides && q.pioneers > 0) {
			return t
		}
		if first == nil && t.dial == nil {
			first = t
		}
	}
	return first
}

// failed notes the end of a dial that has failed.
func (q *queue) failed(d *opening, err error) {
	q.count(d, -1)
	if d.by != nil {
		q.grant(d.by, grant{err: err, course: d.course})
	}
}

// served notes the end of a dial that has failed, whose request gets another
// connection instead.
func (q *queue) served(d *opening, l *Lease) {
	q.count(d, -1)
	q.grant(d.by, grant{lease: l, course: d.course})
}

// wasted notes the end of a dial that has brought what nobody is to have.
func (q *queue) wasted(d *opening) {
	q.count(d, -1)
	if d.by != nil {
		d.letGo()
	}
}

// succeeded notes the end of a dial that has brought a connection, and reports
// whether that was granted.
func (q *queue) succeeded(d *opening, l *Lease) bool {
	q.count(d, -1)
	if d.by != nil {
		d.by.dial = nil // it may have to wait on, for another
	}
	first := q.next(d)
	if first != nil {
		q.grant(first, grant{lease: l, course: d.course})
	}
	return first != nil
}

// next returns the request that gets the connection that a dial has brought, nil if
// there is none. One that is for HTTP/1.1 alone is for those that asked for that, if
// there are any: where all others share it may be of no use to them.
func (q *queue) next(d *opening) *Ticket {
	first := q.waiting.Front()
	if first == nil {
		return nil
	}
	if d.shares || !q.offered {
		return first.Value
	}
	for n := first; n != nil; n = n.Next() {
		if !n.Value.shares() {
			return n.Value
		}
	}
	return nil
}

// nextCarries reports whether the request that gets the connection of a dial, if
// there is one, is HTTP.
func (q *queue) nextCarries(d *opening) bool {
	t := q.next(d)
	return t != nil && !t.Virgin
}

// heir returns the first request that may have a connection which was used a
// moment ago. If there is none, inTheWay reports whether the connection keeps one
// that needs a new one from it.
func (q *queue) heir(m *manners, now time.Duration) (t *Ticket, inTheWay bool) {
	fresh := 0
	for n := q.waiting.Front(); n != nil; n = n.Next() {
		if t := n.Value; t.takesUsed() && m.rest(t.Replayable, now) == 0 {
			return t, false
		}
		if fresh++; fresh > q.dialing {
			return nil, true
		}
	}
	return nil, false
}

// grant ends a wait.
func (q *queue) grant(t *Ticket, g grant) {
	q.waiting.Remove(&t.node)
	if t.rides {
		t.rides = false
		q.riding--
	}
	if t.dial != nil {
		t.dial.letGo()
	}
	t.ch <- g
}

// end ends a wait with an error, if t waits.
func (q *queue) end(t *Ticket, err error) {
	if q.waiting.Has(&t.node) {
		q.grant(t, grant{err: err})
	}
}

// endAll ends the wait of all who wait.
func (q *queue) endAll(err error) {
	for n := q.waiting.Front(); n != nil; n = q.waiting.Front() {
		q.grant(n.Value, grant{err: err})
	}
}

// hopes reports whether a dial under way may bring t a connection. A dial has a
// time limit of its own.
func (q *queue) hopes(t *Ticket) bool {
	if t.dial != nil || t.rides && q.pioneers > 0 {
		return true
	}
	n := q.waiting.Front()
	for i := 0; i < q.dialing && n != nil; i++ {
		if n == &t.node {
			return true
		}
		n = n.Next()
	}
	return false
}
