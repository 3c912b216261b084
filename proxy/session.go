package proxy

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
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
	conn   sock.Conn   // the accepted connection
	client sock.Stream // what HTTP is spoken on: conn, or a layer over it
	in     sock.Buffer // what the client has sent and nobody has used yet

	origin    *pool.Origin // of the last request,
	authority []byte       // which named it like this
	tls       bool

	ticket   pool.Ticket
	pumpDone chan error  // made when first needed; holds one
	stopping atomic.Bool // the pump is to end
	linger   bool        // let the client read the answer before closing
	abort    bool        // close so that the client sees a broken answer

	// Guarded by Proxy.mu.
	next, prev *session
	id         uint64 // while asleep

	// mu guards what other goroutines look at. Holding it keeps the session from
	// closing its connection or giving back its lease. It is never held across
	// I/O that can wait.
	mu      sync.Mutex
	phase   phase
	since   time.Duration // in this phase
	sweeps  int           // seen in this exchange
	gone    bool          // the client is, or the proxy is closing
	drowsy  bool          // idle long enough to go to sleep
	lease   *pool.Lease
	patient bool // the lease's peer is to be looked after
	dead    bool // and was found dead
	waiting *pool.Origin
	flow    *flow // of what is tunnelled
	quiet   bool  // a tunnel that a drain need not wait for
}

type phase uint8

const (
	busy     phase = iota // with its own affairs
	idle                  // waiting for the next request
	carrying              // in an exchange
	tunnelling
)

var sessions = sync.Pool{New: func() any { return new(session) }}

func (p *Proxy) newSession() *session {
	s := sessions.Get().(*session)
	s.p, s.client = p, &s.conn
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
	if !s.enter(idle) {
		return false
	}
	err := s.client.Fill(&s.in)
	if !s.enter(busy) {
		return false
	}
	if s.drowsy || s.p.cfg.ClientIdleTimeout > 0 {
		_ = s.client.SetDeadline(time.Time{})
	}
	if err != nil {
		return false
	}
	s.drowsy = false // woken as it fell asleep
	return true
}

// rest makes the session idle again, since when it was before.
func (s *session) rest() {
	s.mu.Lock()
	s.phase = idle
	s.mu.Unlock()
}

// enter changes the phase and reports whether the session may go on.
func (s *session) enter(ph phase) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.sweeps = ph, 0
	if ph == idle {
		s.since = s.p.now()
	}
	return !s.gone
}

// end closes the connection and makes the session ready to serve another one;
// or it lets it sleep.
func (s *session) end() {
	r := recover()
	if r != nil {
		s.p.caught("a session", r)
		s.abandon()
	} else if s.drowsy && !s.isGone() {
		s.drowsy = false
		s.p.sleep(s)
		return
	}
	s.ticket.Leave()
	s.ticket.Virgin = false
	if s.linger {
		s.lingerOn()
	}
	s.p.remove(s)
	s.mu.Lock()
	if s.abort {
		_ = s.conn.Abort()
	} else {
		_ = s.conn.Close()
	}
	s.phase, s.gone, s.drowsy, s.lease, s.waiting = busy, false, false, nil, nil
	s.flow, s.quiet = nil, false
	s.mu.Unlock()
	p := s.p
	if r != nil { // a pump may still be at it: its memory serves nobody else
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
	s.mu.Lock()
	lease := s.lease
	s.lease = nil
	s.mu.Unlock()
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

// idleSince returns since when the session has been waiting for a request.
func (s *session) idleSince() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.phase == idle && !s.gone
}

// evict ends an idle session that is awake; one that sleeps has to be woken.
func (s *session) evict() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != idle || !s.conn.Interrupt() {
		return false
	}
	s.gone = true
	return true
}

// cut ends whatever the session is doing.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.conn.Interrupt()
	s.interruptLocked()
}

// interruptLocked ends the exchange or tunnel under way.
func (s *session) interruptLocked() {
	if s.lease != nil {
		s.lease.Interrupt()
	}
	if s.waiting != nil {
		s.waiting.Cancel(&s.ticket)
	}
}

// lookAfter is called once per sweep: it ends an exchange whose client has
// gone, and a tunnel of which nothing is left, and sends an idle session to
// sleep.
func (s *session) lookAfter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeps++
	switch {
	case s.phase == carrying && s.sweeps >= 2 && (s.gone || s.conn.PeerGone()):
		s.gone = true
		s.interruptLocked()
	case s.phase == carrying && s.patient && s.lease != nil && s.lease.Silent():
		s.dead = true
		s.lease.Interrupt()
	case s.phase == tunnelling && s.flow != nil:
		s.watchFlowLocked()
	case s.phase == idle && s.sweeps >= sweepsToSleep && sock.CanWatch && s.p.cfg.ClientIdleTimeout == 0 && !s.gone:
		s.drowsy = s.conn.Interrupt()
	}
}

// isGone reports whether nobody waits for the answer any more.
func (s *session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// reined reports why the lease may have been interrupted: the client has gone, or
// the upstream was found dead.
func (s *session) reined() (gone, dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone, s.dead
}

// hold makes a lease known to those who may interrupt it.
func (s *session) hold(l *pool.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease, s.waiting, s.patient, s.dead = l, nil, false, false
}

// letGo takes the lease from them. It reports why they may have interrupted it.
func (s *session) letGo() (gone, dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone, dead = s.gone, s.dead
	s.lease, s.waiting, s.patient, s.dead = nil, nil, false, false
	return gone, dead
}

// handle serves the request that begins in s.in.
func (s *session) handle(x *exchange) bool {
	x.start = s.p.now()
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
	case errors.Is(err, os.ErrDeadlineExceeded) && !s.isGone():
		return s.refuse(x, &problemHeadTimeout)
	}
	return false // the client left, or was cut off, in the middle of a head
}
