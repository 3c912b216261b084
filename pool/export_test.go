package pool

import (
	"net/netip"
	"time"
)

// IdleLimit is idleLimit for the tests.
type IdleLimit struct{ l idleLimit }

// ClosedAfter calls closedAfter.
func (l *IdleLimit) ClosedAfter(idle, now time.Duration) { l.l.closedAfter(idle, now) }

// Survived calls survived.
func (l *IdleLimit) Survived(idle time.Duration) { l.l.survived(idle) }

// Learned returns what was learned, 0 for nothing.
func (l *IdleLimit) Learned() time.Duration { return l.l.learned }

// Margin is margin.
func Margin(limit time.Duration) time.Duration { return margin(limit) }

// The bounds of a Pool's memory.
const (
	MaxOrigins = maxOrigins
	MaxLabels  = maxLabels
	LookedAt   = lookedAt
)

// Open returns how many connections the pool knows, and how many slots of its
// budget are taken.
func (p *Pool) Open() (leases, slots int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.leases), p.budget.taken
}

// StopJanitor keeps the janitor away, for tests of what he would change.
func (p *Pool) StopJanitor() { p.tick.Stop() }

// Origins returns how many origins the pool remembers.
func (p *Pool) Origins() int { return len(p.all()) }

// Starved returns how many requests and tunnels wait for a slot.
func (p *Pool) Starved() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.budget.claims.front; c != nil; c = c.next {
		if o := c.value.origin; o == nil {
			n++
		} else {
			o.mu.Lock()
			n += o.waiting.len - o.dialing
			o.mu.Unlock()
		}
	}
	return n
}

// Forget forgets the origins without connections.
func (p *Pool) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(len(p.known.byKey), 0)
}

// SetMaxOrigins bounds the origins that the pool remembers.
func (p *Pool) SetMaxOrigins(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known.most = n
}

// HalfFor is how long half a record may wait for its rest.
const HalfFor = halfFor

// Hold keeps everyone else from looking at the origin until release is called.
func (o *Origin) Hold() (release func()) {
	o.mu.Lock()
	return o.mu.Unlock
}

// Learn makes d the learned idle limit.
func (o *Origin) Learn(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limit.learned = d
}

// PassTime makes the idle connections idle for d longer.
func (o *Origin) PassTime(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range []*node[*Lease]{o.idle.front, o.pinned.front} {
		for ; n != nil; n = n.next {
			n.value.idleSince -= d
			n.value.halfSince -= d
		}
	}
	o.failed = max(o.failed-d, 0)
}

// Tidy does what the janitor does.
func (o *Origin) Tidy() { o.tidy(o.pool.now()) }

// Dialing returns how many dials are under way.
func (o *Origin) Dialing() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dialing
}

// IdlePending reports whether bytes wait on the connection that was used last.
func (o *Origin) IdlePending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle.front == nil {
		return false
	}
	some, _ := o.idle.front.value.conn.Pending()
	return some
}

// Order is the order in which the addresses are tried.
func (o *Origin) Order(addrs ...netip.Addr) []netip.AddrPort {
	return o.dialer.order(addrs, o.key.Port, o.pool.now())
}

// Avoid notes a dead address, as of a while ago.
func (o *Origin) Avoid(a netip.Addr, ago time.Duration) { o.dialer.avoid(a, o.pool.now()-ago) }

// Avoided returns how many dead addresses are remembered.
func (o *Origin) Avoided() int {
	o.dialer.mu.Lock()
	defer o.dialer.mu.Unlock()
	return len(o.dialer.dead)
}

// Lifetime returns how long after its opening the connection expires.
func (l *Lease) Lifetime() time.Duration { return l.expires }

// MaxOverAge is how much older than its age a connection becomes at most.
const MaxOverAge = maxOverAge

// ComeOfAge makes the connection reach its age.
func (l *Lease) ComeOfAge() {
	l.origin.mu.Lock()
	defer l.origin.mu.Unlock()
	l.expires = l.origin.pool.now()
}

// Unused gives a connection back as if no request had been on it.
func (l *Lease) Unused() {
	l.comeBack()
	l.putIdle()
}

// Overdue reports whether the connection is to be closed when it has been past
// its age for d.
func (l *Lease) Overdue(d time.Duration) bool {
	l.origin.mu.Lock()
	defer l.origin.mu.Unlock()
	is, _ := l.origin.overdueLocked(l, l.expires+d)
	return is
}

// PassTime makes the connection older by d.
func (l *Lease) PassTime(d time.Duration) {
	l.origin.mu.Lock()
	defer l.origin.mu.Unlock()
	l.expires = max(l.expires-d, 1)
}

// HungUp reports whether the peer was seen to hang up while l was in use.
func (l *Lease) HungUp() bool {
	l.origin.mu.Lock()
	defer l.origin.mu.Unlock()
	return l.hungUp
}

// Pending reports whether bytes wait on the connection.
func (l *Lease) Pending() bool {
	some, _ := l.conn.Pending()
	return some
}
