package proxy

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

// ParseTarget takes a request target apart; ok is false where it is refused.
func ParseTarget(target []byte) (authority, path string, ok bool) {
	t, bad := parseTarget(target)
	return string(t.authority), string(t.path), bad == nil
}
