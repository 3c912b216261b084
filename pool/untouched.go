package pool

import "time"

// Who opens a tunnel borrows a connection before it is known what the tunnel is
// for. If that is HTTP, the connection goes back as it came, and each request in the
// tunnel borrows one for itself.

// Carried reports whether the connection has carried an exchange, so that what
// speaks there is HTTP, and is of no use to anything else.
func (l *Lease) Carried() bool { return l.requests > 0 }

// recognize notes whether a connection that is lent is the one that was opened for
// the borrower's CONNECT a moment ago, and has carried nothing since.
func (t *Ticket) recognize(l *Lease) {
	l.ordered = false
	switch {
	case !t.Connect:
		l.ordered = l.id == t.opened && !l.Carried() && l.idled <= brief
		t.opened = 0
	case l.Reused():
		t.opened = 0
	default:
		t.opened = l.id
	}
}

// Return gives back a connection of which the borrower has made no use: nothing was
// sent on it. It goes on being idle since it was before, or since it was opened.
func (l *Lease) Return() {
	l.comeBack()
	l.reused, l.ordered, l.report = false, false, report{} // not in this loan, which says nothing of the endpoint
	switch {
	case l.pinned:
		l.close(Pinned)
	case l.origin.shared.prior: // requests go in HTTP/2
		l.close(NotKept)
	case l.origin.overdue(l):
		l.close(MaxAge)
	case l.origin.resume(l):
		l.origin.pool.list(l.origin)
		l.origin.pool.relieve()
	default:
		l.putIdle()
	}
}

// resume puts a connection back among the idle ones if nothing has changed for it;
// or else give decides.
func (o *Origin) resume(l *Lease) bool {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.hungUp || o.queue.waiting.Len() > 0 || !o.manners.keeps(now) || o.pool.ctx.Err() != nil || o.gone.Load() ||
		o.idle.free.Len() >= o.pool.cfg.MaxIdlePerHost || l.secured != o.tls || l.endpoint.leaving || l.endpoint.stalled != nil ||
		o.tooManyLocked(l.endpoint, now) {
		return false
	}
	since := l.idleSince
	if l.requests > 0 && l.idled == 0 { // it was handed on straight from an exchange
		since = now
	}
	o.carriedLocked(l, now)
	o.idle.put(l, since)
	return true
}

// CarriesTunnel notes that what is carried on the connection from now on is no
// request.
func (l *Lease) CarriesTunnel() {
	o := l.origin
	o.mu.Lock()
	defer o.mu.Unlock()
	o.carriedLocked(l, o.pool.now())
	l.endpoint.idle.leave(l)
}

// asNewLocked takes the connection in front for a request that asks for a new one,
// if it has carried nothing and was opened, or given back, a moment ago: the CONNECT
// in which the request comes has opened it. One that is sent again gets a new one.
func (o *Origin) asNewLocked(t *Ticket, now time.Duration) *Lease {
	n := o.idle.free.Front()
	if !t.Fresh || t.Virgin || t.Avoid.IsValid() || n == nil || n.Value.Carried() || now-n.Value.idleSince > brief {
		return nil
	}
	l := n.Value
	if q := o.requestLocked(t, now); !q.mayUse(l.endpoint) {
		return nil
	}
	l.wake(now)
	return l
}

// SetOpaque notes whether what tunnels to the origin carry is something other than
// HTTP, as far as the last of them has shown. It may be called from any goroutine.
func (o *Origin) SetOpaque(is bool) {
	if o.opaque.Load() != is {
		o.opaque.Store(is)
	}
}

// Opaque reports what SetOpaque has noted last, false at first.
func (o *Origin) Opaque() bool { return o.opaque.Load() }
