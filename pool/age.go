package pool

import (
	"net/netip"
	"time"
)

// A connection past its age is to be replaced, not only closed: while no new one
// can be made, because the resolver is away, for instance, it is better than
// none. So it goes when a dial has succeeded since it came of age. Where none was
// tried, one is, beside it, which also spares requests the wait; until it is known
// what comes of that, and for maxOverAge at most, the old one is used.
//
// Where the origin's own limit leaves no room for the attempt the first one makes
// room for it.

const (
	// maxOverAge is how much older than its age a connection becomes at most.
	maxOverAge = time.Minute
	// renewAfter is how long after a failed dial the next is made, if only for
	// connections past their age.
	renewAfter = time.Second
)

// aged reports whether the connection has reached its age.
func (l *Lease) aged(now time.Duration) bool { return l.expires > 0 && now >= l.expires }

// overdue reports whether a connection is past its age and to be closed. It is
// not idle.
func (o *Origin) overdue(l *Lease) bool {
	now := o.pool.now()
	if !l.aged(now) {
		return false
	}
	o.mu.Lock()
	is, renew := o.overdueLocked(l, now)
	o.mu.Unlock()
	if renew {
		o.renew(l.addr.Addr())
	}
	return is
}

// overdueLocked reports whether a connection that has reached its age is to be
// closed, and if not, whether its replacement is to be tried.
func (o *Origin) overdueLocked(l *Lease, now time.Duration) (is, renew bool) {
	failing := o.times.failed >= l.expires
	switch {
	case now >= l.expires+maxOverAge, o.gone.Load():
		return true, false
	case l.midway:
		return false, false
	case o.times.opened >= l.expires:
		return true, false
	case o.queue.dialing > 0, failing && now-o.times.failed < renewAfter:
		return false, false
	case !o.mayDialLocked():
		return !failing, false
	}
	return false, true
}

// retireAged closes idle connections past their age. One that no request has
// used is not replaced.
func (o *Origin) retireAged(now time.Duration) {
	var renew *Lease
	o.drop(func(l *Lease) bool {
		if !l.aged(now) || l.requests == 0 {
			return l.aged(now)
		}
		is, again := o.overdueLocked(l, now)
		if again {
			renew = l
		}
		return is
	}, MaxAge)
	if renew != nil {
		o.renew(renew.addr.Addr())
	}
}

// renew begins a dial to the address of a connection that is too old, if no dial is
// under way.
func (o *Origin) renew(to netip.Addr) {
	o.pool.dialAhead(o, func() *opening {
		if o.queue.dialing > 0 {
			return nil
		}
		d := o.queue.beginForNone()
		d.first = to
		return d
	})
}

// dialAhead begins a dial that no request waits for, if there is a slot for it that
// nobody else claims and begin, called with o.mu held, returns one. It reports
// whether it did.
func (p *Pool) dialAhead(o *Origin, begin func() *opening) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &p.budget
	if b.claims.Len() > 0 || b.taken >= b.most {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.mayDialLocked() || p.ctx.Err() != nil {
		return false
	}
	d := begin()
	if d == nil {
		return false
	}
	b.taken++
	o.beginLocked(d)
	return true
}
