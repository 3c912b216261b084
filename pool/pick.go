package pool

import (
	"math/rand/v2"
	"time"
)

// request is what of a request matters to the choice of a connection.
type request struct {
	replayable bool
	now        time.Duration
	rest       time.Duration // how long a connection must have been idle
	bench      bool          // whether it counts that an endpoint is benched
	manners    *manners
}

// rested reports whether a connection has been idle for long enough.
func (q *request) rested(l *Lease) bool { return q.now-l.idleSince >= q.rest }

// fits reports whether the request may have an idle connection.
func (q *request) fits(l *Lease) bool {
	idle := q.now - l.idleSince
	return idle >= q.rest && idle <= q.manners.usable(l.hint, q.replayable)
}

// mayUse reports whether the request may go to an endpoint.
func (q *request) mayUse(e *endpoint) bool {
	return !e.leaving && (!q.bench || e.bench.admits(q.replayable, e.busy()+e.dialing, q.now))
}

// pickLocked takes an idle connection that the request may have, nil if there is
// none: on the less busy of two endpoints, taken at random of those chosen; or else
// on another of these; or else whichever was used last. It costs the same for few
// addresses and many. due reports that a connection is to be opened that no request
// waits for.
func (o *Origin) pickLocked(t *Ticket, now time.Duration) (l *Lease, due bool) {
	s := &o.endpoints
	if !s.balance.reuse {
		if !t.Virgin && !t.Connect {
			s.balance.asked(now)
		}
		if now >= s.revised {
			due = o.reviseLocked(now)
		}
	}
	if o.shared.offer && t.shares() {
		l, more := o.rideLocked(t, now)
		if due = due || more; l != nil {
			return l, due
		}
	}
	if !t.takesUsed() || !o.manners.keeps(now) {
		return nil, due
	}
	q := o.requestLocked(t, now)
	if !s.balance.reuse {
		l = s.pick(&q)
	}
	if l == nil {
		l = o.idle.pick(&q)
	}
	if l != nil {
		l.wake(now)
	}
	return l, due
}

// wake takes an idle connection for an exchange.
func (l *Lease) wake(now time.Duration) {
	l.node.Leave()
	if l.turnBegan == 0 {
		l.turnBegan = now
	}
	l.begin(now-l.idleSince, now)
}

// begin notes that an exchange begins on a connection that was idle for so long.
func (l *Lease) begin(idled, now time.Duration) {
	l.idled, l.reused, l.report.began = idled, l.requests > 0, now
}

func (o *Origin) requestLocked(t *Ticket, now time.Duration) request {
	s := &o.endpoints
	return request{
		replayable: t.Replayable, now: now, rest: o.manners.rest(t.Replayable, now),
		bench: !s.balance.reuse && !s.excused, manners: &o.manners,
	}
}

// pick returns an idle connection on one of the chosen endpoints, nil if there is
// none that the request may have.
func (s *roster) pick(q *request) *Lease {
	n := len(s.chosen)
	switch n {
	case 0:
		return nil
	case 1:
		return s.on(s.chosen[0], q)
	}
	r := rand.Uint64()
	i := int(uint32(r)) % n
	j := (i + 1 + int(r>>32)%(n-1)) % n
	first, second := s.chosen[i], s.chosen[j]
	if !prefers(first, second, q.now) {
		first, second = second, first
	}
	if l := s.on(first, q); l != nil {
		return l
	}
	if l := s.on(second, q); l != nil || n == 2 {
		return l
	}
	for k := range n {
		if l := s.on(s.chosen[(i+k)%n], q); l != nil {
			return l
		}
	}
	return nil
}

// on returns an idle connection on an endpoint, nil if there is none that the
// request may have.
func (s *roster) on(e *endpoint, q *request) *Lease {
	if e.idle.turn.Len()+e.idle.spare.Len() == 0 || !q.mayUse(e) {
		return nil
	}
	return e.idle.pick(q)
}

// prefers reports whether of two endpoints the first is to be used.
func prefers(a, b *endpoint, now time.Duration) bool {
	if a.since+b.since > 0 {
		if youngA, youngB := a.young(rand.Float64(), now), b.young(rand.Float64(), now); youngA != youngB {
			return youngB
		}
	}
	return lighter(&a.load, &b.load, a.busy(), b.busy(), rand.Float64(), now)
}
