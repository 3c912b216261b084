package pool

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
	"github.com/carpoolproxy/carpool/pool/names"
)

// Origin is one place that connections lead to: its endpoints, the connections
// that are idle, the requests that wait, and what was learned of its server.
type Origin struct {
	pool  *Pool
	key   Key
	name  *names.Name // finds its addresses
	label string      // empty when counted as other
	port  uint16      // at its addresses; with name it is where connections lead
	seat  seat
	tally [8]atomic.Uint64 // see Tally
	// gone is set when the pool has forgotten the origin.
	gone atomic.Bool
	// opaque is what SetOpaque notes.
	opaque atomic.Bool

	// mu guards all below, and the list fields of leases and tickets in it. It is
	// never held across I/O that can wait; idle connections are looked at with it.
	mu        sync.Mutex
	tls       *tls.Config // what secures connections that are opened now; nil without TLS
	endpoints endpoints
	idle      idleConns
	queue     queue
	manners   manners
	times     times
	setup     typical // of opening a connection
	open      int     // connections, idle or in use
	carrying  int     // those in use for requests, not for tunnels
	landing   int     // those just opened that are about to be idle
	peak      peak    // of carrying
	warmth    warmth
	shared    shared
	spares    spares
	stats     Stats
}

// seat is an origin's place in what the pool keeps. It is guarded by Pool.mu, but
// for listed (see longest).
type seat struct {
	known    list.Node[*Origin] // in known.order
	claim    claim              // its place in the queue for slots
	at       int                // in longest, where it is listed, by
	idleFrom time.Duration
	listed   atomic.Bool
}

// times is when things happened to an origin last; 0 is never.
type times struct {
	used   time.Duration // when it was asked for, or made
	opened time.Duration // when a dial succeeded
	failed time.Duration // when one failed
}

// newOrigin returns an origin. p.mu is held.
func newOrigin(p *Pool, k Key) *Origin {
	to := p.leadsTo(k)
	o := &Origin{pool: p, key: k, port: to.Port, tls: p.credentials.config(k, p.cfg.ShowTo)}
	o.name = p.names.Name(to.Host, o.renamed)
	o.times.used = p.now()
	o.stats.Closed = map[Reason]uint64{}
	o.manners.never = p.cfg.NoReuse != nil && p.cfg.NoReuse(k)
	o.manners.most = p.cfg.IdleTimeout
	o.shared.prior = !k.TLS && k.Way == Directly && p.cfg.H2C != nil && p.cfg.H2C(k)
	o.shared.offer = o.shared.prior || k.TLS && k.Way != ToHop && p.cfg.HTTP2 && !o.manners.never
	o.queue.offered = o.shared.offer
	o.endpoints.identity = p.cfg.Identity
	o.endpoints.balance.reuse, o.endpoints.balance.age = p.cfg.Reuse, p.cfg.MaxAge
	o.peak = newPeak(p.cfg.IdleTimeout)
	o.seat.known.Value, o.seat.claim.origin, o.seat.claim.node.Value = o, o, &o.seat.claim
	return o
}

// Key returns what the origin is known by.
func (o *Origin) Key() Key { return o.key }

// LeadsTo returns what its connections lead to: the origin itself, or the next hop.
func (o *Origin) LeadsTo() Key { return o.pool.leadsTo(o.key) }

// Gone reports that the pool has forgotten this origin for lack of use: it
// still works, but the pool should be asked for it again.
func (o *Origin) Gone() bool { return o.gone.Load() }

// Tally adds one to the i-th of the origin's counters (see Stats.Tally), from 0.
// It may be called from any goroutine.
func (o *Origin) Tally(i int) { o.tally[i].Add(1) }

