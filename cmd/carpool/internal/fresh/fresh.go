// Package fresh is for what is costly to find out and asked for by whoever likes: it is found out once in a while, for
// all who ask.
package fresh

import (
	"sync"
	"time"
)

// Value is something that is found out when somebody asks for it, and given out again while it is fresh. It is safe for
// concurrent use.
type Value[T any] struct {
	keep time.Duration
	find func() T

	mu    sync.Mutex // held while finding out, so that this happens once at a time
	last  T
	taken time.Time // zero: never
}

// New returns a Value that find finds out, and that is given out again until it is as old as keep.
func New[T any](keep time.Duration, find func() T) *Value[T] {
	return &Value[T]{keep: keep, find: find}
}

// Get returns what was found out, keep ago at most. All who ask get the same: they must not change it.
func (v *Value[T]) Get() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := time.Now(); v.taken.IsZero() || now.Sub(v.taken) >= v.keep {
		v.last, v.taken = v.find(), now
	}
	return v.last
}
