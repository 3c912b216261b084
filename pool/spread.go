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
	if missing == nil && !s.balance.due(now, s.full, open) {
		return nil
	}
	d := o.queue.beginForNone()
	switch {
	case missing != nil:
		d.first = missing.addr
	case open >= s.full:
		if d.replaces = s.oldest(); d.replaces != nil {
			d.first = d.replaces.addr.Addr()
		}
	}
	return d
}

// openLocked is how many connections there are for requests, idle ones included.
func (o *Origin) openLocked() int { return o.carrying + o.idle.free.Len() }

// replaceable reports whether another may be opened in a connection's place.
func (l *Lease) replaceable() bool {
	return !l.replaced && !l.pinned && (l.carries || l.node.Listed())
}

// oldest returns the oldest connection of the chosen endpoints that is for requests
// and has not come of age; nil if there is none.
func (s *roster) oldest() (oldest *Lease) {
	for _, e := range s.chosen {
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
