package pool

import (
	"container/heap"
	"time"
)

// longest finds the connection that has been idle longest, in all of the pool,
// without a look at every origin and at no cost for requests. It is guarded by
// Pool.mu.
//
// It is a heap of the origins that have idle connections, by a time before which
// none of theirs became idle. That time is exact when the origin comes into the
// heap, and is left alone when its connections are used, which makes the true one
// later only. An origin comes into the heap with its first idle connection, and
// leaves it when it turns out, as it has come to the top or as the janitor looks,
// to have none. So a request finds it there, and does nothing (seat.listed).
type longest []*Origin

// add puts an origin into the heap that has an idle connection and is not in it.
func (h *longest) add(o *Origin) {
	if o.seat.listed.Load() {
		return
	}
	o.seat.listed.Store(true)
	o.seat.idleFrom = 0
	heap.Push(h, o)
	h.refresh(o)
}

func (h *longest) remove(o *Origin) {
	if o.seat.listed.Load() {
		heap.Remove(h, o.seat.at)
		o.seat.listed.Store(false)
	}
}

// refresh brings the place of an origin up to date.
func (h *longest) refresh(o *Origin) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.seat.listed.Load() {
		return
	}
	l := o.idle.longest()
	if l == nil {
		h.remove(o) // with o.mu held, so that the next one to become idle sees it
		return
	}
	o.seat.idleFrom = l.idleSince
	heap.Fix(h, o.seat.at)
}

// take takes the connection that has been idle longest; nil if none is idle.
func (h *longest) take() *Lease {
	for len(*h) > 0 {
		o := (*h)[0]
		if l := o.takeIdleSince(o.seat.idleFrom); l != nil {
			return l
		}
		h.refresh(o)
	}
	return nil
}

// takeIdleSince takes the connection that has been idle longest if it has been so
// since then, or longer.
func (o *Origin) takeIdleSince(t time.Duration) *Lease {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.idle.longest()
	if l == nil || l.idleSince > t {
		return nil
	}
	l.node.Leave()
	return l
}

// list sees to it that the origin is in the heap, after one of its connections
// has become idle.
func (p *Pool) list(o *Origin) {
	if !o.seat.listed.Load() {
		p.mu.Lock()
		p.longest.add(o)
		p.mu.Unlock()
	}
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h longest) Len() int { return len(h) }

// Less implements heap.Interface.
func (h longest) Less(i, j int) bool { return h[i].seat.idleFrom < h[j].seat.idleFrom }

// Swap implements heap.Interface.
func (h longest) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].seat.at, h[j].seat.at = i, j
}

// Push implements heap.Interface.
func (h *longest) Push(x any) {
	o := x.(*Origin)
	o.seat.at = len(*h)
	*h = append(*h, o)
}

// Pop implements heap.Interface.
func (h *longest) Pop() any {
	last := len(*h) - 1
	o := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return o
}
