package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// attemptDelay is how long one address is tried alone before the next is
// tried beside it (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// DialError is why no connection could be opened. Nothing has been sent.
type DialError struct {
	// Stage is what failed: "dns", "connect", "tls" or "policy".
	Stage string
	Err   error
}

func (e *DialError) Error() string { return e.Stage + ": " + e.Err.Error() }
func (e *DialError) Unwrap() error { return e.Err }

// avoidFor is how long an address that was dead is tried last.
const avoidFor = 30 * time.Second

// dialer is what is kept for opening connections to one origin.
type dialer struct {
	config *tls.Config // nil without TLS

	mu   sync.Mutex
	dead map[netip.Addr]time.Duration // addresses to be tried last, until when
}

func (d *dialer) init(p *Pool, k Key) {
	d.dead = map[netip.Addr]time.Duration{}
	if k.TLS {
		d.config = &tls.Config{
			ServerName:         trimDot(k.Host),
			RootCAs:            p.cfg.RootCAs,
			MinVersion:         tls.VersionTLS12,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(4),
		}
	}
}

func trimDot(host string) string {
	if n := len(host); n > 1 && host[n-1] == '.' {
		return host[:n-1]
	}
	return host
}

// connect opens one connection, to avoid only if there is no other address.
func (o *Origin) connect(avoid netip.Addr) (l *Lease, err error) {
	p := o.pool
	var conn *sock.Conn
	defer func() {
		if r := recover(); r != nil {
			if conn != nil {
				_ = conn.Close()
			}
			l, err = nil, &DialError{"connect", p.caught("a dial", r)}
		}
	}()
	start := p.now()
	to, err := p.resolve(p.ctx, o.key.Host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.DialTimeout)
	defer cancel()
	conn, addr, err := p.dialAny(ctx, &o.dialer, to, o.key.Port, avoid)
	if err != nil {
		return nil, err
	}
	l = &Lease{Stream: conn, origin: o, conn: conn, addr: addr}
	l.node.Value = l
	if o.dialer.config != nil {
		g := &gate{Conn: conn}
		t := tls.Client(g, o.dialer.config)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &DialError{"tls", err}
		}
		l.tls = &quietTLS{Conn: t, gate: g}
		l.Stream = sock.Over(t)
	}
	if err := p.enlist(l); err != nil {
		p.delist(l)
		_ = conn.Close()
		return nil, &DialError{"connect", err}
	}
	now := p.now()
	l.handshake = now - start
	p.dials.observe(l.handshake)
	if age := p.cfg.MaxAge; age > 0 {
		l.expires = now + age - time.Duration(rand.Float64()*p.cfg.AgeJitter*float64(age))
	}
	return l, nil
}

// Dial opens a connection that is not pooled: a tunnel's. It counts against
// the pool's budget until the returned function is called, once, after the
// connection was closed.
func (p *Pool) Dial(ctx context.Context, host string, port uint16) (*sock.Conn, func(), error) {
	if err := p.reserve(ctx); err != nil {
		return nil, nil, err
	}
	conn, err := p.dialTunnel(ctx, host, port)
	if err != nil {
		p.unreserve()
		return nil, nil, err
	}
	return conn, p.unreserve, nil
}

func (p *Pool) dialTunnel(ctx context.Context, host string, port uint16) (*sock.Conn, error) {
	to, err := p.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	conn, _, err := p.dialAny(ctx, nil, to, port, netip.Addr{})
	if err == nil && p.cfg.DeadTimeout > 0 {
		// What is in a tunnel may wait for its reader; keep-alive probes remain.
		if err = conn.SetUserTimeout(0); err != nil {
			_ = conn.Close()
			err = &DialError{"connect", err}
		}
	}
	return conn, err
}

func (p *Pool) resolve(ctx context.Context, host string) (resolved, error) {
	to, err := p.names.lookUp(ctx, host)
	if err != nil {
		return to, &DialError{"dns", err}
	}
	return to, nil
}

// dialAny connects to one of a host's addresses, avoid the last to be tried.
func (p *Pool) dialAny(ctx context.Context, d *dialer, to resolved, port uint16, avoid netip.Addr) (*sock.Conn, netip.AddrPort, error) {
	targets := d.order(to.addrs, port, p.now())
	slices.SortStableFunc(targets, func(a, b netip.AddrPort) int { return isAddr(a, avoid) - isAddr(b, avoid) })
	c, addr, err := p.race(ctx, d, targets)
	if err != nil && !over(ctx) {
		if late := p.names.rest(ctx, to); len(late) > 0 {
			c, addr, err = p.race(ctx, d, d.order(late, port, p.now()))
		}
	}
	if errors.Is(err, syscall.ECONNREFUSED) && !over(ctx) {
		// Nothing was sent, and behind the address of a Service it may be another
		// pod that is asked next.
		c, addr, err = p.race(ctx, d, targets)
	}
	if err != nil {
		return nil, addr, err
	}
	s, err := sock.FromTCP(c)
	if err == nil && p.cfg.DeadTimeout > 0 {
		err = s.SetDeadTimeout(p.cfg.DeadTimeout)
	}
	if err != nil {
		_ = c.Close()
		return nil, addr, &DialError{"connect", err}
	}
	return s, addr, nil
}

// isAddr is 1 if a target is at this address, or else 0.
func isAddr(t netip.AddrPort, a netip.Addr) int {
	if t.Addr() == a {
		return 1
	}
	return 0
}

