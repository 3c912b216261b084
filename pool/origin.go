package pool

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
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

	// Guarded by Pool.mu.
	place    list.Node[*Origin] // in known.order
	claim    claim              // its place in the queue for slots
	at       int                // in longest, where it is listed, by
	idleFrom time.Duration
	listed   atomic.Bool

	// answers counts responses by class; 0 is carpool's own.
	answers [6]atomic.Uint64
	// gone is set when the pool has forgotten the origin.
	gone atomic.Bool

	// mu guards all below, and the list fields of leases and tickets in it. It is
	// never held across I/O that can wait; idle connections are looked at with it.
	mu      sync.Mutex
	idle    list.List[*Lease]  // most recently used first
	pinned  list.List[*Lease]  // idle too, likewise, and each for one borrower alone
	waiting list.List[*Ticket] // first come first
	open    int                // connections, idle or in use
	dialing int
	used    time.Duration // when it was last asked for
	opened  time.Duration // when a dial last succeeded, 0: never
	failed  time.Duration // when one last failed, 0: never
	manners manners
	setup   typical // of opening a connection
	addrs   addrs
	stats   Stats
}

func newOrigin(p *Pool, k Key) *Origin {
	o := &Origin{pool: p, key: k, used: p.now()}
	o.stats.Closed = map[Reason]uint64{}
	o.manners.never = p.cfg.NoReuse != nil && p.cfg.NoReuse(k)
	o.place.Value, o.claim.origin, o.claim.node.Value = o, o, &o.claim
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
	// Avoid, if valid, is an address that a connection opened for this request
	// leads to only if there is no other.
	Avoid netip.Addr

	ch     chan grant // made when first needed; holds one
	node   list.Node[*Ticket]
	dial   *opening // begun for this request; guarded by the origin's mutex
	own    *Lease   // pinned for this ticket; it may have been closed since
	since  time.Duration
	waited bool // in this Acquire
}

// opening is a dial under way. Whatever it brings is for who waits first by
// then, but if it fails that says something only to the request that it was
// begun for, if that still waits: another may have come just now, and is tried
// for anew.
type opening struct {
	by    *Ticket    // nil if there is none that waits still; guarded by the origin's mutex
	avoid netip.Addr // to be tried last
}

type grant struct {
	lease *Lease
	err   error
}

// Acquire borrows a connection: an idle one, or the next that comes free or
// has been opened. It must be given back by Release or Discard.
func (o *Origin) Acquire(t *Ticket) (*Lease, error) {
	t.waited = false
	l, err := o.takeOwn(t), error(nil)
	if l == nil {
		l, err = o.acquire(t)
	}
	for err == nil {
		reason := l.check()
		if reason == "" {
			break
		}
		l.reused = false
		l.close(reason)
		l, err = o.acquire(t)
	}
	if err == nil {
		l.lent.Store(true)
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
		if l := o.idleLongestLocked(); l != nil { // none this request may have: make room
			l.node.Leave()
			o.mu.Unlock()
			l.close(MaxIdle)
			return o.acquire(t)
		}
		if !t.waited && o.waiting.Len()-o.dialing >= o.pool.cfg.MaxPendingPerHost {
			o.mu.Unlock()
			return nil, ErrFull
		}
	}
	if t.ch == nil {
		t.ch = make(chan grant, 1)
	}
	t.node.Value = t
	if t.waited { // its turn had come, but the connection it got was dead
		o.waiting.PushFront(&t.node)
	} else {
		t.since, t.waited = now, true
		o.waiting.PushBack(&t.node)
	}
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
	return o.wait(t)
}

// pickLocked takes the idle connection that was used last of those that the
// request may have.
func (o *Origin) pickLocked(t *Ticket, now time.Duration) *Lease {
	if t.Fresh || !o.manners.keeps(now) {
		return nil
	}
	n, rest := o.idle.Front(), o.manners.rest(t.Replayable, now)
	for n != nil && now-n.Value.idleSince < rest {
		n = n.Next()
	}
	if n == nil || now-n.Value.idleSince > o.usableLocked(n.Value, t.Replayable) {
		return nil
	}
	l := n.Value
	if !t.Replayable {
		l = o.youngestLocked(n, now)
	}
	o.idle.Remove(&l.node)
	l.idled, l.reused = now-l.idleSince, l.requests > 0
	return l
}

