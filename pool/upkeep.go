package pool

import "time"

// tidy retires idle connections that no request may take any more. Of those
// beyond a learned limit one stays, the one idle longest: when the upstream
// closes it, or does not, more is learned.
func (o *Origin) tidy(now time.Duration) {
	cfg := &o.pool.cfg
	o.expireSpares(now)
	witness := false
	o.drop(func(l *Lease) bool {
		idle := now - l.idleSince
		// It may have been closed without that being known yet.
		if o.manners.limit.refutedBy(idle) && !l.conn.PeerGone() {
			o.manners.limit.survived(idle)
		}
		if cfg.IdleTimeout > 0 && idle >= cfg.IdleTimeout || l.hint > 0 && idle >= l.hint-margin(l.hint) {
			return true
		}
		before := witness
		witness = witness || o.manners.outworn(idle)
		return before && o.manners.outworn(idle)
	}, IdleTimeout)
	o.retireAged(now)
	o.drop(func(l *Lease) bool { return !o.keepsLocked(l, now) }, NotTrusted)
	o.closeStrays(now)
	o.dropLeavers(now)
	o.shrink(now)
}

// shrink retires some of the idle connections that the origin has beyond what it
// needed lately, or uses in turn.
func (o *Origin) shrink(now time.Duration) {
	o.mu.Lock()
	o.peak.needs(o.carrying, now)
	if s := &o.endpoints; now >= s.revised && !s.balance.reuse {
		o.reviseLocked(now)
	}
	open := o.openLocked()
	n := min(o.peak.surplus(open), open-2*o.goalLocked(now), open-o.endpoints.full-1)
	o.mu.Unlock()
	if n > 0 {
		o.drop(func(l *Lease) bool { n--; return n >= 0 && !l.pinned }, NotNeeded)
	}
}

// drop closes the idle connections that which says, longest idle first, and
// returns how many they were. It calls which with o.mu held.
func (o *Origin) drop(which func(*Lease) bool, reason Reason) int {
	return o.dropFor(func(l *Lease) Reason {
		if which(l) {
			return reason
		}
		return ""
	})
}

// dropFor closes the idle connections for which why returns a reason.
func (o *Origin) dropFor(why func(*Lease) Reason) int {
	o.mu.Lock()
	gone := o.idle.takeFor(why)
	o.mu.Unlock()
	closeEach(gone)
	return len(gone)
}

// closeEach closes connections that were taken, each for its reason.
func closeEach(gone []unwanted) {
	for _, u := range gone {
		u.lease.close(u.reason)
	}
}

// abandon closes the idle connections that lead to an address.
func (o *Origin) abandon(e *endpoint, reason Reason) {
	var gone []*Lease
	o.mu.Lock()
	for n := e.leases.Front(); n != nil; n = n.Next() {
		if l := n.Value; l.node.Listed() {
			l.node.Leave()
			gone = append(gone, l)
		}
	}
	o.mu.Unlock()
	closeAll(gone, reason)
}

// closeAll closes connections that were taken, for one reason.
func closeAll(taken []*Lease, reason Reason) {
	for _, l := range taken {
		l.close(reason)
	}
}
