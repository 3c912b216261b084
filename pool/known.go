package pool

import "github.com/carpoolproxy/carpool/internal/list"

import "time"

// known are the origins that the pool remembers, in the order in which they were
// looked at for something to forget: the one looked at last comes first. All of
// it is guarded by Pool.mu.
//
// Which origin was used last is not kept in order, for that would cost every
// request a lock that all share. Of a few origins that were looked at longest ago
// the one that was used longest ago makes room for a new one, and the others go
// to the front. So what a new host costs does not depend on how many there are.
type known struct {
	most   int
	byKey  map[Key]*Origin
	order  list.List[*Origin]
	labels int   // origins with statistics of their own
	other  Stats // of unlabelled origins that are gone
	gone   Stats // of labelled ones
}

const (
	// lookedAt is how many origins are looked at to make room for a new one.
	lookedAt = 8
	// lookedOver is how many the janitor looks at each time he comes.
	lookedOver = 256
)

func (k *known) add(o *Origin) {
	if k.labels < maxLabels {
		k.labels++
		o.label = o.key.String()
	}
	k.byKey[o.key] = o
	k.order.PushFront(&o.seat.known)
}

// look returns the origin that was looked at longest ago.
func (k *known) look() *Origin {
	n := k.order.Back()
	k.order.Remove(n)
	k.order.PushFront(n)
	return n.Value
}

// drop removes an origin that was retired.
func (k *known) drop(o *Origin) {
	delete(k.byKey, o.key)
	k.order.Remove(&o.seat.known)
	t, _ := o.snapshot()
	if o.label != "" {
		k.labels--
		k.gone.add(&t)
	} else {
		k.other.add(&t)
	}
}

// makeRoomLocked forgets an origin if there are as many as there may be: one
// without connections, or else one whose connections are all idle, which it
// returns to be shut. If all that it looks at are in use there will be one more.
func (p *Pool) makeRoomLocked() []*Lease {
	k := &p.known
	if len(k.byKey) < k.most {
		return nil
	}
	var best *Origin
	var bestUsed time.Duration
	bestUse := inUse
	for range min(lookedAt, len(k.byKey)) {
		o := k.look()
		if use, used := o.usage(); use < bestUse || use == bestUse && use < inUse && used < bestUsed {
			best, bestUse, bestUsed = o, use, used
		}
	}
	if best == nil {
		return nil
	}
	leases, retired := best.retire()
	if retired {
		p.longest.remove(best)
		k.drop(best)
	}
	return leases
}

// forgetLocked looks at so many origins and removes those that have no connection
// and were not used for so long.
func (p *Pool) forgetLocked(n int, unused time.Duration) {
	since := p.now() - unused
	for range min(n, len(p.known.byKey)) {
		o := p.known.look()
		if use, used := o.usage(); use == empty && used <= since {
			if _, retired := o.retire(); retired { // it is empty, or was used just now
				p.longest.remove(o)
				p.known.drop(o)
			}
		}
	}
}

// use says what an origin has open.
type use int

const (
	empty   use = iota // nothing
	allIdle            // idle connections only
	inUse              // a connection in use, a request that waits for one, or it is kept warm
)

// usage tells what the origin has open, and when it was last asked for.
func (o *Origin) usage() (use, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.useLocked(), o.times.used
}

func (o *Origin) useLocked() use {
	switch {
	case o.queue.dialing+o.queue.waiting.Len() > 0, o.open > o.idle.len(), o.warmth.listed:
		return inUse
	case o.open > 0:
		return allIdle
	}
	return empty
}

// retire marks the origin as gone and takes its idle connections, which are
// accounted for as closed and are still to be shut; unless it is in use.
func (o *Origin) retire() (leases []*Lease, retired bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.useLocked() == inUse {
		return nil, false
	}
	for l := o.idle.takeLongest(); l != nil; l = o.idle.takeLongest() {
		leases = append(leases, l)
		o.lostLocked(l, MaxIdle)
	}
	o.gone.Store(true)
	o.name.Release()
	return leases, true
}
