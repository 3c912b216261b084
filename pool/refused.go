package pool

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// That a dial is refused says little where the origin has other connections. Behind
// the address of a Service it was one pod that refused, which has just ended; for a
// moment more, until all nodes know, some dials are led there. Nothing was sent. So
// a dial that is refused is made once more at once, and again and again for a short
// while as long as connections to the origin are open. The first of these to come
// free ends the wait, and so does any that is idle: a request that is sent again
// asks for a new connection, but one that was used is better than none.

const (
	// refusedPause is how long after a second refusal the next dial is made. Each
	// pause is twice as long as the one before,
	refusedPause = 10 * time.Millisecond
	// lastRefusedPause at most: the request fails after little more than half a second.
	lastRefusedPause = 32 * refusedPause
)

// insist dials on after a dial was refused. It returns what came of the last one.
func (m *making) insist(ctx context.Context, targets []netip.AddrPort, refused error) (c *net.TCPConn, addr netip.AddrPort, err error) {
	err = refused
	for pause := time.Duration(0); pause <= lastRefusedPause && errors.Is(err, syscall.ECONNREFUSED) && !over(ctx); {
		if !m.origin.triesOn(ctx, m.dial, pause) {
			break
		}
		c, addr, err = m.tryAll(ctx, targets)
		pause = max(2*pause, refusedPause)
	}
	return c, addr, err
}

// triesOn reports, after a pause, whether a dial that was refused is to be repeated.
// It is not once its request has a connection.
func (o *Origin) triesOn(ctx context.Context, d *opening, pause time.Duration) bool {
	o.mu.Lock()
	given := o.makeDoLocked(d.by)
	if given || pause == 0 || d.by == nil || o.openLocked() == 0 {
		o.mu.Unlock()
		return !given && pause == 0
	}
	over := make(chan struct{})
	d.over = over
	o.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-over:
	case <-ctx.Done():
	case <-timer.C:
		return true
	}
	return false
}

// makeDoLocked has a request whose dial was refused content itself with a connection
// that was used, if it is sent again. It reports whether one is idle that the request
// may have, and gives it that.
func (o *Origin) makeDoLocked(t *Ticket) (given bool) {
	if t == nil {
		return false
	}
	now := o.pool.now()
	t.makesDo = t.Avoid.IsValid()
	if !t.takesUsed() || !o.manners.keeps(now) {
		return false
	}
	q := o.requestLocked(t, now)
	q.bench = false // it is of an address that refuses that a connection is sought
	l := o.idle.pick(&q)
	if l == nil {
		return false
	}
	l.wake(now)
	o.carryLocked(l, now)
	o.queue.grant(t, grant{lease: l, course: t.dial.course})
	return true
}
