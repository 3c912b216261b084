package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// Stage is a part of opening a connection. The zero value is none.
type Stage uint8

// What opening a connection can fail at.
const (
	StageDNS     Stage = iota + 1 // the addresses of the name
	StagePolicy                   // whether the address may be connected to
	StageConnect                  // TCP
	StageTLS                      // the handshake
)

// String returns the stage in one word.
func (s Stage) String() string {
	return [...]string{"none", "dns", "policy", "connect", "tls"}[s]
}

// DialError is why no connection could be opened. Nothing has been sent.
type DialError struct {
	// Stage is what failed.
	Stage Stage
	Err   error
}

func (e *DialError) Error() string { return e.Stage.String() + ": " + e.Err.Error() }
func (e *DialError) Unwrap() error { return e.Err }

// failedAt says at which stage an error came, unless it says so itself.
func failedAt(s Stage, err error) error {
	var known *DialError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &DialError{s, err}
}

func (o *Origin) mayDialLocked() bool {
	limit := o.pool.cfg.MaxConnsPerHost
	return limit == 0 || o.holdsLocked() < limit
}

// wantsLocked reports whether a connection is to be opened for a request that
// waits, as far as the origin's own limit goes.
func (o *Origin) wantsLocked() bool {
	return o.queue.undialled() > 0 && o.mayDialLocked() && o.pool.ctx.Err() == nil
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
	go o.dial(d)
}

// dial opens one connection for whoever waits first by then.
func (o *Origin) dial(d *opening) {
	p := o.pool
	defer p.work.Done()
	defer p.contain("a dial")
	l, err := o.connect(d.avoid)
	if err != nil {
		p.unreserve()
		o.failed(d, err)
		return
	}
	o.mu.Lock()
	o.open++
	o.times.opened = p.now()
	o.stats.Opened++
	o.stats.HandshakeTime += l.handshake
	o.setup.add(l.handshake)
	o.endpoints.opened(l, o.times.opened)
	granted := o.queue.succeeded(d, l)
	o.mu.Unlock()
	switch { // what it was opened for took one that came free meanwhile, or has gone
	case granted:
	case d.virgin:
		l.close(ClientGone)
	default:
		l.putIdle()
	}
}

// failed accounts for a dial that has failed.
func (o *Origin) failed(d *opening, err error) {
	o.mu.Lock()
	o.stats.DialErrors++
	o.times.failed = o.pool.now()
	o.queue.failed(d, err)
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
}

// making is a connection as far as it is there. Each step of a dial takes it
// further.
type making struct {
	origin *Origin
	avoid  netip.Addr // to be tried last
	began  time.Duration
	to     resolved
	lease  *Lease // from the step on that connects
}

// connect opens one connection, to avoid only if there is no other address.
func (o *Origin) connect(avoid netip.Addr) (*Lease, error) {
	m := &making{origin: o, avoid: avoid, began: o.pool.now()}
	if err := m.walk(o.pool.ctx); err != nil {
		if m.lease != nil {
			o.pool.delist(m.lease)
			_ = m.lease.conn.Close()
		}
		return nil, err
	}
	return m.lease, nil
}

// walk goes through the steps, or to the first that fails. Finding addresses has a
// time limit of its own; the steps behind it share DialTimeout.
func (m *making) walk(ctx context.Context) (err error) {
	p := m.origin.pool
	defer func() {
		if r := recover(); r != nil {
			err = &DialError{StageConnect, p.caught("a dial", r)}
		}
	}()
	if err := m.resolve(ctx); err != nil {
		return failedAt(StageDNS, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	for _, step := range [...]struct {
		stage Stage
		take  func(*making, context.Context) error
	}{
		{StageConnect, (*making).race},
		{StageTLS, (*making).secure},
		{StageConnect, (*making).enlist},
	} {
		if err := step.take(m, ctx); err != nil {
			return failedAt(step.stage, err)
		}
	}
	return nil
}

// resolve finds the addresses.
func (m *making) resolve(ctx context.Context) (err error) {
	m.to, err = m.origin.pool.names.lookUp(ctx, m.origin.key.Host)
	return err
}

// race connects to one of the addresses.
func (m *making) race(ctx context.Context) error {
	o := m.origin
	targets := m.order(m.to.addrs)
	slices.SortStableFunc(targets, func(a, b netip.AddrPort) int { return isAddr(a, m.avoid) - isAddr(b, m.avoid) })
	c, addr, err := m.tryAll(ctx, targets)
	if err != nil && !over(ctx) {
		if late := o.pool.names.rest(ctx, m.to); len(late) > 0 {
			c, addr, err = m.tryAll(ctx, m.order(late))
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) && !over(ctx) {
		// Nothing was sent, and behind the address of a Service it may be another
		// pod that is asked next.
		c, addr, err = m.tryAll(ctx, targets)
	}
	if err != nil {
		return err
	}
	s, err := sock.FromTCP(c)
	if err != nil {
		_ = c.Close()
		return err
	}
	m.lease = &Lease{Stream: s, origin: o, conn: s, addr: addr}
	m.lease.node.Value, m.lease.sibling.Value = m.lease, m.lease
	if d := o.pool.cfg.DeadTimeout; d > 0 {
		return s.SetDeadTimeout(d)
	}
	return nil
}

// secure makes the TLS handshake, if the origin is spoken to in TLS.
func (m *making) secure(ctx context.Context) error {
	l, config := m.lease, m.origin.tls
	if config == nil {
		return nil
	}
	g := &gate{Conn: l.conn}
	t := tls.Client(g, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	l.tls = &quietTLS{Conn: t, gate: g}
	l.Stream = sock.Over(t)
	return nil
}

// enlist makes the connection known to the watcher, and gives it its age.
func (m *making) enlist(context.Context) error {
	p, l := m.origin.pool, m.lease
	if err := p.enlist(l); err != nil {
		return err
	}
	now := p.now()
	l.handshake, l.idleSince = now-m.began, now
	p.dials.observe(l.handshake)
	if age := p.cfg.MaxAge; age > 0 {
		l.expires = now + age - time.Duration(rand.Float64()*p.cfg.AgeJitter*float64(age))
	}
	return nil
}