// give hands a connection that came free to the first request that waits and
// takes a used one, or keeps it idle. It returns the connection that has to be
// closed instead, if there is one, and why. rival is what claims its slot, if
// anything does, and theirs how many that has already.
func (o *Origin) give(l *Lease, rival *claim, theirs int) (*Lease, Reason) {
	now := o.pool.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(l)
	o.endpoints.settle(l, true, now)
	if l.hungUp {
		l.idled = 0
		return l, l.hangUp(0)
	}
	switch {
	case !o.manners.keeps(now):
		return l, NotTrusted
	case o.shared.prior: // requests go in HTTP/2
		return l, NotKept
	}
	if l.secured != o.tls {
		return l, TLSChanged
	}
	if l.endpoint.leaving {
		return o.leaveLocked(l, now)
	}
	if o.makesRoomLocked(l, now) {
		return l, MakesRoom
	}
	if o.queue.waiting.Len() > 0 {
		if rival != nil && (theirs == 0 || o.holdsLocked() > theirs+1) {
			return l, MaxIdle
		}
		heir, inTheWay := o.queue.heir(&o.manners, now)
		if heir != nil {
			l.begin(0, now)
			o.carryLocked(l, now)
			o.queue.grant(heir, grant{lease: l})
			return nil, ""
		}
		if inTheWay {
			return l, MaxIdle
		}
	}
	switch {
	case o.pool.ctx.Err() != nil:
		return l, Shutdown
	case o.pool.cfg.MaxIdlePerHost == 0, rival != nil, o.gone.Load():
		return l, MaxIdle
	}
	o.restLocked(l, now)
	return o.idle.surplus(o.pool.cfg.MaxIdlePerHost), MaxIdle
}

// settleLocked accounts for the exchange that a connection has done.
func (o *Origin) settleLocked(l *Lease) {
	if l.reused {
		l.reused = false
		o.stats.Reused++
		o.stats.SavedTime += o.setup.value
		l.endpoint.requests++
		o.manners.survived(l.idled)
	}
}

// closed accounts for a connection that is no more, in use or idle.
func (o *Origin) closed(l *Lease, reason Reason) {
	now := o.pool.now()
	o.mu.Lock()
	switch reason {
	case PeerDead:
		o.endpoints.setAside(l.addr.Addr(), benchDead, now)
	case ClosedOnReuse, UpstreamClosed:
		if l.Reused() { // else it says nothing of what becomes of used ones
			o.manners.closedAfter(l.idled, now)
		}
		l.reused = false
	case StrayBytes:
		o.manners.strayed(now)
	}
	o.settleLocked(l)
	broke := reason == PeerDead || reason == BadAnswer
	l.report.failed = l.report.failed || broke || reason == TimedOut
	o.endpoints.settle(l, false, now)
	tell := o.warmLostLocked(l, reason, now)
	o.lostLocked(l, reason)
	wants := o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
	if broke {
		o.suspect()
	}
	if tell != nil {
		tell()
	}
	if reason == PeerDead {
		o.abandon(l.endpoint, PeerDeadToo)
	}
}

// carryLocked notes that a connection carries requests now.
func (o *Origin) carryLocked(l *Lease, now time.Duration) {
	if l.carries || l.ready {
		return // and goes from one request to the next, or will not
	}
	l.carries = true
	o.carrying++
	o.peak.needs(o.carrying, now)
}

// carriedLocked notes that it carries none now, if it did.
func (o *Origin) carriedLocked(l *Lease, now time.Duration) {
	if l.carries {
		o.peak.needs(o.carrying, now)
		o.carrying--
		l.carries = false
	}
}

// restLocked makes a connection idle.
func (o *Origin) restLocked(l *Lease, now time.Duration) {
	o.carriedLocked(l, now)
	o.endpoints.hint = l.hint
	o.idle.put(l, now)
}

// lostLocked takes a connection out of the origin's books.
func (o *Origin) lostLocked(l *Lease, reason Reason) {
	o.carriedLocked(l, o.pool.now())
	o.open--
	o.endpoints.closed(l)
	if l.carrier != nil {
		o.lostSharedLocked(l.carrier)
	}
	if l.ready {
		o.endSpareLocked(l)
		o.stats.SparesUnused++
	}
	o.stats.Closed[reason]++
}

// hungUp removes an idle connection that the peer has closed, or that the
// kernel has given up because the peer is dead. Who uses one finds out by
// itself, or has done with it: then it is not kept.
func (o *Origin) hungUp(l *Lease) {
	now := o.pool.now()
	o.mu.Lock()
	idle := l.node.Listed()
	if idle {
		l.node.Leave()
		l.idled = now - l.idleSince
	} else {
		l.hungUp = true
	}
	o.mu.Unlock()
	if !idle {
		return
	}
	l.close(l.hangUp(l.idled))
}

// failWaiting ends the wait of all who wait.
func (o *Origin) failWaiting(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.endAll(err)
}
