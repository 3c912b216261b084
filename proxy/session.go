package proxy

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// session serves one client connection: a loop that reads a request, carries
// it upstream and the answer back. One goroutine runs it; only a request body
// that does not arrive at once takes a second. What has become a tunnel goes on
// without it.
type session struct {
	p      *Proxy
	lane   Lane
	client client
	route  route
	ticket pool.Ticket
	tunnel *splice // what it has become, and is to begin
	reins  reins   // what others may pull
}

var sessions = sync.Pool{New: func() any { return new(session) }}

func (p *Proxy) newSession(lane Lane) *session {
	s := sessions.Get().(*session)
	s.p, s.lane = p, lane
	s.route.upstreams, s.route.egress, s.route.hop, s.route.originate = p.cfg.Upstreams, p.cfg.Egress, p.cfg.Hop, p.cfg.Originate
	s.client.begin(&p.cfg)
	if s.reins.run == nil {
		s.reins.conn, s.reins.ticket, s.reins.run = &s.client.conn, &s.ticket, s.serve
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
	for s.client.skipEmptyLines(); s.client.in.Len() == 0; s.client.skipEmptyLines() {
		if !s.await() {
			return false
		}
	}
	x := exchanges.Get().(*exchange)
	again := s.handle(x)
	x.recycle()
	return again
}

// await waits for the first bytes of a request.
func (s *session) await() bool {
	c, limit := s.client.stream, s.p.cfg.ClientIdleTimeout
	if limit > 0 {
		_ = c.SetReadDeadline(time.Now().Add(limit))
	}
	if !s.reins.enter(idle, s.p.now()) {
		return false
	}
	err := c.Fill(&s.client.in)
	if !s.reins.enter(busy, 0) {
		return false
	}
	if s.reins.drowsy || limit > 0 {
		_ = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return false
	}
	s.reins.drowsy = false // woken as it fell asleep
	return true
}

// end closes the connection and makes the session ready to serve another one;
// or it lets it sleep, or become a tunnel.
func (s *session) end() {
	p, r := s.p, recover()
	if r != nil {
		p.caught("a session", r)
		s.reins.abandon()
		s.client.abort, s.client.linger = true, false
	} else if t := s.tunnel; t != nil {
		s.tunnel = nil
		t.begin()
		return
	} else if s.reins.drowsy && !s.reins.isGone() {
		s.reins.drowsy = false
		p.roster.sleep(&s.reins)
		return
	}
	s.ticket.Leave()
	s.client.lingerOn()
	p.roster.leave(&s.reins)
	s.reins.close(s.client.abort)
	if r == nil { // or else an upload may still be at it: its memory serves nobody else
		s.client.end()
		s.route.forget()
		s.p = nil
		sessions.Put(s)
	}
	p.work.Done()
}

// uncount takes an exchange off a count, unless it goes on as a tunnel.
func (s *session) uncount(from *atomic.Int64) {
	if s.tunnel == nil {
		from.Add(-1)
	}
}

// handle serves the request that begins in what the client has sent.
func (s *session) handle(x *exchange) bool {
	x.begin(s)
	if s.client.unheard {
		is, err := s.client.listen()
		s.client.unheard = false
		if is != plainHTTP {
			return (&opening{s: s, x: x}).late(err) == following
		}
	}
	n, err := s.client.readHead(&x.req)
	if err != nil {
		p := headProblem(err, &s.reins)
		return p != nil && s.refuse(x, p)
	}
	x.headLen = n
	if string(x.req.Method) == "CONNECT" {
		return s.serveConnect(x)
	}
	if err := s.find(x); err != nil {
		x.isHead = string(x.req.Method) == "HEAD" // it may not have come that far
		return s.refuse(x, err)
	}
	if done, again := s.answerHere(x); done {
		return again
	}
	return s.exchange(x)
}

// find finds the origin of a request, and builds the head that goes there. The error
// is a *problem, a *refusal or a *policy.Denied.
func (s *session) find(x *exchange) error {
	t, bad := s.lane.target(&x.req)
	if bad != nil {
		return bad
	}
	moves := s.route.moves(t)
	o, err := s.route.to(t)
	if err != nil {
		return err
	}
	s.lane.count()
	if x.origin = o; x.relayed() {
		s.relays(x, t, moves)
	}
	x.buildRequest(t)
	return nil
}
