package pool

import (
	"errors"
	"time"
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

// Acquire borrows a connection: an idle one, or the next that comes free or
// has been opened. It must be given back by Release or Discard.
func (o *Origin) Acquire(t *Ticket) (*Lease, error) {
	t.waited, t.makesDo, t.spent = false, false, Waited{}
	o.name.Use()
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
		t.tried = l.id
		if l.ready {
			o.useSpare(l)
		}
		t.recognize(l)
		if !l.heard.Load() {
			l.since = o.pool.now()
		}
	}
	if err == nil || t.waited {
		o.pool.waits.Observe(t.spent.total())
	}
	return l, err
}

func (o *Origin) acquire(t *Ticket) (*Lease, error) {
	now := o.pool.now()
	o.mu.Lock()
	o.times.used = now
	l, due := o.pickLocked(t, now)
	if l == nil {
		l = o.asNewLocked(t, now)
	}
	if l == nil {
		l = o.takeSpareLocked(t, now)
	}
	if l != nil {
		o.carryLocked(l, now)
		o.mu.Unlock()
		if due {
			o.dialDue()
		}
		return l, nil
	}
	if o.pool.ctx.Err() != nil {
		o.mu.Unlock()
		return nil, ErrClosed
	}
	if !o.mayDialLocked() {
		if l := o.idle.takeLongest(); l != nil { // none this request may have: make room
			o.mu.Unlock()
			l.close(MaxIdle)
			return o.acquire(t)
		}
		if !t.waited && o.queue.undialled() >= o.pool.cfg.MaxPendingPerHost {
			o.mu.Unlock()
			return nil, ErrFull
		}
	}
	o.queue.join(t, now)
	if o.shared.offer && t.shares() && !t.rides && o.loneLocked() {
		t.rides = true
		o.queue.riding++
	}
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
	return o.wait(t)
}

// wait waits for a grant. A dial has a time limit of its own, so only a
// request that no dial is under way for runs into this one.
func (o *Origin) wait(t *Ticket) (*Lease, error) {
	timer := time.NewTimer(o.patience(t))
	defer timer.Stop()
	for {
		select {
		case g := <-t.ch:
			if g.lease != nil { // from then on it is the exchange's own time
				t.spent = g.course.of(t.since, g.lease.report.began)
			} else {
				t.spent = g.course.of(t.since, o.pool.now())
			}
			return g.lease, g.err
		case <-timer.C:
			o.mu.Lock()
			if o.eagerLocked(t) {
				wants := o.wantsLocked()
				o.mu.Unlock()
				if wants {
					o.pool.claim(o)
				}
				timer.Reset(o.patience(t))
				continue
			}
			if o.queue.hopes(t) {
				timer.Reset(o.pool.cfg.PendingTimeout)
			} else {
				err := ErrWaited
				if o.mayDialLocked() { // so it is a slot that was short
					err = ErrBudget
				}
				o.queue.end(t, err)
			}
			o.mu.Unlock()
		}
	}
}

// patience is how long a request waits before it looks whether that makes sense.
func (o *Origin) patience(t *Ticket) time.Duration {
	waited := o.pool.now() - t.since
	if o.shared.offer && t.shares() && waited < loneFor {
		return min(loneFor, o.pool.cfg.PendingTimeout) - waited
	}
	return o.pool.cfg.PendingTimeout - waited
}

// Cancel makes the Acquire that waits with this ticket, if there is one, return
// ErrCanceled. It may be called from any goroutine.
func (o *Origin) Cancel(t *Ticket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.end(t, ErrCanceled)
}
