package proxy

import (
	"sync/atomic"
	"time"
)

// flow is how a tunnel or an upgraded connection is doing. Its two directions
// tell it what moves, without a lock; the sweeper looks at it.
type flow struct {
	ways [2]*way // set once

	moved atomic.Uint32 // pieces passed on, and ends
	ended atomic.Uint32 // directions that have ended

	// Guarded by reins.mu.
	cut     bool   // both directions are to end
	meaning speech // what it was found to be; unclear while both sides are listened to
	// The sweeper's, too.
	seen    uint32        // what moved was when it last looked
	since   time.Duration // when it saw that first, or the beginning
	overdue string        // why it has ended the tunnel; "" if it has not
}

// pass notes that bytes have moved.
func (f *flow) pass() { f.moved.Add(1) }

// end notes that a direction has ended.
func (f *flow) end() {
	f.ended.Add(1)
	f.moved.Add(1)
}

// halfClosed reports whether one side has ended.
func (f *flow) halfClosed() bool { return f.ended.Load() > 0 }

// silence returns for how long nothing has moved, as far as the looks have shown it.
// That a side ends is a move.
func (f *flow) silence(now time.Duration) time.Duration {
	if moved := f.moved.Load(); moved != f.seen {
		f.seen, f.since = moved, now
	}
	return now - f.since
}

// rouse wakes those of its directions that sleep, to end.
func (f *flow) rouse() {
	for _, w := range f.ways {
		w.t.roster.rouse(w)
	}
}

// drowsyAfter is after which silence a tunnel's directions go to sleep.
const drowsyAfter = sweepsToSleep * sweepPeriod

// quietAfter is after which silence a drain does not wait for a tunnel of which
// one side has ended. Its client has gone, most likely, and its upstream waits
// for a word that will not come.
const quietAfter = 5 * time.Second
