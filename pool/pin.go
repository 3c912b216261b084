package pool

import "time"

// Credentials of some schemes (NTLM, Negotiate: RFC 4559) authenticate a
// connection, not a request. Such a connection is pinned: it is for one borrower
// alone, who is known by its Ticket. Between its exchanges it is the pool's, as
// any other: idle times and ages end it, hang-ups and stray bytes are noticed,
// and it makes room where others need it. Its borrower may find it gone then, and
// has to authenticate again. MaxIdlePerHost does not count it, for nobody else
// could use it instead.

// ReleaseTo gives the connection back after a whole exchange, for the next
// Acquire with t and no other. midway says that the exchanges by which it is
// authenticated are not over: they have to be on one connection, so as long as
// that lasts it is neither too old nor in the way of others when it comes back.
// Who has used this calls t.Leave in the end.
func (l *Lease) ReleaseTo(t *Ticket, midway bool) {
	if l.stream != nil { // others are authenticated beside it
		l.alight("")
		return
	}
	l.comeBack()
	l.requests++
	l.pinned, l.midway = true, midway
	o := l.origin
	p := o.pool
	if max := p.cfg.MaxRequests; l.count.reached(l.requests) || !midway && max > 0 && l.requests >= max {
		l.close(MaxRequests)
		return
	}
	if o.overdue(l) {
		l.close(MaxAge)
		return
	}
	rival, _ := p.rival(o)
	if reason := o.pin(l, rival != nil); reason != "" {
		if rival != nil {
			p.favour(rival)
		}
		l.close(reason)
		return
	}
	t.own = l
	p.list(o)
	if !midway {
		p.relieve()
	}
}

// Pinned reports whether the connection is for the borrower alone that has it.
func (l *Lease) Pinned() bool { return l.pinned }

// Kept reports whether a connection is kept for t, as far as is known.
func (t *Ticket) Kept() bool { return t.own != nil }

// Leave closes the connection that is kept for t, if there is one.
func (t *Ticket) Leave() {
	l := t.own
	t.own = nil
	if l != nil && l.origin.takePinned(l) {
		l.close(Pinned)
	}
}

// pin keeps a connection for its borrower, or returns why it has to be closed.
func (o *Origin) pin(l *Lease, rival bool) Reason {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(l)
	o.endpoints.settle(l, true, now)
	switch {
	case l.hungUp:
		l.idled = 0
		return l.hangUp(0)
	case o.pool.ctx.Err() != nil:
		return Shutdown
	case !o.keepsLocked(l, now):
		return NotTrusted
	case l.endpoint.leaving && !l.midway:
		return AddressGone
	case o.gone.Load(), !l.midway && (rival || o.queue.undialled() > 0 && !o.mayDialLocked()):
		return MaxIdle
	}
	o.restLocked(l, now)
	return ""
}

// keepsLocked reports whether a connection may be idle. A pinned one may where
// the operator lets none be kept, for its client could not authenticate otherwise,
// and midway wherever it leads.
func (o *Origin) keepsLocked(l *Lease, now time.Duration) bool {
	if l.pinned {
		return l.midway || !o.manners.strays.banned(now)
	}
	return o.manners.keeps(now)
}

// takePinned takes a pinned connection, if it is still there.
func (o *Origin) takePinned(l *Lease) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idle.takePinned(l)
}

// takeOwn takes the connection that is kept for t, nil if there is none. One that
// does not serve this request is closed.
func (o *Origin) takeOwn(t *Ticket) *Lease {
	l := t.own
	t.own = nil
	if l == nil || !l.origin.takePinned(l) {
		return nil
	}
	if l.origin != o || !t.takesUsed() || !o.mayUse(l, t, o.pool.now()) {
		l.close(Pinned)
		return nil
	}
	return l
}

// mayUse reports whether a request may have a connection that was idle until now.
func (o *Origin) mayUse(l *Lease, t *Ticket, now time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now-l.idleSince > o.manners.usable(l.hint, t.Replayable) {
		return false
	}
	o.times.used = now
	o.carryLocked(l, now)
	l.begin(now-l.idleSince, now)
	return true
}
