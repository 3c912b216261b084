package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool/names"
)

// Stage is a part of opening a connection. The zero value is none.
type Stage uint8

// What opening a connection can fail at.
const (
	StageDNS     Stage = iota + 1 // the addresses of the name
	StagePolicy                   // whether the address may be connected to
	StageConnect                  // TCP
	StageTLS                      // the handshake
	StageHTTP2                    // the server's settings, which come first
	StageHop                      // the next hop's own connection to the origin
)

// String returns the stage in one word.
func (s Stage) String() string {
	return [...]string{"none", "dns", "policy", "connect", "tls", "http2", "hop"}[s]
}

// DialError is why no connection could be opened. Nothing has been sent.
type DialError struct {
	// Stage is what failed.
	Stage Stage
	Err   error
	// Hop says that it is the next hop that failed, or could not be reached.
	Hop bool
}

func (e *DialError) Error() string { return e.Stage.String() + ": " + e.Err.Error() }
func (e *DialError) Unwrap() error { return e.Err }

// failedAt says at which stage an error came, unless it says so itself.
func failedAt(s Stage, err error) error {
	var known *DialError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &DialError{Stage: s, Err: err}
}

func (o *Origin) mayDialLocked() bool {
	limit := o.pool.cfg.MaxConnsPerHost
	return limit == 0 || o.holdsLocked() < limit
}

// wantsLocked reports whether a connection is to be opened for a request that
// waits, as far as the origin's own limit goes.
func (o *Origin) wantsLocked() bool {
	return o.undialledLocked() > 0 && o.mayDialLocked() && o.pool.ctx.Err() == nil
}

// holdsLocked returns how many slots the origin has.
func (o *Origin) holdsLocked() int { return o.open + o.queue.dialing }

// holds returns how many slots the origin has, and whether it wants another.
func (o *Origin) holds() (n int, wants bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.holdsLocked(), o.wantsLocked()
}

// begin begins a dial, for which the caller has taken a slot, and reports true;
// or false if none is wanted any more.
func (o *Origin) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.wantsLocked() {
		return false
	}
	o.beginLocked(o.queue.begin())
	return true
}

func (o *Origin) beginLocked(d *opening) {
	o.pool.work.Add(1)
	o.endpoints.balance.begins(o.pool.now())
	go o.dial(d)
}

// dial opens one connection for whoever waits first by then.
func (o *Origin) dial(d *opening) {
	p := o.pool
	defer p.work.Done()
	defer p.contain("a dial")
	l, err := o.connect(d)
	if err != nil {
		p.unreserve()
		o.failed(d, err)
		return
	}
	o.mu.Lock()
	o.spareDialledLocked(d)
	o.open++
	o.times.opened = p.now()
	o.stats.Opened++
	o.stats.HandshakeTime += l.handshake
	o.setup.add(l.handshake)
	o.endpoints.opened(l, o.times.opened)
	if l.tls != nil {
		o.manners.crowd.reached(l.endpoint, l.handshake, o.times.opened)
	}
	if l.carrier != nil {
		o.joinSharedLocked(d, l.carrier)
		return
	}
	if why := o.overtakenLocked(l); why != "" {
		o.tooLateLocked(d, l, why)
		return
	}
	o.shared.plain = o.shared.plain || d.shares
	granted, warm := o.joinLocked(d, l), o.warmth.listed
	gone := o.retireLeaversLocked(o.times.opened)
	var surplus []*Lease
	if granted {
		surplus = o.surplusLocked(l, o.times.opened)
	} else {
		o.landing++
	}
	wants := o.shared.offer && o.wantsLocked()
	o.mu.Unlock()
	if wants { // it was not for all that waited for it
		o.pool.claim(o)
	}
	closeEach(gone)
	closeAll(surplus, MakesRoom)
	if !granted {
		o.land(d, l)
	}
	if warm {
		o.rewarm()
	}
}

// land sees to a connection that nobody waits for any more: what it was opened for
// took one that came free meanwhile, or has gone.
func (o *Origin) land(d *opening, l *Lease) {
	switch {
	case d.virgin:
		l.close(ClientGone)
	case d.spare:
		o.keepSpare(l)
	default:
		l.putIdle()
	}
	o.mu.Lock()
	o.landing--
	o.mu.Unlock()
}

// joinLocked gives a new connection to the request that waits first, if there is
// one, and reports whether there was. Those for requests may be used in turn. One
// that was opened to replace another makes that old.
func (o *Origin) joinLocked(d *opening, l *Lease) (granted bool) {
	now := o.times.opened
	o.endpoints.wins(l.addr.Addr())
	l.report.began = now
	if o.queue.nextCarries(d) {
		o.carryLocked(l, now)
	}
	if next := o.queue.next(d); next != nil && next.takesUsed() {
		l.endpoint.idle.enlist(l)
	}
	o.replaceLocked(d, now)
	return o.queue.succeeded(d, l)
}

// replaceLocked makes what a dial was to replace old.
func (o *Origin) replaceLocked(d *opening, now time.Duration) {
	if old := d.replaces; old != nil && old.endpoint.leases.Has(&old.sibling) {
		old.replaced = true
		if !old.aged(now) {
			old.expires = now
		}
	}
}

// failed accounts for a dial that has failed.
func (o *Origin) failed(d *opening, err error) {
	o.mu.Lock()
	o.spareDialledLocked(d)
	now := o.pool.now()
	o.stats.DialErrors++
	o.times.failed = now
	o.queue.part()
	if o.pool.ctx.Err() != nil {
		err = ErrClosed
	}
	if l := o.strandedFor(d.by, now); l != nil {
		o.carryLocked(l, now)
		o.queue.served(d, l)
	} else if l := o.strandedSharedLocked(d.by, now); l != nil {
		o.queue.served(d, l)
	} else {
		o.queue.failed(d, err)
	}
	tell, warm := o.warmth.failed(err, now), o.warmth.listed
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
	if tell != nil {
		tell()
	}
	if warm {
		o.rewarm()
	}
}

