package pool

import (
	"math"
	"time"
)

// load is what an endpoint's exchanges say of it: how long it takes to answer, of
// late, and whether it fails. It is pure. The zero value knows nothing.
type load struct {
	latency time.Duration // 0: not known
	at      time.Duration // when that was measured last
	run     int           // failures since an exchange went well
	penalty time.Duration // for these, as latency, at
	since   time.Duration
}

const (
	// latencyDecay is in what time half of a latency is forgotten, as long as others
	// are measured.
	latencyDecay = 10 * time.Second
	// penaltyHalf is in what time a penalty is halved, whatever happens.
	penaltyHalf = 7 * time.Second
	// A run of failures costs firstPenalty at the second of them, and twice as much
	// at each one that follows, up to lastPenalty: among many requests one fails for
	// reasons of its own.
	firstPenalty = 250 * time.Millisecond
	lastPenalty  = 8 * time.Second
	// enoughFailures in a row put an endpoint on the bench.
	enoughFailures = 5
	// slowest bounds what latency alone does: an endpoint that is slower gets so many
	// times fewer requests of two, and not none, or nothing would be learned of it.
	slowest = 16
)

// answered notes an exchange that went well, with the time to the first byte of
// its answer; 0 if that is not known.
func (h *load) answered(took, now time.Duration) {
	h.run = 0
	switch passed := now - h.at; {
	case took <= 0:
		return
	case h.latency == 0:
		h.latency = took
	default:
		share := float64(passed) / float64(passed+latencyDecay)
		h.latency += time.Duration(share * float64(took-h.latency))
	}
	h.latency, h.at = max(h.latency, 1), now
}

// failed notes an exchange that failed. It reports whether the run of them is long
// enough for the bench.
func (h *load) failed(now time.Duration) bool {
	h.run++
	if h.run > 1 {
		more := min(firstPenalty<<min(h.run-2, 8), lastPenalty)
		h.penalty, h.since = max(h.fine(now), more), now
	}
	return h.run >= enoughFailures
}

// fine is what is left of the penalty; what is less than a millisecond is nothing.
func (h *load) fine(now time.Duration) time.Duration {
	if h.penalty == 0 {
		return 0
	}
	left := time.Duration(float64(h.penalty) * math.Exp2(-float64(now-h.since)/float64(penaltyHalf)))
	if left < time.Millisecond {
		h.penalty = 0
		return 0
	}
	return left
}

// lighter reports whether of two endpoints, with so many requests in flight, the
// first is to be used. chance is a random number from 0 to 1.
//
// Requests in flight come first: one that is slow now, for whatever reason, has
// more of them. Where these are equal latency decides how often each is used, not
// whether: it comes from what is asked for as much as from who answers. One that
// fails answers fast and has few requests in flight, so these say nothing of it.
func lighter(a, b *load, busyA, busyB int, chance float64, now time.Duration) bool {
	fineA, fineB := a.fine(now), b.fine(now)
	if fineA == 0 && fineB == 0 && busyA != busyB {
		return busyA < busyB
	}
	la, lb := float64(a.latency), float64(b.latency)
	switch {
	case la == 0 && lb == 0:
		la, lb = float64(time.Millisecond), float64(time.Millisecond)
	case la == 0:
		la = lb
	case lb == 0:
		lb = la
	}
	la, lb = min(la, slowest*lb), min(lb, slowest*la)
	costA := (la + float64(fineA)) * float64(busyA+1)
	costB := (lb + float64(fineB)) * float64(busyB+1)
	return chance*(costA+costB) < costB
}
