package pool

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// What Acquire can fail with, apart from the errors of dialling.
var (
	// ErrFull means that too many requests wait for this origin already.
	ErrFull = errors.New("pool: too many requests wait for a connection to this origin")
	// ErrWaited means that none of the origin's connections came free in time.
	ErrWaited = errors.New("pool: no connection to this origin came free in time")
	// ErrBudget means that the pool as a whole is out of connections.
	ErrBudget = errors.New("pool: the limit on open connections is reached")
	// ErrCanceled is returned by Acquire after Cancel.
	ErrCanceled = errors.New("pool: the request was given up")
	// ErrClosed is returned by Acquire after Pool.Close.
	ErrClosed = errors.New("pool: closed")
)

// Origin is one place that connections lead to.
type Origin struct {
	pool   *Pool
	key    Key
	label  string // empty when counted as other
	dialer dialer

	// answers counts responses by class; 0 is carpool's own.
	answers [6]atomic.Uint64
	// gone is set when the pool has forgotten the origin.
	gone atomic.Bool

	// mu guards all below, and the list fields of leases and tickets in it. It is
	// never held across I/O.
	mu      sync.Mutex
	idle    list[*Lease]  // most recently used first
	waiting list[*Ticket] // first come first
	open    int           // connections, idle or in use
	dialing int
	used    time.Duration // when it was last asked for
	limit   idleLimit
	setup   typical // of opening a connection
	addrs   addrs
	stats   Stats
}

func newOrigin(p *Pool, k Key) *Origin {
	o := &Origin{pool: p, key: k, used: p.now()}
	o.stats.Closed = map[Reason]uint64{}
	o.dialer.init(p, k)
	return o
}

// Key returns what the origin is known by.
func (o *Origin) Key() Key { return o.key }

// Gone reports that the pool has forgotten this origin for lack of use: it
// still works, but the pool should be asked for it again.
func (o *Origin) Gone() bool { return o.gone.Load() }

// Answered counts a response passed on with this status, or, with 0, an answer
// that carpool had to make itself.
func (o *Origin) Answered(status int) {
	if class := status / 100; class < len(o.answers) {
		o.answers[class].Add(1)
	}
}

// Ticket is a place in the queue for connections. Its owner uses it for one
// Acquire at a time. The zero value is ready.
type Ticket struct {
	// Replayable says that the request can be sent twice without harm: it may
	// take any idle connection. One that cannot takes only a connection that the
	// upstream is most unlikely to be closing just now.
	Replayable bool
	// Fresh asks for a new connection.
	Fresh bool

	ch     chan grant // made when first needed; holds one
	node   node[*Ticket]
	since  time.Duration
	waited bool // in this Acquire
}

type grant struct {
	lease *Lease
	err   error
}

// Acquire borrows a connection: an idle one, or the next that comes free or
// has been opened. It must be given back by Release or Discard.
func (o *Origin) Acquire(t *Ticket) (*Lease, error) {
	t.waited = false
	l, err := o.acquire(t)
	for err == nil {
		reason := l.check()
		if reason == "" {
			break
		}
		l.reused = false
		l.Discard(reason)
		l, err = o.acquire(t)
	}
	switch {
	case t.waited:
		o.pool.waits.observe(o.pool.now() - t.since)
	case err == nil:
		o.pool.waits.observe(0)
	}
	return l, err
}

func (o *Origin) acquire(t *Ticket) (*Lease, error) {
	now := o.pool.now()
	o.mu.Lock()
	o.used = now
	if l := o.pickLocked(t, now); l != nil {
		o.mu.Unlock()
		return l, nil
	}
	if o.pool.ctx.Err() != nil {
		o.mu.Unlock()
		return nil, ErrClosed
	}
	if !o.mayDialLocked() {
		if back := o.idle.back; back != nil { // none this request may have: make room
			o.idle.remove(back)
			o.mu.Unlock()
			back.value.close(MaxIdle)
			return o.acquire(t)
		}
		if !t.waited && o.waiting.len-o.dialing >= o.pool.cfg.MaxPendingPerHost {
			o.mu.Unlock()
			return nil, ErrFull
		}
	}
	if t.ch == nil {
		t.ch = make(chan grant, 1)
	}
	t.node.value = t
	if t.waited { // its turn had come, but the connection it got was dead
		o.waiting.pushFront(&t.node)
	} else {
		t.since, t.waited = now, true
		o.waiting.pushBack(&t.node)
	}
	o.dialLocked()
	o.mu.Unlock()
	return o.wait(t)
}