// fewUsedLast is how many connections a request that cannot be sent twice
// chooses from.
const fewUsedLast = 4

// youngestLocked returns the connection that was opened last of the few that
// were used last, from n on, which the request may have. In a rollout the
// servers that end are those that have been there for long.
func (o *Origin) youngestLocked(n *list.Node[*Lease], now time.Duration) *Lease {
	youngest := n.Value
	for range fewUsedLast - 1 {
		if n = n.Next(); n == nil || now-n.Value.idleSince > o.usableLocked(n.Value, false) {
			break
		}
		if n.Value.id > youngest.id {
			youngest = n.Value
		}
	}
	return youngest
}

// usableLocked is how long a connection may have been idle for a request to
// take it.
func (o *Origin) usableLocked(l *Lease, replayable bool) time.Duration {
	bound := o.manners.usable(l.hint, replayable)
	if t := o.pool.cfg.IdleTimeout; t > 0 {
		bound = min(bound, t)
	}
	return bound
}

func (o *Origin) mayDialLocked() bool {
	limit := o.pool.cfg.MaxConnsPerHost
	return limit == 0 || o.open+o.dialing < limit
}

// wantsLocked reports whether a connection is to be opened for a request that
// waits, as far as the origin's own limit goes.
func (o *Origin) wantsLocked() bool {
	return o.dialing < o.waiting.Len() && o.mayDialLocked() && o.pool.ctx.Err() == nil
}

// holds returns how many slots the origin has, and whether it wants another.
func (o *Origin) holds() (n int, wants bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open + o.dialing, o.wantsLocked()
}

// begin begins a dial, for which the caller has taken a slot, and reports true;
// or false if none is wanted any more.
func (o *Origin) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.wantsLocked() {
		return false
	}
	d := &opening{by: o.undialledLocked()}
	d.by.dial, d.avoid = d, d.by.Avoid
	o.beginLocked(d)
	return true
}

func (o *Origin) beginLocked(d *opening) {
	o.dialing++
	o.pool.work.Add(1)
	go o.dial(d)
}

// undialledLocked returns a request that no dial under way was begun for, the
// first of them if there may be many. There is one if there are fewer dials.
func (o *Origin) undialledLocked() *Ticket {
	if last := o.waiting.Back().Value; last.dial == nil && o.dialing == o.waiting.Len()-1 {
		return last
	}
	n := o.waiting.Front()
	for n.Value.dial != nil {
		n = n.Next()
	}
	return n.Value
}

// grantLocked ends a wait.
func (o *Origin) grantLocked(t *Ticket, g grant) {
	o.waiting.Remove(&t.node)
	if t.dial != nil {
		t.dial.by, t.dial = nil, nil
	}
	t.ch <- g
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
			if o.waiting.Has(&t.node) && t.dial == nil && !within(&o.waiting, &t.node, o.dialing) {
				err := ErrWaited
				if o.mayDialLocked() { // so it is a slot that was short
					err = ErrBudget
				}
				o.grantLocked(t, grant{err: err})
			} else {
				timer.Reset(o.pool.cfg.PendingTimeout)
			}
			o.mu.Unlock()
		}
	}
}

// within reports whether n is among the first k.
func within(l *list.List[*Ticket], n *list.Node[*Ticket], k int) bool {
	for f := l.Front(); f != nil && k > 0; f, k = f.Next(), k-1 {
		if f == n {
			return true
		}
	}
	return false
}

// Cancel makes the Acquire that waits with this ticket, if there is one, return
// ErrCanceled. It may be called from any goroutine.
func (o *Origin) Cancel(t *Ticket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting.Has(&t.node) {
		o.grantLocked(t, grant{err: ErrCanceled})
	}
}