// order puts addresses in the order they are tried in: the resolver's, with
// the two families taking turns (RFC 8305 section 4), and those that were dead
// a moment ago last.
func (d *dialer) order(addrs []netip.Addr, port uint16, now time.Duration) []netip.AddrPort {
	var families [2][]netip.AddrPort
	var last []netip.AddrPort
	first := 0
	for i, a := range addrs {
		a = a.Unmap()
		f := 0
		if a.Is6() {
			f = 1
		}
		if i == 0 {
			first = f
		}
		t := netip.AddrPortFrom(a, port)
		if d.isDead(a, now) {
			last = append(last, t)
		} else {
			families[f] = append(families[f], t)
		}
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	a, b := families[first], families[1-first]
	for len(a)+len(b) > 0 {
		if len(a) > 0 {
			out, a = append(out, a[0]), a[1:]
		}
		if len(b) > 0 {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(out, last...)
}

func (d *dialer) isDead(a netip.Addr, now time.Duration) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.dead[a]
	if ok && now >= until {
		delete(d.dead, a)
		ok = false
	}
	return ok
}

// attempt is the outcome of trying one address.
type attempt struct {
	conn *net.TCPConn
	addr netip.AddrPort
	err  error
}

// race tries addresses one after the other, the next as soon as the one before
// has failed or has taken attemptDelay. The first that connects wins.
func (p *Pool) race(ctx context.Context, d *dialer, targets []netip.AddrPort) (*net.TCPConn, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(targets))
	var errs []error
	var running []netip.AddrPort // in the order they were started in
	for {
		if len(targets) > 0 {
			go p.try(ctx, targets[0], results)
			running, targets = append(running, targets[0]), targets[1:]
		}
		var next <-chan time.Time
		if len(targets) > 0 {
			next = time.After(attemptDelay)
		}
		select {
		case r := <-results:
			i := slices.Index(running, r.addr)
			running = slices.Delete(running, i, i+1)
			if r.err == nil {
				cancel()
				discardRest(results, len(running))
				d.won(r.addr, running[:i], p.now())
				return r.conn, r.addr, nil
			}
			d.failed(r, ctx, p.now())
			errs = append(errs, r.err)
		case <-next:
		}
		if over(ctx) {
			targets = nil // nothing is known of the rest
		}
		if len(running)+len(targets) == 0 {
			return nil, netip.AddrPort{}, worst(errs)
		}
	}
}

// over reports whether ctx has ended. The dialer may see the deadline pass
// before ctx does.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// failed remembers an address that could not be connected to.
func (d *dialer) failed(r attempt, ctx context.Context, now time.Duration) {
	var denied *DialError
	if d == nil || ctx.Err() == context.Canceled || errors.As(r.err, &denied) && denied.Stage == "policy" {
		return
	}
	d.avoid(r.addr.Addr(), now)
}

// won remembers that an address could be connected to while others, tried
// earlier, gave no answer at all: those are as good as dead.
func (d *dialer) won(addr netip.AddrPort, silent []netip.AddrPort, now time.Duration) {
	if d == nil {
		return
	}
	for _, s := range silent {
		d.avoid(s.Addr(), now)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dead, addr.Addr())
}

func (d *dialer) avoid(a netip.Addr, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.dead, func(_ netip.Addr, until time.Duration) bool { return now >= until })
	d.dead[a] = now + avoidFor
}

// discardRest waits for the attempts that lost and were canceled, and closes
// what they connected.
func discardRest(results <-chan attempt, n int) {
	for ; n > 0; n-- {
		if r := <-results; r.err == nil {
			_ = r.conn.Close()
		}
	}
}

// try connects to one address, if it may be connected to.
func (p *Pool) try(ctx context.Context, addr netip.AddrPort, results chan<- attempt) {
	defer func() {
		if r := recover(); r != nil {
			results <- attempt{addr: addr, err: &DialError{"connect", p.caught("a dial", r)}}
		}
	}()
	c, err := p.tryOnce(ctx, addr)
	for sock.Exhausted(err) && p.EvictIdle() {
		c, err = p.tryOnce(ctx, addr)
	}
	results <- attempt{conn: c, addr: addr, err: err}
}

func (p *Pool) tryOnce(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	if p.cfg.CheckAddr != nil {
		if err := p.cfg.CheckAddr(addr); err != nil {
			return nil, &DialError{"policy", err}
		}
	}
	d := net.Dialer{KeepAlive: -1} // SetDeadTimeout sets it
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, &DialError{"connect", err}
	}
	return c.(*net.TCPConn), nil
}

// worst picks the error to report when every address has failed.
func worst(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int { return weight(b) - weight(a) })
	if len(errs) > 1 {
		return &DialError{errs[0].(*DialError).Stage, fmt.Errorf("%w (and %d more addresses)", errors.Unwrap(errs[0]), len(errs)-1)}
	}
	return errs[0]
}

// weight is how much an error says about a host. That nobody is there says less
// than that one may not go there: localhost is both addresses of the machine, and
// a server, carpool itself too, listens on one of them more often than not. That
// somebody may be there, who does not answer now, says most.
func weight(err error) int {
	var failed *DialError
	switch {
	case errors.As(err, &failed) && failed.Stage == "policy":
		return 1
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EAFNOSUPPORT):
		return 0
	}
	return 2
}
