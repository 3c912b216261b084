package proxy

import (
	"sync/atomic"
	"time"
)

// flow is how a tunnel or an upgraded connection is doing. Its two directions
// tell it what moves, without a lock; the sweeper looks at it.
type flow struct {
	moved atomic.Uint32 // pieces passed on, and ends
	ended atomic.Uint32 // directions that have ended

	// The sweeper's, guarded by session.mu.
	seen    uint32        // what moved was when it last looked
	since   time.Duration // when it saw that first, or last saw both directions open
	overdue bool          // it has ended the tunnel
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

// silence returns for how long nothing has moved since one side has ended, as
// far as the looks have shown it.
func (f *flow) silence(now time.Duration) time.Duration {
	if moved := f.moved.Load(); !f.halfClosed() || moved != f.seen {
		f.seen, f.since = moved, now
	}
	return now - f.since
}

// quietAfter is after which silence a drain does not wait for a tunnel of which
// one side has ended. Its client has gone, most likely, and its upstream waits
// for a word that will not come.
const quietAfter = 5 * time.Second

// beginFlow begins the time in which either side may be silent, or closed for
// writing.
func (s *session) beginFlow(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.flow = tunnelling, f
}

// endFlow ends it, before the tunnel is counted as ended, and returns what is
// to be said of it.
func (s *session) endFlow() (detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flow != nil && s.flow.overdue {
		detail = "one side had ended and nothing moved any more (CARPOOL_TUNNEL_HALF_CLOSED_TIMEOUT)"
	}
	s.flow, s.quiet = nil, false
	return detail
}

// watchFlowLocked ends a tunnel of which one side has ended if nothing moves any
// more, or if the client turns out to be gone altogether: nobody reads from it
// who would notice.
func (s *session) watchFlowLocked() {
	silence := s.flow.silence(s.p.now())
	s.quiet = silence >= quietAfter
	limit := s.p.cfg.TunnelHalfClosedTimeout
	s.flow.overdue = s.flow.overdue || limit > 0 && silence >= limit
	if s.flow.overdue || s.flow.halfClosed() && s.conn.Broken() {
		s.conn.Interrupt()
		s.interruptLocked()
	}
}

// isQuiet reports whether a drain need not wait for this session's tunnel.
func (s *session) isQuiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet
}
