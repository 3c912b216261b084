package pool

import (
	"cmp"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

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
	for _, n := range []*list.Node[*Lease]{o.idle.free.Front(), o.idle.pinned.Front(), o.idle.ready.Front()} {
		for ; n != nil; n = n.Next() {
			n.Value.idleSince -= d
			n.Value.halfSince -= d
			n.Value.born -= d
			if n.Value.turnBegan != 0 {
				n.Value.turnBegan -= d
			}
		}
	}
	o.times.failed = max(o.times.failed-d, 0)
	o.spares.last -= d
	o.warmth.next, o.warmth.until = o.warmth.next-d, o.warmth.until-d
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
	for _, in := range o.idle.lists() {
		if n := in.Front(); n != nil {
			some, _ := n.Value.conn.Pending()
			return some
		}
	}
	return false
}

// Order is the order in which the addresses are tried.
func (o *Origin) Order(addrs ...netip.Addr) []netip.AddrPort {
	list, release := (&making{origin: o}).order(addrs)
	release()
	return list
}

// Avoid notes a dead address, as of a while ago.
func (o *Origin) Avoid(a netip.Addr, ago time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.setAside(a, "a test says so", o.pool.now()-ago)
}

// Avoided returns how many dead addresses are remembered.
func (o *Origin) Avoided() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, e := range o.endpoints.known {
		if e.bench.why != "" {
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

// Choose has n endpoints used, with so many connections in turn, until it is called
// again.
func (o *Origin) Choose(n, width int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.choose(n, width, o.pool.now())
	o.endpoints.full, o.endpoints.revised = max(n, width), never
}

const never = time.Duration(1<<63 - 1)

// Chosen returns the addresses in use.
func (o *Origin) Chosen() (list []netip.Addr) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.endpoints.chosen {
		list = append(list, e.addr)
	}
	return list
}

// Moved calls moved.
func (o *Origin) Moved(addrs ...netip.Addr) { o.moved(addrs) }

// Rank returns addresses as an instance prefers them.
func Rank(identity string, addrs []netip.Addr) []netip.Addr {
	list := slices.Clone(addrs)
	slices.SortFunc(list, func(a, b netip.Addr) int { return cmp.Compare(rank(identity, a), rank(identity, b)) })
	return list
}

// Bench is bench for the tests.
type Bench struct{ b bench }

// Begin calls begin.
func (b *Bench) Begin(now time.Duration) { b.b.begin("a test says so", now) }

// End calls end.
func (b *Bench) End() { b.b.end() }

// Until returns when it is over, 0 if it has not begun.
func (b *Bench) Until() time.Duration { return b.b.until }

// Admits calls admits.
func (b *Bench) Admits(replayable bool, busy int, now time.Duration) bool {
	return b.b.admits(replayable, busy, now)
}

// LastBench is the longest that an endpoint sits on the bench, by chance left out.
const LastBench = lastBench

// Load is load for the tests.
type Load struct{ l load }

// Answered calls answered.
func (l *Load) Answered(took, now time.Duration) { l.l.answered(took, now) }

// Failed calls failed.
func (l *Load) Failed(now time.Duration) bool { return l.l.failed(now) }

// Latency returns the latency that is known, 0 if none is.
func (l *Load) Latency() time.Duration { return l.l.latency }

// Lighter calls lighter.
func Lighter(a, b *Load, busyA, busyB int, chance float64, now time.Duration) bool {
	return lighter(&a.l, &b.l, busyA, busyB, chance, now)
}

// Rush makes the origin known for a server that closes soon after its answers.
func (o *Origin) Rush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.manners.haste.score = hasteMost
}

// Busy makes the origin look as if it had had so many requests a second, and none
// opened a connection.
func (o *Origin) Busy(rate int) {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &o.endpoints.balance
	b.asked(now)
	for range 10*rate - 1 {
		b.asked(now)
	}
	b.began = now - time.Hour
	o.endpoints.revised = 0
}

// Spent makes it look as if a connection had just been opened, so that for a while
// none is due.
func (o *Origin) Spent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.balance.began = o.pool.now() + time.Hour
}

// Retry ends an endpoint's time on the bench, so that it is on trial.
func (o *Origin) Retry(a netip.Addr) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.find(a).bench.until = o.pool.now()
	o.endpoints.revised = 0
}

// Settle makes an endpoint one that came a while ago.
func (o *Origin) Settle(a netip.Addr, ago time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.find(a).since = o.pool.now() - ago
}

