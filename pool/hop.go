package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// Way is how connections to an origin are made.
type Way uint8

const (
	// Directly is to the origin's own addresses. It is the zero value.
	Directly Way = iota
	// ByHop is through the next hop, which makes the connection to the origin and
	// then passes bytes on.
	ByHop
	// ToHop is to the next hop, which is the origin itself: the requests sent to it say
	// where they go from there.
	ToHop
)

// Hop is the proxy that connections to some origins lead through.
type Hop struct {
	// Key says where it is. Its Way is ToHop.
	Key
	// Connect asks the hop, on a fresh connection to it, to connect to an origin, and
	// returns when it has. early is what has come through the connection by then; an
	// origin that is spoken to in TLS has nothing to say. It may be called from any
	// goroutine. c fails after Config.DialTimeout. The error is a DialError's at
	// StageHop.
	Connect func(c net.Conn, to Key) (early []byte, err error)
}

// leadsTo returns where the connections to an origin lead: to itself, or to the hop.
func (p *Pool) leadsTo(k Key) Key {
	if k.Way != ByHop {
		return k
	}
	if p.cfg.Hop == nil {
		panic("bug: pool: an origin is to be reached by a hop, and there is none")
	}
	return p.cfg.Hop.Key
}

// atHop reports whether what fails now is the hop, not what is behind it.
func (m *making) atHop() bool {
	way := m.origin.key.Way
	return way == ToHop || way == ByHop && !m.through
}

// failed says at which stage an error came, and whether it was the hop's.
func (m *making) failed(s Stage, err error) error {
	err = failedAt(s, err)
	var known *DialError
	if errors.As(err, &known) {
		known.Hop = m.atHop()
	}
	return err
}

// takeHop takes the steps from the hop to the origin: the TLS handshake with the hop, if
// it is spoken to in TLS, and its own connection. The time they take is that of
// connecting.
func (m *making) takeHop(ctx context.Context) (err error) {
	p, stage := m.origin.pool, StageTLS
	if config := p.hopSecurity(); config != nil {
		err = m.handshake(ctx, config)
	}
	if err == nil {
		stage, err = StageHop, m.pass(ctx)
	}
	m.course.through[StageConnect] = p.now()
	return m.failed(stage, err)
}

// pass has the hop connect to the origin.
func (m *making) pass(ctx context.Context) error {
	o, l := m.origin, m.lease
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.conn.Interrupt()
		close(ended)
	})
	early, err := o.pool.cfg.Hop.Connect(l.layer(), o.key)
	if !stop() {
		<-ended // or the connection might be closed meanwhile
		return ctx.Err()
	}
	if err == nil && len(early) > 0 {
		l.early = &earlyBytes{Layer: l.layer(), rest: early}
		l.Stream = sock.Over(l.early)
	}
	m.through = err == nil
	return err
}

// layer returns the uppermost connection of those that the lease consists of.
func (l *Lease) layer() sock.Layer {
	if l.tls != nil {
		return l.tls
	}
	return socket{l.conn}
}

// socket is the lowest layer.
type socket struct{ *sock.Conn }

// ReadMore implements sock.Layer.
func (s socket) ReadMore(p []byte) int {
	n, _ := s.ReadNow(p)
	return n
}

// earlyBytes is a connection of which something was read already.
type earlyBytes struct {
	sock.Layer
	rest []byte
}

// Read implements net.Conn.
func (e *earlyBytes) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		return e.Layer.Read(p)
	}
	return e.take(p), nil
}

// ReadMore implements sock.Layer.
func (e *earlyBytes) ReadMore(p []byte) int {
	if len(e.rest) == 0 {
		return e.Layer.ReadMore(p)
	}
	return e.take(p)
}

func (e *earlyBytes) take(p []byte) int {
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n
}

// CloseWrite ends the sending direction.
func (e *earlyBytes) CloseWrite() error {
	return e.Layer.(interface{ CloseWrite() error }).CloseWrite()
}

// tap counts the records of a TLS stream that goes through a connection, which is
// one in TLS itself.
type tap struct {
	net.Conn
	passed
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.note(p, n)
	return n, err
}

// CloseWrite ends the sending direction of what is below.
func (t *tap) CloseWrite() error { return t.Conn.(*tls.Conn).CloseWrite() }
