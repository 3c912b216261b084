package proxy

import (
	"net"
	"net/netip"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// SweepPeriod is how often the sweeper turns.
const SweepPeriod = sweepPeriod

// SeesResets says whether a reset is seen on a connection that nobody reads.
const SeesResets = sock.CanWatch

// Flow is flow for the tests.
type Flow struct{ f flow }

// Move notes that bytes have moved.
func (f *Flow) Move() { f.f.pass() }

// End notes that a side has ended.
func (f *Flow) End() { f.f.end() }

// Silence is silence.
func (f *Flow) Silence(now time.Duration) time.Duration { return f.f.silence(now) }

// Stumble has the sweeper look after a session that it cannot look after.
func (p *Proxy) Stumble() { p.lookAfter(nil) }

// EgressOf is CheckAddr on a machine that has these addresses.
func EgressOf(own func() ([]net.Addr, error), listeners ...netip.AddrPort) func(netip.AddrPort) error {
	e := NewEgress(EgressConfig{Listeners: listeners, OnLoopback: true})
	e.own = own
	return e.CheckAddr
}

// HoldSessions stops whoever wants to look at a session, until it is released.
func (p *Proxy) HoldSessions() (release func()) {
	p.roster.mu.Lock()
	defer p.roster.mu.Unlock()
	var held []*reins
	for e := p.roster.awake.Front(); e != nil; e = e.Next() {
		s := e.Value
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

// SpeechOf says what b begins: "" if that is not clear, "HTTP" or "other".
func SpeechOf(b []byte, limit int) string {
	return [...]string{"", "HTTP", "other"}[speechOf(b, limit)]
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

// ErrorNames returns the names of all kinds of errors.
func ErrorNames() []string { return errorNames[noError+1:] }

// AuthorityOf returns what a lane to one origin calls it, behind its scheme.
func AuthorityOf(l Lane) string { return string(l.fixed.scheme) + string(l.fixed.authority) }

// RetryAfter is what the head of an answer says of when to come back.
func RetryAfter(head string, now time.Time) time.Duration {
	var r http1.Response
	if _, err := r.Parse([]byte(head), 1<<16); err != nil {
		panic(err)
	}
	return retryAfter(&r, now)
}
