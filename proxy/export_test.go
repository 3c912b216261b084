package proxy

import "time"

// SweepPeriod is how often the sweeper turns.
const SweepPeriod = sweepPeriod

// HoldSessions stops whoever wants to look at a session, until it is released.
func (p *Proxy) HoldSessions() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var held []*session
	for s := p.sessions; s != nil; s = s.next {
		s.mu.Lock()
		held = append(held, s)
	}
	return func() {
		for _, s := range held {
			s.mu.Unlock()
		}
	}
}

// Relief is relief for the tests.
type Relief struct{ r relief }

// Due calls due.
func (r *Relief) Due(now time.Duration) bool { return r.r.due(now) }

// Helped calls helped.
func (r *Relief) Helped() { r.r.helped() }

// FirstRelief is the shortest time between two evictions of which the first did
// not help.
const FirstRelief = firstRelief