// pickLocked takes the idle connection that was used last, if the request may
// have it.
func (o *Origin) pickLocked(t *Ticket, now time.Duration) *Lease {
	if t.Fresh || o.idle.front == nil {
		return nil
	}
	l := o.idle.front.value
	if now-l.idleSince > o.usableLocked(l, t.Replayable) {
		return nil
	}
	o.idle.remove(&l.node)
	l.idled, l.reused = now-l.idleSince, l.requests > 0
	return l
}

// usableLocked is how long a connection may have been idle for a request to
// take it.
func (o *Origin) usableLocked(l *Lease, replayable bool) time.Duration {
	bound := o.pool.cfg.IdleTimeout
	if bound == 0 {
		bound = 1<<63 - 1
	}
	for _, known := range [...]time.Duration{l.hint, o.limit.learned} {
		if known == 0 {
			continue
		}
		safe := known - margin(known)
		if !replayable {
			safe = known / 2
		}
		bound = min(bound, safe)
	}
	return bound
}

func (o *Origin) mayDialLocked() bool {
	limit := o.pool.cfg.MaxConnsPerHost
	return limit == 0 || o.open+o.dialing < limit
}

// dialLocked starts as many dials as there are requests without one, within
// the origin's limit.
func (o *Origin) dialLocked() {
	for o.dialing < o.waiting.len && o.mayDialLocked() && o.pool.ctx.Err() == nil {
		o.dialing++
		o.pool.work.Add(1)
		go o.dial()
	}
}

// wait waits for a grant. A dial has a time limit of its own, so only a
// request that no dial is under way for runs into this one.
func (o *Origin) wait(t *Ticket) (*Lease, error) {
	timer := time.NewTimer(o.pool.cfg.PendingTimeout - (o.pool.now() - t.since))
	defer timer.Stop()
	for {
		select {
		case g := <-t.ch:
			return g.lease, g.err
		case <-timer.C:
			o.mu.Lock()
			if o.waiting.has(&t.node) && !o.waiting.within(&t.node, o.dialing) {
				o.waiting.remove(&t.node)
				t.ch <- grant{err: ErrWaited}
			} else {
				timer.Reset(o.pool.cfg.PendingTimeout)
			}
			o.mu.Unlock()
		}
	}
}

// Cancel makes the Acquire that waits with this ticket, if there is one, return
// ErrCanceled. It may be called from any goroutine.
func (o *Origin) Cancel(t *Ticket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting.has(&t.node) {
		o.waiting.remove(&t.node)
		t.ch <- grant{err: ErrCanceled}
	}
}

// dial opens one connection for whoever waits first by then.
func (o *Origin) dial() {
	p := o.pool
	defer p.work.Done()
	var l *Lease
	err := p.reserve(p.ctx)
	if err == nil {
		if !o.wanted() {
			p.unreserve()
			return
		}
		if l, err = o.connect(); err != nil {
			p.unreserve()
		}
	}
	o.mu.Lock()
	o.dialing--
	if err != nil {
		o.stats.DialErrors++
		if first := o.waiting.front; first != nil {
			o.waiting.remove(first)
			first.value.ch <- grant{err: err}
		}
		o.dialLocked()
		o.mu.Unlock()
		return
	}
	o.open++
	o.stats.Opened++
	o.stats.HandshakeTime += l.handshake
	o.setup.add(l.handshake)
	l.figures = o.addrs.opened(l.addr.Addr())
	if first := o.waiting.front; first != nil {
		o.waiting.remove(first)
		first.value.ch <- grant{lease: l}
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	l.putIdle() // what it was opened for took one that came free meanwhile
}

// wanted reports whether a dial that had to wait for a slot is still needed,
// and ends it if not: those it was begun for may have got others meanwhile.
func (o *Origin) wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dialing <= o.waiting.len {
		return true
	}
	o.dialing--
	return false
}

// give hands a connection that came free to the first request that waits and
// takes a used one, or keeps it idle. It returns the connection that has to be
// closed instead, if there is one, and why.
func (o *Origin) give(l *Lease) (*Lease, Reason) {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(l)
	if l.hungUp {
		return l, UpstreamClosed
	}
	fresh := 0
	for n := o.waiting.front; n != nil; n = n.next {
		if !n.value.Fresh {
			o.waiting.remove(n)
			l.idled, l.reused = 0, l.requests > 0
			n.value.ch <- grant{lease: l}
			return nil, ""
		}
		if fresh++; fresh > o.dialing { // the limit keeps this one from its new connection
			return l, MaxIdle
		}
	}
	switch {
	case o.pool.ctx.Err() != nil:
		return l, Shutdown
	case o.pool.cfg.MaxIdlePerHost == 0, o.pool.starved.Load() > 0, o.gone.Load():
		return l, MaxIdle
	}
	l.idleSince = now
	o.idle.pushFront(&l.node)
	if o.idle.len <= o.pool.cfg.MaxIdlePerHost {
		return nil, ""
	}
	back := o.idle.back
	o.idle.remove(back)
	return back.value, MaxIdle
}

