package pool

import (
	"math"
	"sync/atomic"

	"github.com/carpoolproxy/carpool/internal/list"
)

// budget bounds the connections of the pool, tunnels included. Its fields are
// guarded by Pool.mu, but for starved.
//
// Every connection is opened with a slot in hand. Whoever has none claims one.
// Claims are served first come first served, one slot at a time to each origin,
// so that one with many requests does not keep others away. As long as slots are
// short, idle connections make room, and so do those that come back: those of an
// origin that has more than the one that waits, though it has requests waiting
// too (see give). Origins that are equally busy come to share the budget, and
// from then on each goes on with the connections that it has.
type budget struct {
	most    int // slots
	taken   int
	claims  list.List[*claim]
	serving bool // somebody serves claims, and looks again when one is added

	// starved is how many claims were not served for want of a slot.
	starved atomic.Int32
}

// claim is a place in the queue for slots.
type claim struct {
	origin *Origin // whose requests wait
	node   list.Node[*claim]
}

func (b *budget) init(most int) {
	if b.most = most; most == 0 {
		b.most = math.MaxInt
	}
}

// claim has connections opened to an origin for the requests that wait there, as
// soon as there is room.
func (p *Pool) claim(o *Origin) {
	p.mu.Lock()
	if b := &p.budget; !b.claims.Has(&o.seat.claim.node) {
		b.claims.PushBack(&o.seat.claim.node)
	}
	p.mu.Unlock()
	p.serveClaims()
}

// unreserve gives a slot back.
func (p *Pool) unreserve() {
	p.ended.Add(1)
	p.mu.Lock()
	p.budget.taken--
	p.mu.Unlock()
	p.relieve()
}

// relieve serves those who wait for a slot, if there are any.
func (p *Pool) relieve() {
	if p.budget.starved.Load() > 0 {
		p.serveClaims()
	}
}

// serveClaims serves claims while there are slots, or idle connections whose
// slots they can have. No lock may be held.
func (p *Pool) serveClaims() {
	b := &p.budget
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.serving {
		return
	}
	b.serving = true
	defer func() { b.serving = false }()
	for l := p.serveLocked(); l != nil; l = p.serveLocked() {
		p.evictUnlocked(l)
	}
}

// evictUnlocked closes a connection with the lock let go of meanwhile.
func (p *Pool) evictUnlocked(l *Lease) {
	p.mu.Unlock()
	defer p.mu.Lock()
	l.close(Evicted)
}

// serveLocked serves claims while there are slots. It returns an idle connection
// that is to be closed for the next one.
func (p *Pool) serveLocked() *Lease {
	b := &p.budget
	for n := b.claims.Front(); n != nil; n = b.claims.Front() {
		c := n.Value
		if b.taken >= b.most {
			// Stored before the look at what is idle: a connection that comes back
			// now is seen here, or sees this.
			b.starved.Store(int32(b.claims.Len()))
			if c.stands() {
				return p.longest.take()
			}
			b.claims.Remove(n)
			continue
		}
		b.claims.Remove(n)
		if c.origin.begin() {
			b.taken++
			if c.stands() {
				b.claims.PushBack(n)
			}
		}
	}
	b.starved.Store(0)
	return nil
}

// stands reports whether the slot is still needed.
func (c *claim) stands() bool {
	_, wants := c.origin.holds()
	return wants
}

// rival returns the claim that is to be served next of those that are not o's
// own, and how many connections its origin has by now; nil if there is none.
func (p *Pool) rival(o *Origin) (c *claim, holds int) {
	b := &p.budget
	if b.starved.Load() == 0 {
		return nil, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var next *list.Node[*claim]
	for n := b.claims.Front(); n != nil; n = next {
		next = n.Next()
		if c := n.Value; c.origin != o {
			if holds, wants := c.origin.holds(); wants {
				return c, holds
			}
			b.claims.Remove(n)
		}
	}
	b.starved.Store(int32(b.claims.Len()))
	return nil, 0
}

// favour serves a claim next, for which a connection is about to be closed.
func (p *Pool) favour(c *claim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := &p.budget; b.claims.Has(&c.node) {
		b.claims.Remove(&c.node)
		b.claims.PushFront(&c.node)
	}
}
