package proxy

import "time"

// Bounds on the time between two evictions of which the first did not help.
const (
	firstRelief = 100 * time.Millisecond
	lastRelief  = time.Second
)

// relief spaces the evictions that are to make room for an accept: one, and
// another only if that did not help, later each time. A descriptor that somebody
// else takes as soon as it comes free is no reason to close whatever is idle.
// The zero value is ready. It is for one goroutine.
type relief struct {
	wait time.Duration // before the next
	next time.Duration // when that may be, on the proxy's clock
}

// due reports whether something may be evicted now, and counts on it that it is.
func (r *relief) due(now time.Duration) bool {
	if now < r.next {
		return false
	}
	r.wait = min(max(2*r.wait, firstRelief), lastRelief)
	r.next = now + r.wait
	return true
}

// helped notes that there was room.
func (r *relief) helped() { *r = relief{} }