// Suspects counts how often an origin's addresses are asked for again.
func (p *Pool) Suspects() *atomic.Int64 {
	var n atomic.Int64
	p.suspect = func(*Origin) { n.Add(1) }
	return &n
}

// Peak is peak for the tests.
type Peak struct{ p peak }

// PeakSlots is how many slots make up a Peak's window.
const PeakSlots = peakSlots

// NewPeak calls newPeak.
func NewPeak(idleTimeout time.Duration) *Peak { return &Peak{newPeak(idleTimeout)} }

// Needs calls needs.
func (p *Peak) Needs(n int, now time.Duration) { p.p.needs(n, now) }

// Recent calls recent.
func (p *Peak) Recent() int { return p.p.recent() }

// Surplus calls surplus.
func (p *Peak) Surplus(open int) int { return p.p.surplus(open) }

// ForgetPeak makes what the origin needed lately as long ago as the peak
// remembers, and longer.
func (o *Origin) ForgetPeak() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peak.ends -= time.Duration(len(o.peak.most)) * o.peak.width
}

// Peak returns what the origin has needed at a time lately.
func (o *Origin) Peak() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.peak.recent()
}

// Carrying returns how many connections are said to be in use for requests.
func (p *Pool) Carrying() (n int) {
	for _, o := range p.all() {
		o.mu.Lock()
		n += o.carrying
		o.mu.Unlock()
	}
	return n
}

// TendWarm does what the janitor does for a warm origin.
func (o *Origin) TendWarm() { o.tendWarm(o.pool.now()) }

// WarmWait returns how long no dial is made for warmth, at most, and 0 if one may
// be made.
func (o *Origin) WarmWait() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(o.warmth.next-o.pool.now(), 0)
}

// KeptWarm returns how many origins the janitor keeps warm.
func (p *Pool) KeptWarm() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.warmed)
}

// LastWarmWait is the longest wait between attempts to get warm again, but for
// jitter of a quarter, and PrimedFor how long origins are primed.
const (
	LastWarmWait = lastWarmWait
	PrimedFor    = primedFor
)

// Crowd is crowd for the tests.
type Crowd struct{ c crowd }

// Bound calls bound.
func (c *Crowd) Bound(now time.Duration) int { return c.c.bound(now) }

// Due calls due.
func (c *Crowd) Due(waited time.Duration, held int, now time.Duration) bool {
	return c.c.due(waited, held, now)
}

// Made calls made, for a request to here.
func (c *Crowd) Made(held int, now time.Duration) { c.c.made(here, held, now) }

var here, elsewhere = &endpoint{}, &endpoint{}

// Answered calls answered, on a connection to here besides so many others.
func (c *Crowd) Answered(took time.Duration, others int, now time.Duration) {
	c.c.answered(here, took, others, others, now)
}

// AnsweredElsewhere calls answered, on a connection to elsewhere.
func (c *Crowd) AnsweredElsewhere(took, now time.Duration) { c.c.answered(elsewhere, took, 0, 0, now) }

// What a Crowd goes by.
const (
	RoomAfter    = roomAfter
	RarelyAfter  = rarelyAfter
	EnoughTrials = enoughTrials
	FirstTerm    = firstTerm
	SeenFor      = seenFor
	FirstPause   = firstPause
	LastPause    = lastPause
)

// Bound is how many connections to an address are kept while more are open; 0 is
// without bound.
func (o *Origin) Bound() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.manners.crowd.bound(o.pool.now()); o.manners.crowded(o.pool.now()) {
		return b
	}
	return 0
}

// Crowd makes n the learned bound.
func (o *Origin) Crowd(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.manners.crowd.most, o.manners.crowd.until = n, o.pool.now()+time.Hour
}

// WaitedSince makes the connection's first request older by d.
func (l *Lease) WaitedSince(d time.Duration) { l.since -= d }

// RoomFor asks for room for a handshake to an address.
func (o *Origin) RoomFor(a netip.AddrPort) { o.hurry(&Lease{origin: o, addr: a}) }

// RootCAs returns what upstreams are verified by.
func (p *Pool) RootCAs() *x509.CertPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.credentials.roots
}

// MostSpares is how many spare tunnels there may be.
const MostSpares = mostSpares

// WaitedOf divides a wait by the steps of a dial.
func WaitedOf(began, resolved, connected, secured, since, until time.Duration) Waited {
	c := course{began: began}
	c.through[StageDNS], c.through[StageConnect], c.through[StageTLS] = resolved, connected, secured
	return c.of(since, until)
}
