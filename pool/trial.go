package pool

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"
)

// Trial is what has come of opening a connection, step by step.
type Trial struct {
	// Tried are the addresses that were dialled, in the order in which it was known
	// whether that worked. Those that another has overtaken are not among them.
	Tried []Attempt
	// Addr is where the connection has led; the zero AddrPort: nowhere.
	Addr netip.AddrPort
	// Connect is what TCP took, with all addresses that were tried, and TLS what the
	// handshake took; 0 if it was not come to.
	Connect, TLS time.Duration
	// State is what the handshake has agreed on; nil if there was none, or it failed.
	State *tls.ConnectionState
	// Err is why there is no connection, as Acquire would say; nil if there was one.
	Err error
}

// Attempt is what has come of dialling one address.
type Attempt struct {
	Addr netip.AddrPort
	Took time.Duration
	// Err is why it could not be connected to, or may not be; nil if it could.
	Err error
}

// Try opens a connection as it would be opened for a request, and closes it at once.
// It has no slot, so no limit on connections counts, and no request gets it. offer,
// if there are any, are the protocols that TLS offers (ALPN) instead of the usual.
// It must have returned before Close is called.
func (o *Origin) Try(ctx context.Context, offer ...string) Trial {
	t, d := &Trial{}, &opening{trial: true} // which nobody waits for
	m := &making{origin: o, dial: d, aim: d.aim(), tls: o.security(), course: &d.course, trial: t}
	m.course.began = o.pool.now()
	if m.tls != nil && len(offer) > 0 {
		m.tls = m.tls.Clone()
		m.tls.NextProtos = offer
	}
	t.Err = m.walk(ctx)
	if through := &d.course.through; through[StageConnect] > 0 {
		t.Connect = through[StageConnect] - through[StageDNS]
		t.TLS = max(through[StageTLS]-through[StageConnect], 0)
	}
	if l := m.lease; l != nil {
		t.Addr = l.addr
		if l.tls != nil {
			state := l.tls.ConnectionState()
			t.State = &state
		}
	}
	m.undo()
	return *t
}

// tried notes what has come of dialling an address.
func (t *Trial) tried(a attempt) {
	if t != nil {
		t.Tried = append(t.Tried, Attempt{a.addr, a.took, a.err})
	}
}
