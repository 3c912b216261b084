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
)

// Open returns how many connections the pool knows, and how many slots of its
// budget are taken.
func (p *Pool) Open() (leases, slots int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.leases), len(p.slots)
}

// Origins returns how many origins the pool remembers.
func (p *Pool) Origins() int { return len(p.all()) }

// Starved returns how many dials wait for a slot.
func (p *Pool) Starved() int { return int(p.starved.Load()) }

// Forget forgets the origins without connections.
func (p *Pool) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(0)
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
	for n := o.idle.front; n != nil; n = n.next {
		n.value.idleSince -= d
	}
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

// Typical is typical for the tests.
type Typical struct{ t typical }

// Add calls add and returns the value then.
func (t *Typical) Add(d time.Duration) time.Duration {
	t.t.add(d)
	return t.t.value
}

// MaxAddrs is how many addresses of an origin have figures of their own.
const MaxAddrs = maxAddrs
