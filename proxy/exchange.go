package proxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// exchange is one request and its answer. It is taken from a pool when the
// first byte of a request is there, so that an idle session does without.
type exchange struct {
	cfg     *Config
	start   time.Duration
	req     http1.Request
	headLen int
	origin  *pool.Origin
	barred  string // what a rule refuses of it, as in Reported.Target; there is no origin then

	traits       // of the request
	connect bool // it is a CONNECT

	reqHead  []byte // as it goes upstream; kept until the end, for a retry and the log
	up       upload // the request's body
	accepted bool   // a byte of the request was
	retried  bool
	declined int // how often it was sent of which nothing was done

	wire    wire            // on the lease:
	wire1   wire1           // in HTTP/1.1,
	wire2   *wire2          // or in HTTP/2; nil as long as none was
	resp    *http1.Response // the head that came last
	framing framing         // of the answer
	facts   facts           // as they were judged last
	timed   bool            // it counts in the timings
	spent   Phases          // as far as they are over

	respHead  []byte // as it goes to the client
	isProblem bool   // it is carpool's own, of something that is wrong
	received  int64  // bytes of body from the upstream
	status    int
	// hopStatus is with what the next hop has refused its service; 0: it did not.
	hopStatus int
}

// scratchSize is what the heads of an exchange may keep of memory.
const scratchSize = 4 << 10

var exchanges = sync.Pool{New: func() any {
	return &exchange{reqHead: make([]byte, 0, scratchSize/2), respHead: make([]byte, 0, scratchSize/2)}
}}

// begin makes x ready for a request of a session.
func (x *exchange) begin(s *session) {
	x.cfg, x.start, x.up.client = &s.p.cfg, s.p.now(), &s.client
}

// recycle makes x ready for another request.
func (x *exchange) recycle() {
	x.req.Reset()
	x.wire1.end()
	if x.wire2 != nil {
		x.wire2.end()
	}
	if cap(x.reqHead) > scratchSize || cap(x.respHead) > scratchSize || cap(x.req.Fields) > 128 || cap(x.wire1.resp.Fields) > 128 {
		return // an unusual one: its memory goes
	}
	*x = exchange{
		req: x.req, wire1: wire1{resp: x.wire1.resp}, wire2: x.wire2,
		reqHead: x.reqHead[:0], respHead: x.respHead[:0],
		up: upload{done: x.up.done},
	}
	exchanges.Put(x)
}

// maxReplay is how much of a request body is kept for a retry.
const maxReplay = 64 << 10

// exchange carries the request in x upstream and brings the answer back.
func (s *session) exchange(x *exchange) (more bool) {
	s.client.in.Consume(x.headLen)
	x.up.keep = (x.replayable || x.origin.MayShare()) && x.up.body.Left() <= maxReplay
	if err := x.up.decode(); err != nil {
		return s.refuse(x, err)
	}
	s.p.inFlight.Add(1)
	defer s.uncount(&s.p.inFlight) // after a panic too
	switch {
	case !s.reins.begin(x.origin):
	case s.p.admits():
		more = s.carry(x)
	default:
		more = s.tell(x, x.unlent(&problemMemory)) == following
	}
	return s.reins.enter(busy, 0) && more
}

// carry is the retry loop: at most one retry, on a fresh connection.
func (s *session) carry(x *exchange) bool {
	x.timed = true
	for {
		lease, err := s.acquire(x)
		if err != nil {
			return s.tell(x, x.unlent(s.noLease(x, err))) == following
		}
		addr := lease.Addr().Addr()
		if next := s.attempt(x); next != again {
			return next == following
		}
		if s.ticket.Avoid = addr; x.facts.unprocessed {
			x.declined++
		} else {
			x.retried = true
		}
		x.up.broken, x.accepted = false, false
		s.p.retries.Add(1)
	}
}

// acquire borrows a connection, the one that belongs to this client or one from the
// pool, and begins an exchange on it.
func (s *session) acquire(x *exchange) (*pool.Lease, error) {
	// A handshake has to get through: the other protocol is spoken for long.
	// A CONNECT sends nothing on a connection that was used.
	again := x.retried || x.declined > 0
	s.ticket.Replayable, s.ticket.Fresh = x.connect || x.replayable && x.up.keep, again || x.upgrade && !s.ticket.Kept()
	s.ticket.Connect = x.connect
	s.ticket.Exclusive = x.upgrade || x.pin || again && x.facts.older
	if !again {
		s.ticket.Avoid = netip.Addr{}
	} else {
		s.reins.beginAgain(x.origin)
	}
	l, err := x.origin.Acquire(&s.ticket)
	x.spent.waited(s.ticket.Waited())
	s.reins.hold(l)
	if err != nil {
		return nil, err
	}
	x.pin = x.pin || l.Pinned() // it knows this client, also where a request has no credentials
	if l.HTTP2() != nil {
		if x.wire2 == nil {
			x.wire2 = new(wire2)
		}
		x.wire2.begin(l, x.cfg, &s.reins)
		x.wire = x.wire2
		return l, nil
	}
	x.wire1.begin(l, x.cfg, &s.reins)
	x.wire = &x.wire1
	return l, nil
}

