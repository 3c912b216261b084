package proxy

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// session serves one client connection: a loop that reads a request, carries
// it upstream and the answer back. One goroutine runs it; only a request body
// that does not arrive at once, and tunnels, take a second.
type session struct {
	p      *Proxy
	lane   Lane
	conn   sock.Conn   // the accepted connection
	client sock.Stream // what HTTP is spoken on: conn, or a layer over it
	in     sock.Buffer // what the client has sent and nobody has used yet

	origin    *pool.Origin // of the last request,
	authority []byte       // which named it like this
	tls       bool

	ticket pool.Ticket
	linger bool // let the client read the answer before closing
	abort  bool // close so that the client sees a broken answer

	reins reins // what others may pull
}

var sessions = sync.Pool{New: func() any { return new(session) }}

func (p *Proxy) newSession(lane Lane) *session {
	s := sessions.Get().(*session)
	s.p, s.lane, s.client = p, lane, &s.conn
	if s.reins.run == nil {
		s.reins.conn, s.reins.ticket, s.reins.run = &s.conn, &s.ticket, s.serve
	}
	return s
}

func (s *session) serve() {
	growStack()
	defer s.end()
	for s.turn() {
	}
}

// growStack grows the stack of a fresh goroutine to what an exchange needs, by
// having a frame for which the first one is too small. Growing it in the depth
// of an exchange means to walk and copy all its frames, which cost 7 % of what a
// connection with one request costs.
//
//go:noinline
func growStack() byte {
	var frame [stackNeed]byte
	return frame[len(os.Args)]
}

// stackNeed leads to a stack of 4 KB.
const stackNeed = 2560

// turn serves one request and reports whether another may follow. It waits
// here, and not deeper, for that takes the least stack.
func (s *session) turn() bool {
	for s.skipEmptyLines(); s.in.Len() == 0; s.skipEmptyLines() {
		if !s.await() {
			return false
		}
	}
	x := exchanges.Get().(*exchange)
	again := s.handle(x)
	x.recycle()
	return again
}

// skipEmptyLines drops empty lines in front of a request (RFC 9112 section
// 2.2). They do not begin one: some clients end a body with one.
func (s *session) skipEmptyLines() {
	for b := s.in.Bytes(); len(b) >= 2 && b[0] == '\r' && b[1] == '\n'; b = s.in.Bytes() {
		s.in.Consume(2)
	}
}

// await waits for the first bytes of a request.
func (s *session) await() bool {
	if t := s.p.cfg.ClientIdleTimeout; t > 0 {
		_ = s.client.SetReadDeadline(time.Now().Add(t))
	}
	if !s.reins.enter(idle, s.p.now()) {
		return false
	}
	err := s.client.Fill(&s.in)
	if !s.reins.enter(busy, s.p.now()) {
		return false
	}
	if s.reins.drowsy || s.p.cfg.ClientIdleTimeout > 0 {
		_ = s.client.SetDeadline(time.Time{})
	}
	if err != nil {
		return false
	}
	s.reins.drowsy = false // woken as it fell asleep
	return true
}

// end closes the connection and makes the session ready to serve another one;
// or it lets it sleep.
func (s *session) end() {
	r := recover()
	if r != nil {
		s.p.caught("a session", r)
		s.abandon()
	} else if s.reins.drowsy && !s.reins.isGone() {
		s.reins.drowsy = false
		s.p.roster.sleep(&s.reins)
		return
	}
	s.ticket.Leave()
	s.ticket.Virgin = false
	if s.linger {
		s.lingerOn()
	}
	s.p.roster.leave(&s.reins)
	s.reins.close(s.abort)
	p := s.p
	if r != nil { // an upload may still be at it: its memory serves nobody else
		p.work.Done()
		return
	}
	s.in.Release()
	s.origin, s.authority = nil, s.authority[:0]
	s.linger, s.abort, s.client, s.p = false, false, nil, nil
	sessions.Put(s)
	p.work.Done()
}

// abandon gives up, after a panic, what the session had borrowed.
func (s *session) abandon() {
	lease := s.reins.drop()
	if lease != nil {
		lease.Discard(pool.BadAnswer)
	}
	s.abort, s.linger = true, false
}

// Bounds on reading what a client still sends after the last answer (RFC 9112
// section 9.6): closing with bytes unread resets the connection, and the
// client might never see the answer.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

func (s *session) lingerOn() {
	if s.client.CloseWrite() != nil || s.client.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	for n := 0; n < lingerBytes; {
		s.in.Release()
		if s.client.Fill(&s.in) != nil {
			return
		}
		n += s.in.Len()
	}
}

// handle serves the request that begins in s.in.
func (s *session) handle(x *exchange) bool {
	x.start = s.p.now()
	u := &x.up
	u.client, u.conn, u.in, u.reins = s.client, &s.conn, &s.in, &s.reins
	u.idle, u.answer = s.p.cfg.BodyIdleTimeout, s.p.cfg.ResponseHeaderTimeout
	if err := s.readHead(x); err != nil {
		return s.refuseHead(x, err)
	}
	if string(x.req.Method) == "CONNECT" {
		return s.serveConnect(x)
	}
	if err := s.route(x); err != nil {
		x.isHead = string(x.req.Method) == "HEAD" // it may not have come that far
		return s.refuse(x, err)
	}
	if done, again := s.answerHere(x); done {
		return again
	}
	return s.exchange(x)
}

// readHead reads until the head of a request is there.
func (s *session) readHead(x *exchange) error {
	timed := false
	for {
		n, err := x.req.Parse(s.in.Bytes(), s.p.cfg.MaxHeaderBytes)
		if err == nil {
			x.headLen = n
			if timed {
				return s.client.SetReadDeadline(time.Time{})
			}
			return nil
		}
		if err != http1.ErrIncomplete {
			return err
		}
		if t := s.p.cfg.ClientHeaderTimeout; t > 0 && !timed {
			timed = true
			if err := s.client.SetReadDeadline(time.Now().Add(t)); err != nil {
				return err
			}
		}
		if !s.in.Grow(2 * s.p.cfg.MaxHeaderBytes) { // the parser's own limit comes first
			return &problemHeadSize
		}
		if err := s.client.Fill(&s.in); err != nil {
			return err
		}
	}
}

// refuseHead answers a head that could not be read, if there is anybody to
// answer.
func (s *session) refuseHead(x *exchange, err error) bool {
	var bad *http1.Error
	var p *problem
	switch {
	case errors.As(err, &bad):
		return s.refuse(x, badRequest(bad))
	case errors.As(err, &p):
		return s.refuse(x, p)
	case errors.Is(err, os.ErrDeadlineExceeded) && !s.reins.isGone():
		return s.refuse(x, &problemHeadTimeout)
	}
	return false // the client left, or was cut off, in the middle of a head
}
