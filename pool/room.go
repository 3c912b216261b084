package pool

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
	"github.com/carpoolproxy/carpool/internal/sock"
)

// Fill implements sock.Stream. It notes when an answer begins.
func (l *Lease) Fill(b *sock.Buffer) error {
	err := l.Stream.Fill(b)
	if r := &l.report; err == nil && !r.answered {
		r.answered, r.took = true, l.origin.pool.now()-r.began
		if !l.heard.Load() {
			l.hear()
		}
	}
	return err
}

// hear notes the first byte of the first answer on a connection: the server has
// turned to it.
func (l *Lease) hear() {
	o := l.origin
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	e := l.endpoint
	o.manners.crowd.answered(e, now-l.since, e.heard, o.besidesLocked(l, now), now)
	l.heard.Store(true)
	e.answered(l)
}

// besidesLocked returns how many other connections to the same address the server
// is seen to serve as it answers on l, as far as that is something new. Those are
// served on which an answer has come, and those that were there before l: servers
// accept in order. Dials that are under way together may end in another one.
func (o *Origin) besidesLocked(l *Lease, now time.Duration) (n int) {
	const before = 100 * time.Millisecond
	e, c := l.endpoint, &o.manners.crowd
	if !c.tells(e.leases.Len(), now) {
		return 0
	}
	for s := e.leases.Front(); s != nil && n+1 < enoughAtOnce; s = s.Next() {
		other := s.Value
		served := other.heard.Load() || other.opened+before <= l.opened
		if other != l && served && !other.overLocked() {
			n++
		}
	}
	return n
}

// overLocked reports whether a connection that is not accounted for as closed has
// ended, as far as that is known.
func (l *Lease) overLocked() bool {
	return l.shutting.Load() || l.hungUp || l.node.Listed() && l.conn.PeerGone()
}

// Stalled is asked now and then about a connection on which an answer is waited
// for. If that is a new one, and the server may be waiting for an idle one to end
// before it turns to it, makeRoom closes those; or else it is nil. Stalled may be
// called from any goroutine as long as the lease is not given back, makeRoom also
// later on.
func (l *Lease) Stalled() (makeRoom func()) {
	if l.heard.Load() { // which is so of a stream
		return nil
	}
	taken := l.origin.roomFor(l, l.origin.pool.now()-l.since)
	if taken == nil {
		return nil
	}
	return func() { closeAll(taken, MakesRoom) }
}

// roomFor takes the idle connections that a request may be waiting for, which has
// waited for so long, if it is time. Which of them the server is at is not known: it
// need not be one on which an answer has come, and dials that were under way
// together may have arrived in any order. So they are all. If none is idle, the next
// that comes back is closed.
func (o *Origin) roomFor(l *Lease, waited time.Duration) (taken []*Lease) {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	c, e := &o.manners.crowd, o.endpointLocked(l)
	if e == nil || waited < c.slow() || e.heard+o.idle.len() == 0 {
		return nil
	}
	if c.serves(enoughAtOnce, now) && !c.due(waited, enoughAtOnce, now) {
		return nil // spares a look at very many
	}
	held, idle := e.heard, 0
	for s := e.leases.Front(); s != nil; s = s.Next() {
		if other := s.Value; other.spare() {
			if idle++; !other.heard.Load() {
				held++
			}
		}
	}
	switch {
	case !c.due(waited, held, now):
		return nil
	case idle == 0:
		e.stalled = l
		return nil
	}
	c.made(e, held, now)
	return e.takeIdle(idle)
}

// endpointLocked returns the endpoint that a connection leads to, also of one whose
// handshake is not over; nil if there is no other connection to it.
func (o *Origin) endpointLocked(l *Lease) *endpoint {
	if l.endpoint != nil {
		return l.endpoint
	}
	return o.endpoints.find(l.addr.Addr())
}

// spare reports whether a connection is idle and may be closed for another one's
// sake.
func (l *Lease) spare() bool { return l.node.Listed() && !l.midway }

// takeIdle takes up to n idle connections.
func (e *endpoint) takeIdle(n int) (taken []*Lease) {
	var next *list.Node[*Lease]
	for s := e.leases.Front(); s != nil && len(taken) < n; s = next {
		next = s.Next()
		if other := s.Value; other.spare() {
			other.node.Leave()
			taken = append(taken, other)
		}
	}
	return taken
}

// makesRoomLocked reports whether a connection that comes back is closed, because
// a request waits for the server that is at it, or because there are more than
// the server takes.
func (o *Origin) makesRoomLocked(l *Lease, now time.Duration) bool {
	e, c := l.endpoint, &o.manners.crowd
	if s := e.stalled; s != nil && s != l && l.heard.Load() {
		e.stalled = nil
		c.made(e, e.heard, now)
		return true
	}
	return o.tooManyLocked(e, now)
}

// tooManyLocked reports whether an endpoint has more connections than it takes.
func (o *Origin) tooManyLocked(e *endpoint, now time.Duration) bool {
	most := o.manners.crowd.bound(now)
	return most > 0 && e.leases.Len() > most
}

// surplusLocked takes the idle connections that are too many with a new one, which
// somebody has got.
func (o *Origin) surplusLocked(l *Lease, now time.Duration) []*Lease {
	most := o.manners.crowd.bound(now)
	if most == 0 {
		return nil
	}
	return l.endpoint.takeIdle(l.endpoint.leases.Len() - most)
}

// hurry makes room for a connection whose handshake is under way. A server whose
// worker makes it too waits before that.
func (o *Origin) hurry(l *Lease) {
	defer o.pool.contain("a dial")
	closeAll(o.roomFor(l, rarelyAfter), MakesRoom)
}

// giveUp notes that nothing has come of a connection, for which room may have been
// about to be made.
func (o *Origin) giveUp(l *Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.endpointLocked(l); e != nil {
		e.settled(l)
	}
}
