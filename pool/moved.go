package pool

import (
	"net/netip"
	"slices"
	"time"
)

// A name's addresses change: pods come and go. New ones are used at once, by more
// and more requests over a few seconds. To those that the name does not have any
// more goes no new request: what is idle is closed, what is in use when its
// exchange is over.
//
// But they may be all that works, for instance where the new ones do not listen
// yet. So while no connection leads to any other address those that are idle stay,
// for maxOverAge at most. A request that comes then is dialled for, and gets one of
// them only if that fails.

// moved tells the origin that its name has these addresses now, and no others. It
// may be called from any goroutine; nothing in it waits. An empty list says nothing.
func (o *Origin) moved(addrs []netip.Addr) {
	if len(addrs) == 0 {
		return
	}
	o.mu.Lock()
	now := o.pool.now() // not before: no dial that went by the old addresses begins later
	o.endpoints.move(addrs, now)
	gone := o.retireLeaversLocked(now)
	due := !o.endpoints.balance.reuse && o.reviseLocked(now)
	used := o.openLocked() > 0 && now-o.times.used < warmFor
	o.mu.Unlock()
	closeEach(gone)
	if due && used {
		o.dialDue()
	}
}

// warmFor is how long after the last request connections are still opened ahead of
// the next.
const warmFor = 10 * time.Second

// retireLeaversLocked takes the idle connections that lead to addresses which the
// name does not have any more, unless there are no others.
func (o *Origin) retireLeaversLocked(now time.Duration) []unwanted {
	s := &o.endpoints
	if s.leavers {
		s.leavers = slices.ContainsFunc(s.known, func(e *endpoint) bool { return e.leaving && e.leases.Len() > 0 })
	}
	if !s.leavers || s.stranded(now) {
		return nil
	}
	return o.idle.takeFor(func(l *Lease) Reason {
		if l.endpoint.leaving && !l.midway {
			return AddressGone
		}
		return ""
	})
}

// dropLeavers closes what retireLeaversLocked takes.
func (o *Origin) dropLeavers(now time.Duration) {
	o.mu.Lock()
	gone := o.retireLeaversLocked(now)
	o.mu.Unlock()
	closeEach(gone)
}

// stranded reports whether all connections lead to addresses that the name does not
// have any more, and may do so for a while.
func (s *endpoints) stranded(now time.Duration) bool {
	return now-s.movedAt < maxOverAge &&
		!slices.ContainsFunc(s.known, func(e *endpoint) bool { return !e.leaving && e.leases.Len() > 0 })
}

// lastResortLocked reports whether a connection to an address that the name does not
// have any more is kept idle: there is no other, and it is not in the way of one.
func (o *Origin) lastResortLocked(now time.Duration) bool {
	inTheWay := o.queue.undialled() > 0 && !o.mayDialLocked()
	return !inTheWay && o.pool.ctx.Err() == nil && !o.gone.Load() && o.pool.cfg.MaxIdlePerHost > 0 && o.endpoints.stranded(now)
}

// leaveLocked says what becomes of a connection to an address that the name does
// not have any more, as it comes back.
func (o *Origin) leaveLocked(l *Lease, now time.Duration) (*Lease, Reason) {
	if !o.lastResortLocked(now) {
		return l, AddressGone
	}
	o.restLocked(l, now)
	return o.idle.surplus(o.pool.cfg.MaxIdlePerHost), MaxIdle
}

// overtakenLocked returns why a new connection is of no use any more: the name has
// lost its address while it was dialled, or it was secured by what has been replaced.
func (o *Origin) overtakenLocked(l *Lease) Reason {
	switch {
	case l.secured != o.tls:
		return TLSChanged
	case l.endpoint.leaving && l.begun <= o.endpoints.movedAt:
		return AddressGone
	}
	return ""
}

// tooLateLocked sees to a new connection that was overtaken. Whoever waits is dialled
// for again. It unlocks o.mu.
func (o *Origin) tooLateLocked(d *opening, l *Lease, why Reason) {
	o.queue.wasted(d)
	kept := why == AddressGone && !d.virgin && o.lastResortLocked(o.times.opened)
	if kept {
		o.restLocked(l, o.times.opened)
	}
	wants := o.wantsLocked()
	o.mu.Unlock()
	if !kept {
		l.close(why)
		return
	}
	o.pool.list(o)
	if wants {
		o.pool.claim(o)
	}
}

// strandedFor takes an idle connection to an address that the name does not have
// any more, for a request whose dial has failed; nil if there is none that it may
// have.
func (o *Origin) strandedFor(t *Ticket, now time.Duration) *Lease {
	if t == nil || !o.endpoints.leavers || !t.takesUsed() || !o.manners.keeps(now) {
		return nil
	}
	q := request{replayable: t.Replayable, now: now, rest: o.manners.rest(t.Replayable, now), manners: &o.manners}
	for n := o.idle.free.Front(); n != nil; n = n.Next() {
		if l := n.Value; l.endpoint.leaving && q.fits(l) {
			l.wake(now)
			return l
		}
	}
	return nil
}

// suspect has the addresses of the origin's name asked for again, after what they
// led to failed.
func (o *Origin) suspect() { o.pool.suspect(o) }
