package status

import (
	"sync"
	"time"
)

const (
	// samplePeriod is how often figures are taken for the charts. A look costs
	// some microseconds for each origin.
	samplePeriod = 10 * time.Second
	perMinute    = int(time.Minute / samplePeriod)
	// maxSamples cover an hour of rates, and the minute that the first of them
	// looks back on.
	maxSamples = 60*perMinute + perMinute + 1
)

// sample is what had been counted by some time.
type sample struct {
	at             time.Time
	opened, reused uint64
}

// rate is what happened in the minute before a time.
type rate struct {
	at time.Time
	// opened are the new upstream connections, exchanges those that there would
	// have been without pooling.
	opened, exchanges uint64
}

// history keeps the samples of the last hour. It is safe for concurrent use.
type history struct {
	mu   sync.Mutex // guards ring and next; never held while figures are taken
	ring []sample   // grows to maxSamples, then the oldest is overwritten
	next int
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < maxSamples {
		h.ring = append(h.ring, s)
		return
	}
	h.ring[h.next] = s
	h.next = (h.next + 1) % maxSamples
}

// rates returns one rate for each sample, oldest first. In the first minute
// they look back on less.
func (h *history) rates() []rate {
	h.mu.Lock()
	samples := append(append([]sample(nil), h.ring[h.next:]...), h.ring[:h.next]...)
	h.mu.Unlock()
	first := 0
	if len(samples) == maxSamples {
		first = perMinute
	}
	list := make([]rate, 0, len(samples))
	for i, s := range samples[first:] {
		before := samples[max(first+i-perMinute, 0)]
		opened, reused := s.opened-before.opened, s.reused-before.reused
		list = append(list, rate{s.at, opened, opened + reused})
	}
	return list
}