// making is a connection as far as it is there. Each step of a dial takes it
// further.
type making struct {
	origin *Origin
	dial   *opening
	aim    aim
	tls    *tls.Config // nil: none
	course *course
	to     *names.Set
	lease  *Lease // from the step on that connects
	shares bool   // it is spoken to in HTTP/2
	trial  *Trial // is told of each address that is dialled; nil: none
	// through says that the next hop has made its connection to the origin.
	through bool
}

// connect opens one connection, and notes in the dial's course how that goes.
func (o *Origin) connect(d *opening) (*Lease, error) {
	m := &making{origin: o, dial: d, aim: d.aim(), tls: o.security(), course: &d.course, shares: o.shared.prior && d.shares}
	m.course.began = o.pool.now()
	if err := m.walk(o.pool.ctx); err != nil {
		m.undo()
		return nil, err
	}
	return m.lease, nil
}

// undo closes what is there of the connection.
func (m *making) undo() {
	if l := m.lease; l != nil {
		m.origin.pool.delist(l)
		m.origin.giveUp(l)
		l.closeConn()
	}
}

// walk goes through the steps, or to the first that fails. Finding addresses has a
// time limit of its own; the steps behind it share DialTimeout.
func (m *making) walk(ctx context.Context) (err error) {
	p := m.origin.pool
	defer func() {
		if r := recover(); r != nil {
			err = &DialError{Stage: StageConnect, Err: p.caught("a dial", r)}
		}
	}()
	if err := m.take(ctx, StageDNS, (*making).resolve); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	err = m.take(ctx, StageConnect, (*making).race)
	if err == nil && m.origin.key.Way == ByHop {
		err = m.takeHop(ctx)
	}
	if err == nil && m.tls != nil {
		err = m.take(ctx, StageTLS, (*making).secure)
	}
	if err == nil && m.shares {
		err = m.take(ctx, StageHTTP2, (*making).share)
	}
	if err == nil {
		err = m.failed(StageConnect, m.enlist())
	}
	return err
}

// take takes a step, and notes when it is over.
func (m *making) take(ctx context.Context, s Stage, step func(*making, context.Context) error) error {
	err := step(m, ctx)
	m.course.through[s] = m.origin.pool.now()
	return m.failed(s, err)
}

// resolve finds the addresses.
func (m *making) resolve(ctx context.Context) (err error) {
	m.to, err = m.origin.name.Wait(ctx)
	return err
}

// race connects to one of the addresses.
func (m *making) race(ctx context.Context) error {
	o := m.origin
	m.learn(m.to.Addrs, (*endpoints).learn)
	targets, release := m.order(m.to.Addrs)
	defer release()
	c, addr, err := m.tryAll(ctx, targets)
	if err != nil && !over(ctx) {
		if late := o.name.Rest(ctx, m.to, lateWait); len(late) > 0 {
			m.learn(late, (*endpoints).learnMore)
			targets, release := m.order(late)
			c, addr, err = m.tryAll(ctx, targets)
			release()
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		c, addr, err = m.insist(ctx, targets, err)
	}
	if err != nil {
		return err
	}
	s, err := sock.FromTCP(c)
	if err != nil {
		_ = c.Close()
		return err
	}
	m.lease = &Lease{Stream: s, origin: o, conn: s, addr: addr, begun: m.course.began}
	m.lease.node.init(m.lease)
	m.lease.sibling.Value = m.lease
	if d := o.pool.cfg.DeadTimeout; d > 0 {
		return s.SetDeadTimeout(d)
	}
	return nil
}

// secure makes the TLS handshake. The origin is spoken to in TLS.
func (m *making) secure(ctx context.Context) error {
	config, offer := m.tls, m.origin.shared.offer && m.dial != nil && m.dial.shares
	if offer {
		config = config.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	if err := m.handshake(ctx, config); err != nil {
		return err
	}
	m.lease.secured = m.tls
	m.shares = offer && m.lease.tls.ConnectionState().NegotiatedProtocol == "h2"
	return nil
}

// handshake lays TLS over the connection, as it is by then.
func (m *making) handshake(ctx context.Context, config *tls.Config) error {
	l := m.lease
	q := l.tls.over(l.conn, config)
	stalled := time.AfterFunc(roomAfter, func() { m.origin.hurry(l) })
	defer stalled.Stop()
	if err := handshake(ctx, q.Conn); err != nil {
		return err
	}
	l.tls = q
	l.Stream = sock.Over(q)
	return nil
}

// lifetime is how old a new connection may become. One that is kept warm is there to
// stay.
func (m *making) lifetime() time.Duration {
	o, random := m.origin, rand.Float64()
	cfg := &o.pool.cfg
	if cfg.Reuse || m.aim.ahead {
		return cfg.MaxAge - time.Duration(random*cfg.AgeJitter*float64(cfg.MaxAge))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(o.endpoints.balance.lifetime(cfg.AgeJitter, random), 1)
}

// enlist makes the connection known to the watcher, and gives it its age.
func (m *making) enlist() error {
	p, l := m.origin.pool, m.lease
	if err := p.enlist(l); err != nil {
		return err
	}
	now := p.now()
	l.born, l.idleSince, l.handshake = now, now, now-m.course.began
	p.dials.Observe(l.handshake)
	if p.cfg.MaxAge > 0 {
		l.expires = now + m.lifetime()
	}
	return nil
}
