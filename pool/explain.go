package pool

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/carpoolproxy/carpool/pool/names"
)

// Explanation says where the next request of an origin would go, and why. A request
// takes one of two endpoints at random, so another may go elsewhere.
type Explanation struct {
	// Addr is the endpoint; the zero Addr says that there is none.
	Addr netip.Addr
	// Hop is the next hop that Addr belongs to, as Key.String writes it; "" if Addr is
	// the origin's own.
	Hop string
	// Idle says that a connection is there, which would be taken; else one would be
	// opened.
	Idle bool
	// Why says in words what spoke for it.
	Why string
	// Addrs are the figures of the addresses that the name has, first those that
	// this instance prefers (see Config.Identity), and then of those that it
	// does not have any more; 64 of them at most. Total is how many there are.
	Addrs []AddrStats
	Total int
}

// Explain says where a request would go now that can be sent twice, or cannot. It
// opens no connection and changes nothing, but looks the name up if the origin has
// no address yet. The error is that of the look-up.
func (o *Origin) Explain(ctx context.Context, replayable bool) (Explanation, error) {
	o.mu.Lock()
	known := len(o.endpoints.ranked) > 0
	o.mu.Unlock()
	if !known {
		m := &making{origin: o}
		if err := m.resolve(ctx); err != nil {
			return Explanation{}, m.failed(StageDNS, err)
		}
		m.learn(m.to.Addrs, (*endpoints).learn)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.nextLocked(replayable), nil
}

func (o *Origin) nextLocked(replayable bool) Explanation {
	now := o.pool.now()
	if !o.endpoints.balance.reuse {
		o.reviseLocked(now)
	}
	x := o.explainLocked(&Ticket{Replayable: replayable}, now)
	x.Addrs, x.Total = o.endpoints.listing(now)
	if o.key.Way != Directly {
		x.Hop = o.pool.cfg.Hop.String()
	}
	return x
}

// Inspection is what a pool has for an origin.
type Inspection struct {
	// Stats are its figures.
	Stats
	// Keeps says that its connections are kept after an exchange. Hint is how long the
	// upstream said last that they may idle; 0: it did not.
	Keeps bool
	Hint  time.Duration
	// Next says where the next request goes that can be sent twice.
	Next Explanation
	// Name is what is known of its host.
	Name names.Explanation
}

// Inspect tells what the pool has for an origin, and reports false if that is nothing.
// It looks nothing up.
func (p *Pool) Inspect(k Key) (x Inspection, ok bool) {
	p.mu.Lock()
	o := p.known.byKey[k]
	p.mu.Unlock()
	if o == nil {
		return x, false
	}
	x.Stats, _ = o.snapshot()
	x.Name = o.name.Explain()
	o.mu.Lock()
	defer o.mu.Unlock()
	x.Next, x.Keeps, x.Hint = o.nextLocked(true), o.manners.keeps(p.now()), o.endpoints.hint
	return x, true
}

func (o *Origin) explainLocked(t *Ticket, now time.Duration) Explanation {
	s := &o.endpoints
	q := o.requestLocked(t, now)
	of := fmt.Sprintf("of %d in use, %d in all", len(s.chosen), len(s.ranked))
	if !o.manners.keeps(now) {
		return o.dialledLocked(t, "connections to this origin are not kept, "+of, now)
	}
	if c := o.sharedForLocked(t, &q); c != nil {
		return Explanation{Addr: c.lease.addr.Addr(), Idle: true,
			Why: fmt.Sprintf("shares a connection in HTTP/2 with %d other requests, %s", c.streams, of)}
	}
	var best *endpoint
	for _, e := range s.chosen {
		if s.on(e, &q) != nil && (best == nil || lighter(&e.load, &best.load, e.busy(), best.busy(), 0.5, now)) {
			best = e
		}
	}
	if best != nil {
		return Explanation{Addr: best.addr, Idle: true, Why: "the least loaded with an idle connection, " + of}
	}
	if l := o.idle.pick(&q); l != nil {
		return Explanation{Addr: l.addr.Addr(), Idle: true, Why: "its connection was used last, " + of}
	}
	return o.dialledLocked(t, "no idle connection that this request may have, "+of, now)
}

// dialledLocked says where a dial would go.
func (o *Origin) dialledLocked(t *Ticket, why string, now time.Duration) Explanation {
	s := &o.endpoints
	x := Explanation{Why: "a new connection: " + why}
	if s.balance.reuse {
		if list := s.order(s.set, o.port, now); len(list) > 0 {
			x.Addr = list[0].Addr()
		}
		return x
	}
	if _, bids := o.aimLocked(s.set, aim{trial: t.Replayable}, now); len(bids) > 0 {
		x.Addr = bids[0].addr
	}
	return x
}

// listing returns figures of the addresses that the name has, by rank, and of those
// that it does not have any more.
func (s *endpoints) listing(now time.Duration) (list []AddrStats, total int) {
	add := func(e *endpoint) {
		if total++; total <= maxTargets {
			list = append(list, e.figures(now))
		}
	}
	for _, e := range s.ranked {
		add(e)
	}
	for _, e := range s.known {
		if !e.listed && e.leases.Len() > 0 {
			add(e)
		}
	}
	return list, total
}
