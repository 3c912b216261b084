package pool

import (
	"context"
	"net/netip"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

// LookUp asks for the addresses of a host, and reports whether they are all.
func LookUp(ctx context.Context, timeout time.Duration, host string, resolvers ...Resolver) ([]netip.Addr, bool, error) {
	n := names{resolvers: resolvers, timeout: timeout}
	r, err := n.lookUp(ctx, host)
	return r.addrs, r.whole, err
}

// AskThese makes a pool that has not been used yet ask these resolvers.
func (p *Pool) AskThese(resolvers ...Resolver) { p.names.resolvers = resolvers }

// Break puts something into the pool that the janitor stumbles over, until it is
// mended.
func (p *Pool) Break() (mend func()) {
	set := func(broken bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.longest = nil; broken {
			p.longest = longest{nil}
		}
	}
	set(true)
	return func() { set(false) }
}

// Stumble has the watcher tell of a connection that nothing can be done about.
func (p *Pool) Stumble() {
	p.mu.Lock()
	p.leases[0] = &Lease{}
	p.mu.Unlock()
	p.hungUp(0)
	p.delist(&Lease{})
}

// What of resolv.conf matters.
var (
	Turn        = turn
	NameServers = nameServers
)

// Manners is manners for the tests.
type Manners struct{ m manners }

// ClosedAfter calls closedAfter.
func (m *Manners) ClosedAfter(idle, now time.Duration) { m.m.closedAfter(idle, now) }

// Survived calls survived.
func (m *Manners) Survived(idle time.Duration) { m.m.survived(idle) }

// Strayed calls strayed.
func (m *Manners) Strayed(now time.Duration) { m.m.strayed(now) }

// Keeps calls keeps.
func (m *Manners) Keeps(now time.Duration) bool { return m.m.keeps(now) }

// Rest calls rest.
func (m *Manners) Rest(replayable bool, now time.Duration) time.Duration {
	return m.m.rest(replayable, now)
}

// Learned returns the idle limit that was learned, 0 for none.
func (m *Manners) Learned() time.Duration { return m.m.limit.learned }

// Settled is settled.
const Settled = settled

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
	for c := p.budget.claims.Front(); c != nil; c = c.Next() {
		o := c.Value.origin
		o.mu.Lock()
		n += o.queue.undialled()
		o.mu.Unlock()
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
	o.manners.limit.learned = d
}

// Forgive makes what strays the upstream has sent older by d.
func (o *Origin) Forgive(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.manners.strays.until -= d
}

// Hasty reports whether the upstream is known to close connections soon after
// its answers.
func (o *Origin) Hasty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.manners.haste.hasty()
}

// PassTime makes the idle connections idle for d longer.
func (o *Origin) PassTime(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range []*list.Node[*Lease]{o.idle.free.Front(), o.idle.pinned.Front()} {
		for ; n != nil; n = n.Next() {
			n.Value.idleSince -= d
			n.Value.halfSince -= d
		}
	}
	o.times.failed = max(o.times.failed-d, 0)
}

// Tidy does what the janitor does.
func (o *Origin) Tidy() { o.tidy(o.pool.now()) }

// Dialing returns how many dials are under way.
func (o *Origin) Dialing() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queue.dialing
}

// IdlePending reports whether bytes wait on the connection that was used last.
func (o *Origin) IdlePending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle.free.Front() == nil {
		return false
	}
	some, _ := o.idle.free.Front().Value.conn.Pending()
	return some
}

// Order is the order in which the addresses are tried.
func (o *Origin) Order(addrs ...netip.Addr) []netip.AddrPort {
	return (&making{origin: o}).order(addrs)
}

// Avoid notes a dead address, as of a while ago.
func (o *Origin) Avoid(a netip.Addr, ago time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.bench(a, o.pool.now()-ago)
}

// Avoided returns how many dead addresses are remembered.
func (o *Origin) Avoided() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, e := range o.endpoints.known {
		if e.benched != 0 {
			n++
		}
	}
	return n
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

// Idled returns how long the connection was idle before this loan.
func (l *Lease) Idled() time.Duration { return l.idled }

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

// Add adds t to s, as sums are made.
func (s *Stats) Add(t *Stats) { s.add(t) }