// keptOn accounts for a connection that its borrower uses again without having
// given it back.
func (o *Origin) keptOn(l *Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(l)
	l.idled, l.reused = 0, true
}

// settleLocked accounts for the exchange that a connection has done.
func (o *Origin) settleLocked(l *Lease) {
	if l.reused {
		l.reused = false
		o.stats.Reused++
		o.stats.SavedTime += o.setup.value
		l.figures.Requests++
		o.limit.survived(l.idled)
	}
}

// closed accounts for a connection that is no more, in use or idle.
func (o *Origin) closed(l *Lease, reason Reason) {
	now := o.pool.now()
	if reason == PeerDead {
		o.dialer.avoid(l.addr.Addr(), now)
	}
	o.mu.Lock()
	if reason == ClosedOnReuse {
		if l.idled > 0 { // else it had not been idle
			o.limit.closedAfter(l.idled, now)
		}
		l.reused = false
	}
	o.settleLocked(l)
	o.open--
	l.figures.Open--
	o.stats.Closed[reason]++
	o.dialLocked()
	o.mu.Unlock()
	if reason == PeerDead {
		addr := l.addr
		o.drop(func(l *Lease) bool { return l.addr == addr }, PeerDeadToo)
	}
}

// hungUp removes an idle connection that the peer has closed, or that the
// kernel has given up because the peer is dead. Who uses one finds out by
// itself, or has done with it: then it is not kept.
func (o *Origin) hungUp(l *Lease) {
	now := o.pool.now()
	o.mu.Lock()
	idle := o.idle.has(&l.node)
	if idle {
		o.idle.remove(&l.node)
	} else {
		l.hungUp = true
	}
	o.mu.Unlock()
	if !idle {
		return
	}
	_, err := l.conn.Pending()
	reason := Dead(err, UpstreamClosed)
	if reason == UpstreamClosed {
		o.mu.Lock()
		o.limit.closedAfter(now-l.idleSince, now)
		o.mu.Unlock()
	}
	l.close(reason)
}

// tidy retires idle connections that are too old, or idle for too long. Those
// beyond a learned limit stay: nobody takes them, and when the upstream closes
// them, or does not, more is learned.
func (o *Origin) tidy(now time.Duration) {
	cfg := &o.pool.cfg
	o.drop(func(l *Lease) bool {
		// It may have been closed without that being known yet.
		if idle := now - l.idleSince; o.limit.refutedBy(idle) && !l.conn.PeerGone() {
			o.limit.survived(idle)
		}
		return cfg.IdleTimeout > 0 && now-l.idleSince >= cfg.IdleTimeout ||
			l.hint > 0 && now-l.idleSince >= l.hint-margin(l.hint)
	}, IdleTimeout)
	o.drop(func(l *Lease) bool { return l.expired(now) }, MaxAge)
}

// drop closes the idle connections that which says, longest idle first, and
// returns how many they were. It calls which with o.mu held.
func (o *Origin) drop(which func(*Lease) bool, reason Reason) int {
	var gone []*Lease
	o.mu.Lock()
	for n := o.idle.back; n != nil; {
		prev := n.prev
		if which(n.value) {
			o.idle.remove(n)
			gone = append(gone, n.value)
		}
		n = prev
	}
	o.mu.Unlock()
	for _, l := range gone {
		l.close(reason)
	}
	return len(gone)
}

// failWaiting ends the wait of all who wait.
func (o *Origin) failWaiting(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := o.waiting.front; n != nil; n = o.waiting.front {
		o.waiting.remove(n)
		n.value.ch <- grant{err: err}
	}
}

// idleSince returns since when the longest idle connection has been so.
func (o *Origin) idleSince() (time.Duration, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle.back == nil {
		return 0, false
	}
	return o.idle.back.value.idleSince, true
}

// retire marks the origin as gone if it was not used since then and has
// nothing to keep.
func (o *Origin) retire(since time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open+o.dialing+o.waiting.len > 0 || o.used > since {
		return false
	}
	o.gone.Store(true)
	return true
}
