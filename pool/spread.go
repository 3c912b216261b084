package pool

// Connections are opened ahead of need for two reasons: to use as many as the rate
// keeps warm, and to replace the oldest, so that what is behind an address is
// chosen anew now and then (see balance). It is requests that set this off: an
// origin that is not used stays as it is.

// dialDue begins a dial that is due, if there is a slot for it that nobody else
// claims.
func (o *Origin) dialDue() { o.pool.dialAhead(o, o.dueLocked) }

// dueLocked returns a dial that is due now, nil if none is.
func (o *Origin) dueLocked() *opening {
	now := o.pool.now()
	s := &o.endpoints
	missing := s.missing(now)
	open := o.openLocked() + o.queue.dialing
	if c := o.shared.renew; c != nil {
		o.shared.renew = nil
		return o.renewalLocked(c)
	}
	more := o.queue.pioneers == 0 && o.shared.crowded() && now-o.times.failed >= renewAfter
	if missing == nil && !more && !s.balance.due(now, s.full, open) {
		return nil
	}
	d := o.queue.beginForNone()
	if missing != nil {
		d.first = missing.addr
		return d
	}
	bare := s.bare()
	if open >= s.full && !more {
		if bare != nil { // it gets what another has too many of
			d.replaces = s.oldest(2)
		}
		if d.replaces == nil {
			d.replaces = s.oldest(1)
		}
	}
	switch {
	case bare != nil:
		d.first = bare.addr
	case d.replaces != nil:
		d.first = d.replaces.addr.Addr()
	}
	return d
}

// bare returns a chosen endpoint without a connection, nil if there is none.
func (s *roster) bare() *endpoint {
	for _, e := range s.chosen {
		if e.leases.Len()+e.dialing == 0 {
			return e
		}
	}
	return nil
}

// openLocked is how many connections there are for requests, idle ones included.
func (o *Origin) openLocked() int { return o.carrying + o.idle.free.Len() + o.shared.resting() }

// replaceable reports whether another may be opened in a connection's place.
func (l *Lease) replaceable() bool {
	return !l.replaced && !l.pinned && (l.carries || l.node.Listed())
}

// oldest returns the oldest connection of those chosen endpoints that have so many
// or more, if another may be opened in its place; nil if there is none.
func (s *roster) oldest(least int) (oldest *Lease) {
	for _, e := range s.chosen {
		if e.leases.Len() < least {
			continue
		}
		n := e.leases.Front()
		for n != nil && !n.Value.replaceable() {
			n = n.Next()
		}
		if n != nil && (oldest == nil || n.Value.id < oldest.id) {
			oldest = n.Value
		}
	}
	return oldest
}
