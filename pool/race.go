package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// attemptDelay is how long one address is tried alone before the next is
// tried beside it (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// learn tells the origin of addresses that were found.
func (m *making) learn(addrs []netip.Addr, by func(*endpoints, []netip.Addr, time.Duration)) {
	o := m.origin
	o.mu.Lock()
	defer o.mu.Unlock()
	by(&o.endpoints, addrs, o.pool.now())
}

// order returns the order in which addresses are tried. Until release is called the
// first of them counts as one that a connection leads to.
func (m *making) order(addrs []netip.Addr) (list []netip.AddrPort, release func()) {
	o := m.origin
	now := o.pool.now()
	o.mu.Lock()
	if o.endpoints.balance.reuse {
		defer o.mu.Unlock()
		list = o.endpoints.order(addrs, o.port, now)
		slices.SortStableFunc(list, func(a, b netip.AddrPort) int { return isAddr(a, m.aim.avoid) - isAddr(b, m.aim.avoid) })
		return list, func() {}
	}
	first, bids := o.aimLocked(addrs, m.aim, now)
	if first == nil {
		o.mu.Unlock()
		return targets(bids, o.port), func() {}
	}
	first.dialing++
	o.mu.Unlock()
	return targets(bids, o.port), func() {
		o.mu.Lock()
		first.dialing--
		o.mu.Unlock()
	}
}

// isAddr is 1 if a target is at this address, or else 0.
func isAddr(t netip.AddrPort, a netip.Addr) int {
	if t.Addr() == a {
		return 1
	}
	return 0
}

// attempt is the outcome of trying one address.
type attempt struct {
	conn *net.TCPConn
	addr netip.AddrPort
	took time.Duration
	err  error
}

// tryAll tries addresses one after the other, the next as soon as the one before
// has failed or has taken attemptDelay. The first that connects wins.
func (m *making) tryAll(ctx context.Context, targets []netip.AddrPort) (*net.TCPConn, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(targets))
	var errs []error
	var running []netip.AddrPort // in the order they were started in
	for {
		if len(targets) > 0 {
			go m.origin.pool.try(ctx, targets[0], results)
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
			m.trial.tried(r)
			if r.err == nil {
				cancel()
				discardRest(results, len(running))
				m.reached(r.addr, running[:i])
				return r.conn, r.addr, nil
			}
			m.missed(ctx, r)
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

// missed benches an address that could not be connected to.
func (m *making) missed(ctx context.Context, r attempt) {
	o := m.origin
	var failed *DialError
	if ctx.Err() == context.Canceled || errors.As(r.err, &failed) && failed.Stage == StagePolicy {
		return
	}
	o.suspect()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.endpoints.setAside(r.addr.Addr(), benchRefused, o.pool.now())
}

// reached notes that an address could be connected to while others, tried
// earlier, gave no answer at all: those are as good as dead.
func (m *making) reached(addr netip.AddrPort, silent []netip.AddrPort) {
	o := m.origin
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range silent {
		o.endpoints.setAside(s.Addr(), benchSilent, now)
	}
	if e := o.endpoints.find(addr.Addr()); e != nil && e.bench.why != "" {
		e.bench.connected()
		o.endpoints.revised = 0
	}
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
			results <- attempt{addr: addr, err: &DialError{Stage: StageConnect, Err: p.caught("a dial", r)}}
		}
	}()
	begun := p.now()
	c, err := p.tryOnce(ctx, addr)
	for sock.Exhausted(err) && p.EvictIdle() {
		c, err = p.tryOnce(ctx, addr)
	}
	results <- attempt{conn: c, addr: addr, took: p.now() - begun, err: err}
}

func (p *Pool) tryOnce(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	if p.cfg.CheckAddr != nil {
		if err := p.cfg.CheckAddr(addr); err != nil {
			return nil, &DialError{Stage: StagePolicy, Err: err}
		}
	}
	d := net.Dialer{KeepAlive: -1} // SetDeadTimeout sets it
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, &DialError{Stage: StageConnect, Err: err}
	}
	return c.(*net.TCPConn), nil
}

// worst picks the error to report when every address has failed.
func worst(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int { return weight(b) - weight(a) })
	if len(errs) > 1 {
		return &DialError{Stage: errs[0].(*DialError).Stage, Err: fmt.Errorf("%w (and %d more addresses)", errors.Unwrap(errs[0]), len(errs)-1)}
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
	case errors.As(err, &failed) && failed.Stage == StagePolicy:
		return 1
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EAFNOSUPPORT):
		return 0
	}
	return 2
}