// borrow borrows a connection for something else than a request, a virgin one or as
// for a request.
func (s *session) borrow(x *exchange, virgin bool) (*pool.Lease, *problem) {
	if hop := s.p.cfg.Hop; !virgin && hop.plain(x.origin.Key()) {
		defer func(o *pool.Origin) { x.origin = o }(x.origin)
		x.origin = s.p.cfg.Upstreams.Origin(hop.relay())
	}
	switch {
	case !s.reins.begin(x.origin):
		return nil, &problemClientGone
	case !s.p.admits():
		return nil, &problemMemory
	}
	s.ticket.Virgin = virgin
	lease, err := s.acquire(x)
	s.ticket.Virgin = false
	if err != nil {
		return nil, s.noLease(x, err)
	}
	return lease, nil
}

// attempt sends the request and relays the answer, or asks to be called again.
func (s *session) attempt(x *exchange) step {
	n, err := x.wire.send(x.reqHead, x.up.bytes(), x.up.body.Done())
	if err != nil {
		x.up.broken = true // there may be an answer all the same, an early one
		if x.accepted = n > 0; !x.accepted {
			if v := x.judge(&s.reins, unanswered, err); v.next == again {
				return s.conclude(x, v)
			}
		}
	} else {
		x.accepted = true
		x.up.start(x.wire)
	}
	err = x.await()
	x.spent[PhaseFirstByte] = x.wire.firstByte()
	if err != nil {
		return s.conclude(x, x.judge(&s.reins, unanswered, err))
	}
	if x.crossed() {
		if v := x.judge(&s.reins, headed, nil); v.next == again {
			return s.conclude(x, v)
		}
	}
	return s.answer(x)
}

// await waits for the head of the final answer. 1xx go to the client as they come
// (RFC 9110 section 15.2).
func (x *exchange) await() (err error) {
	if !x.up.running {
		if err := x.wire.endBody(); err != nil {
			return err
		}
	}
	for {
		x.resp, err = x.wire.head()
		if err != nil || isFinal(x.resp.Status) {
			return err
		}
		if x.http10 {
			continue
		}
		x.respHead = append(x.buildResponse(), "\r\n"...)
		if _, err := x.up.client.stream.Write(x.respHead); err != nil {
			return &clientError{err}
		}
	}
}

// crossed reports whether the final answer may be none to this request, so that the
// request is to be sent again: on a kept connection a 408 may be what the upstream
// said as it closed that as idle (RFC 9110 section 15.5.9).
func (x *exchange) crossed() bool {
	if x.resp.Status != 408 || !x.replayable || x.retried {
		return false
	}
	x.facts = facts{got: headed}
	x.wire.tell(&x.facts)
	return x.facts.idledOut
}

// unlent judges an exchange for which there is no connection.
func (x *exchange) unlent(p *problem) verdict {
	f := facts{unlent: p, read: x.up.body.Done(), sent: true, persists: x.keepAlive}
	return f.judge()
}

// judge stops the upload, gathers the facts, and has them judged. err is what the
// exchange cannot go on for, nil if there is nothing.
func (x *exchange) judge(r *reins, got progress, err error) verdict {
	uploaded := x.up.stop()
	f := &x.facts
	*f = facts{
		got: got, accepted: x.accepted, read: x.up.body.Done(), sent: !x.up.broken, replayable: x.replayable, kept: x.up.keep,
		retried: x.retried, declined: x.declined, upgrade: x.upgrade, connect: x.connect, persists: x.keepAlive,
		asked: got == headed && x.asked(),
	}
	x.wire.tell(f)
	if got == complete {
		f.gone, f.dead = r.letGo() // from here on nobody interrupts it
	} else {
		f.gone, f.dead = r.reined()
	}
	f.blame(uploaded, isClientError(uploaded))
	f.blame(err, isClientError(err))
	return f.judge()
}

// conclude carries a verdict out on an exchange of which no answer has reached
// the client.
func (s *session) conclude(x *exchange, v verdict) step {
	s.reins.letGo()
	x.wire.settle(v.reason, nil, false)
	v.problem = s.hopFailed(x, v.problem)
	return s.tell(x, v)
}

// tell answers what a verdict says, if there is somebody to answer.
func (s *session) tell(x *exchange, v verdict) step {
	p := v.problem
	switch p {
	case nil:
		return v.next
	case &problemClientGone:
		s.p.ended(x, p.status, p.kind, "")
		return closing
	}
	x.origin.Tally(OwnAnswers)
	countAnswer(x.origin, p.status)
	x.keepAlive = v.next == following
	more := s.replyProblem(x, p)
	x.up.forget()
	if !more {
		return closing
	}
	return following
}
