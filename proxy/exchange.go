package proxy

import (
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// exchange is one request and its answer. It is taken from a pool when the
// first byte of a request is there, so that an idle session does without.
type exchange struct {
	start   time.Duration
	req     http1.Request
	headLen int
	origin  *pool.Origin

	traits       // of the request
	connect bool // it is a CONNECT

	reqHead  []byte // as it goes upstream; kept until the end, for a retry and the log
	up       upload // the request's body
	accepted bool   // a byte of the request was
	retried  bool

	resp     http1.Response
	rb       sock.Buffer // what the upstream has sent and nobody has used yet
	respHead []byte
	respBody http1.Body
	informed bool // a 1xx was passed on
	suspect  bool // and was odd
	stray    bool // more came behind it than belongs to it
	// What the upstream said of its connection (pool.Lease.Hint).
	hintTimeout, hintMax int64

	received int64 // bytes of body from the upstream
	status   int
}

// scratchSize is what the heads of an exchange may keep of memory.
const scratchSize = 4 << 10

var exchanges = sync.Pool{New: func() any {
	return &exchange{reqHead: make([]byte, 0, scratchSize/2), respHead: make([]byte, 0, scratchSize/2)}
}}

// recycle makes x ready for another request.
func (x *exchange) recycle() {
	x.rb.Release()
	x.req.Reset()
	x.resp.Reset()
	if cap(x.reqHead) > scratchSize || cap(x.respHead) > scratchSize || cap(x.req.Fields) > 128 || cap(x.resp.Fields) > 128 {
		return // an unusual one: its memory goes
	}
	*x = exchange{
		req: x.req, resp: x.resp,
		reqHead: x.reqHead[:0], respHead: x.respHead[:0],
		up: upload{done: x.up.done},
	}
	exchanges.Put(x)
}

// maxReplay is how much of a request body is kept for a retry.
const maxReplay = 64 << 10

// exchange carries the request in x upstream and brings the answer back.
func (s *session) exchange(x *exchange) (more bool) {
	s.in.Consume(x.headLen)
	x.up.keep = x.replayable && x.up.body.Left() <= maxReplay
	if err := x.up.decode(); err != nil {
		return s.refuse(x, err)
	}
	s.p.inFlight.Add(1)
	defer s.p.inFlight.Add(-1) // after a panic too
	switch {
	case !s.reins.begin(x.origin):
	case s.p.admits():
		more = s.carry(x)
	default:
		more = s.unlent(x, &problemMemory) == following
	}
	return s.reins.enter(busy, s.p.now()) && more
}

// carry is the retry loop: at most one retry, on a fresh connection.
func (s *session) carry(x *exchange) bool {
	for {
		lease, err := s.acquire(x)
		if err != nil {
			return s.unlent(x, dialProblem(err)) == following
		}
		addr := lease.Addr().Addr()
		if next := s.attempt(x, lease); next != again {
			return next == following
		}
		x.retried, s.ticket.Avoid = true, addr
		x.up.broken, x.accepted = false, false
		x.rb.Release()
		x.resp.Reset()
		s.p.retries.Add(1)
	}
}

// unlent ends an exchange for which there is no connection.
func (s *session) unlent(x *exchange, p *problem) step {
	f := facts{unlent: p, read: x.up.body.Done(), sent: true, persists: x.keepAlive}
	return s.tell(x, f.judge())
}

// acquire borrows a connection: the one that belongs to this client, or one
// from the pool.
func (s *session) acquire(x *exchange) (*pool.Lease, error) {
	// A handshake has to get through: the other protocol is spoken for long.
	s.ticket.Replayable, s.ticket.Fresh = x.replayable && x.up.keep, x.retried || x.upgrade && !s.ticket.Kept()
	if !x.retried {
		s.ticket.Avoid = netip.Addr{}
	} else {
		s.reins.beginAgain(x.origin)
	}
	l, err := x.origin.Acquire(&s.ticket)
	s.reins.hold(l)
	if err == nil && l.Pinned() {
		x.pin = true // it knows this client, also where a request has no credentials
	}
	return l, err
}

// attempt sends the request on a connection and relays the answer, or asks to be
// called again.
func (s *session) attempt(x *exchange, lease *pool.Lease) step {
	n, err := lease.Writev(x.reqHead, x.up.bytes())
	if err != nil {
		x.up.broken = true // there may be an answer all the same, an early one
		if x.accepted = n > 0; !x.accepted {
			if v := s.judge(x, lease, unanswered, err); v.next == again {
				return s.conclude(x, lease, v)
			}
		}
	} else {
		x.accepted = true
		x.up.start(lease)
	}
	if err := s.readResponse(x, lease); err != nil {
		got := unanswered
		if x.rb.Len() > 0 || x.informed {
			got = begun
		}
		return s.conclude(x, lease, s.judge(x, lease, got, err))
	}
	if v, crossed := s.crossed(x, lease); crossed {
		return s.conclude(x, lease, v)
	}
	return s.answer(x, lease)
}

// judge stops the upload, gathers the facts, and has them judged. err is what the
// exchange cannot go on for, nil if there is nothing.
func (s *session) judge(x *exchange, lease *pool.Lease, got progress, err error) verdict {
	uploaded := x.up.stop(lease)
	r := &x.resp
	f := facts{
		got: got, accepted: x.accepted, read: x.up.body.Done(), sent: !x.up.broken, replayable: x.replayable, kept: x.up.keep,
		retried: x.retried, upgrade: x.upgrade, connect: x.connect, persists: x.keepAlive, reused: lease != nil && lease.Reused(), stray: x.stray,
		late: lease != nil && x.cameLate(lease),
	}
	if got >= headed {
		f.idledOut, f.switched, f.last = lease != nil && x.idledOut(lease), r.Status == 101, ends(r)
		f.suspect = r.Suspect || x.respBody.Suspect || x.suspect
	}
	if got == complete {
		f.gone, f.dead = s.reins.letGo() // from here on nobody interrupts it
	} else {
		f.gone, f.dead = s.reins.reined()
	}
	f.blame(uploaded, isClientError(uploaded))
	f.blame(err, isClientError(err))
	return f.judge()
}

// conclude carries a verdict out on an exchange of which no answer has reached
// the client.
func (s *session) conclude(x *exchange, lease *pool.Lease, v verdict) step {
	s.reins.letGo()
	lease.Discard(v.reason)
	return s.tell(x, v)
}

// tell answers what a verdict says, if there is somebody to answer.
func (s *session) tell(x *exchange, v verdict) step {
	switch v.problem {
	case nil:
		return v.next
	case &problemClientGone:
		s.log(x, v.problem.status, v.problem.kind)
		return closing
	}
	return s.fail(x, v)
}

// readResponse reads until the head of the final response is in x.resp. 1xx
// responses go to the client as they come.
func (s *session) readResponse(x *exchange, lease *pool.Lease) error {
	if t := s.p.cfg.ResponseHeaderTimeout; t > 0 && !x.up.running {
		if err := s.deadline(lease, t); err != nil {
			return err
		}
	}
	for {
		n, err := x.resp.Parse(x.rb.Bytes(), s.p.cfg.MaxHeaderBytes)
		switch {
		case err == nil && (x.resp.Status >= 200 || x.resp.Status == 101):
			x.headLen = n
			if s.p.cfg.ResponseHeaderTimeout > 0 {
				return s.reins.headCame(lease)
			}
			return nil
		case err == nil:
			if err := s.inform(x); err != nil {
				return err
			}
			x.rb.Consume(n)
			continue
		case err != http1.ErrIncomplete:
			return err
		}
		if !x.rb.Grow(2 * s.p.cfg.MaxHeaderBytes) { // the parser's own limit comes first
			return &problemHeadSize
		}
		if err := lease.Fill(&x.rb); err != nil {
			return err
		}
	}
}

// deadline bounds the next reads from the upstream. A cut that came before
// stays in force.
func (s *session) deadline(lease *pool.Lease, t time.Duration) error {
	if err := lease.SetReadDeadline(time.Now().Add(t)); err != nil {
		return err
	}
	if s.reins.isGone() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// inform passes a 1xx response on (RFC 9110 section 15.2).
func (s *session) inform(x *exchange) error {
	x.informed, x.suspect = true, x.suspect || x.resp.Suspect
	if x.http10 {
		return nil
	}
	b := x.buildResponse(s.p.cfg.Via)
	x.respHead = append(b, "\r\n"...)
	if _, err := s.client.Write(x.respHead); err != nil {
		return &clientError{err}
	}
	return nil
}