// dial opens one connection for whoever waits first by then.
func (o *Origin) dial(d *opening) {
	p := o.pool
	defer p.work.Done()
	defer p.contain("a dial")
	l, err := o.connect(d.avoid)
	if err != nil {
		p.unreserve()
	}
	o.mu.Lock()
	o.dialing--
	if err != nil {
		o.stats.DialErrors++
		o.failed = p.now()
		if d.by != nil {
			o.grantLocked(d.by, grant{err: err})
		}
		wants := o.wantsLocked()
		o.mu.Unlock()
		if wants {
			p.claim(o)
		}
		return
	}
	if d.by != nil {
		d.by.dial = nil // it may have to wait on, for another
	}
	o.open++
	o.opened = p.now()
	o.stats.Opened++
	o.stats.HandshakeTime += l.handshake
	o.setup.add(l.handshake)
	l.figures = o.addrs.opened(l.addr.Addr())
	if first := o.waiting.Front(); first != nil {
		o.grantLocked(first.Value, grant{lease: l})
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	l.putIdle() // what it was opened for took one that came free meanwhile
}

// give hands a connection that came free to the first request that waits and
// takes a used one, or keeps it idle. It returns the connection that has to be
// closed instead, if there is one, and why. rival is what claims its slot, if
// anything does, and theirs how many that has already.
func (o *Origin) give(l *Lease, rival *claim, theirs int) (*Lease, Reason) {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(l)
	if l.hungUp {
		l.idled = 0
		return l, l.hangUp(0)
	}
	if !o.manners.keeps(now) {
		return l, NotTrusted
	}
	fresh := 0
	for n := o.waiting.Front(); n != nil; n = n.Next() {
		if rival != nil && (theirs == 0 || o.open+o.dialing > theirs+1) {
			return l, MaxIdle
		}
		if t := n.Value; !t.Fresh && o.manners.rest(t.Replayable, now) == 0 {
			l.idled, l.reused = 0, l.requests > 0
			o.grantLocked(n.Value, grant{lease: l})
			return nil, ""
		}
		if fresh++; fresh > o.dialing { // the limit keeps this one from its new connection
			return l, MaxIdle
		}
	}
	switch {
	case o.pool.ctx.Err() != nil:
		return l, Shutdown
	case o.pool.cfg.MaxIdlePerHost == 0, rival != nil, o.gone.Load():
		return l, MaxIdle
	}
	l.idleSince = now
	o.idle.PushFront(&l.node)
	if o.idle.Len() <= o.pool.cfg.MaxIdlePerHost {
		return nil, ""
	}
	back := o.idle.Back()
	o.idle.Remove(back)
	return back.Value, MaxIdle
}

// settleLocked accounts for the exchange that a connection has done.
func (o *Origin) settleLocked(l *Lease) {
	if l.reused {
		l.reused = false
		o.stats.Reused++
		o.stats.SavedTime += o.setup.value
		l.figures.Requests++
		o.manners.survived(l.idled)
	}
}

// closed accounts for a connection that is no more, in use or idle.
func (o *Origin) closed(l *Lease, reason Reason) {
	now := o.pool.now()
	if reason == PeerDead {
		o.dialer.avoid(l.addr.Addr(), now)
	}
	o.mu.Lock()
	switch reason {
	case ClosedOnReuse, UpstreamClosed:
		if l.Reused() { // else it says nothing of what becomes of used ones
			o.manners.closedAfter(l.idled, now)
		}
		l.reused = false
	case StrayBytes:
		o.manners.strayed(now)
	}
	o.settleLocked(l)
	o.open--
	l.figures.Open--
	o.stats.Closed[reason]++
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
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
	idle := l.node.Listed()
	if idle {
		l.node.Leave()
		l.idled = now - l.idleSince
	} else {
		l.hungUp = true
	}
	o.mu.Unlock()
	if !idle {
		return
	}
	l.close(l.hangUp(l.idled))
}

// tidy retires idle connections that no request may take any more. Of those
// beyond a learned limit one stays, the one idle longest: when the upstream
// closes it, or does not, more is learned.
func (o *Origin) tidy(now time.Duration) {
	cfg := &o.pool.cfg
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
	type dropped struct {
		lease  *Lease
		reason Reason
	}
	var gone []dropped
	o.mu.Lock()
	for _, in := range [...]*list.List[*Lease]{&o.idle, &o.pinned} {
		for n := in.Back(); n != nil; {
			prev := n.Prev()
			if reason := why(n.Value); reason != "" {
				in.Remove(n)
				gone = append(gone, dropped{n.Value, reason})
			}
			n = prev
		}
	}
	o.mu.Unlock()
	for _, d := range gone {
		d.lease.close(d.reason)
	}
	return len(gone)
}

// failWaiting ends the wait of all who wait.
func (o *Origin) failWaiting(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := o.waiting.Front(); n != nil; n = o.waiting.Front() {
		o.grantLocked(n.Value, grant{err: err})
	}
}
