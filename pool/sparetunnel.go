package pool

import "time"

// A spare tunnel is a connection that was opened for the next tunnel to an origin, so
// that this need not wait for DNS and TCP. It has carried nothing, and nothing is said
// on it. Requests do not get it: what listens there may speak no HTTP.
//
// It is there for tunnels in which the client speaks first, TLS above all. A server
// that speaks first would greet a tunnel that is not there yet, and its patience with
// that begins before the client's. So where one has spoken on a spare, that is closed
// and no other is opened. What such a server says between the last look at the
// connection and its use reaches the client, as on any tunnel.
//
// While it waits it is idle like others: it has a slot, which whoever needs one may
// have, and hang-ups, evictions and vanished addresses end it.

const (
	// spareFor is how long a spare waits. Servers close what is silent after some ten
	// seconds, or a minute; and for one that is used half as often as that, an upstream
	// would see more connections that carry nothing than others.
	spareFor = 15 * time.Second
	// mostSpares is how many there are of all origins together.
	mostSpares = 64
)

// spares is what an origin knows of its spare tunnels, besides those that wait. The
// origin's mutex guards it.
type spares struct {
	expected bool          // ExpectTunnel was called,
	last     time.Duration // then
	speaks   bool          // the server speaks first
	dialling int
}

// spareDialledLocked notes the end of a dial.
func (o *Origin) spareDialledLocked(d *opening) {
	if d.spare {
		o.spares.dialling--
		o.pool.spares.Add(-1)
	}
}

// ExpectTunnel notes that a tunnel was opened in which the client has spoken first, so
// that another may come soon. If the one before it was not long ago, spares are
// opened, as many as are missing: one tunnel alone costs an upstream no other. It
// waits for nothing, and may be called from any goroutine.
func (o *Origin) ExpectTunnel() {
	p := o.pool
	if p.cfg.SpareTunnels == 0 {
		return
	}
	now := p.now()
	o.mu.Lock()
	lately := o.spares.expected && now-o.spares.last <= o.spareForLocked()
	o.spares.expected, o.spares.last = true, now
	o.mu.Unlock()
	for n := 0; lately && n < p.cfg.SpareTunnels; n++ {
		lately = p.dialAhead(o, o.beginSpareLocked)
	}
}

// beginSpareLocked begins the dial of a spare, or returns nil if there are enough, or
// may be none.
func (o *Origin) beginSpareLocked() *opening {
	p, s, now := o.pool, &o.spares, o.pool.now()
	switch {
	case s.speaks, !o.manners.keeps(now), o.manners.crowded(now), // it may have the only worker
		o.gone.Load(), p.spares.Load() >= mostSpares, o.idle.ready.Len()+s.dialling >= p.cfg.SpareTunnels:
		return nil
	}
	s.dialling++
	p.spares.Add(1)
	d := o.queue.beginForNone()
	d.spare = true
	o.queue.exclude(d)
	return d
}

// spareForLocked is how long a spare may wait: not near what the upstream was seen to
// put up with.
func (o *Origin) spareForLocked() time.Duration { return min(spareFor, o.manners.usable(0, false)) }

// keepSpare keeps a connection that was opened as a spare.
func (o *Origin) keepSpare(l *Lease) {
	p, now := o.pool, o.pool.now()
	o.mu.Lock()
	if p.ctx.Err() != nil || o.gone.Load() || l.hungUp { // it says nothing of others
		o.mu.Unlock()
		l.close(MaxIdle)
		return
	}
	l.ready = true
	p.spares.Add(1)
	o.stats.SparesMade++
	o.restLocked(l, now)
	o.mu.Unlock()
	p.list(o)
	p.relieve() // who came for a slot meanwhile
}

// takeSpareLocked takes the spare that was opened last for what is no HTTP, nil if
// there is none.
func (o *Origin) takeSpareLocked(t *Ticket, now time.Duration) *Lease {
	n := o.idle.ready.Front()
	if !t.Virgin || n == nil || n.Value.endpoint.leaving || now-n.Value.idleSince > o.spareForLocked() {
		return nil
	}
	n.Value.wake(now)
	return n.Value
}

// useSpare notes that a spare was found as good as new, and is a tunnel's from now on.
func (o *Origin) useSpare(l *Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endSpareLocked(l)
	o.stats.SparesUsed++
}

// endSpareLocked notes that a connection is no spare any more.
func (o *Origin) endSpareLocked(l *Lease) {
	l.ready = false
	o.pool.spares.Add(-1)
}

// speaksFirst notes that a server has spoken on a spare.
func (o *Origin) speaksFirst() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spares.speaks = true
}

// stillAllowed asks once more whether the address may be connected to, for it is now
// that somebody is.
func (l *Lease) stillAllowed() bool {
	check := l.origin.pool.cfg.CheckAddr
	return check == nil || check(l.addr) == nil
}

// expireSpares closes the spares that have waited long enough.
func (o *Origin) expireSpares(now time.Duration) {
	o.drop(func(l *Lease) bool { return l.ready && now-l.idleSince >= o.spareForLocked() }, IdleTimeout)
}
