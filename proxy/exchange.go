package proxy

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
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

	// What is kept of the request after its bytes are gone.
	isHead, isOptions bool
	keepAlive         bool  // the client wants to go on after the answer
	http10            bool  // the client speaks HTTP/1.0
	upgrade           bool  // the client offers another protocol
	connect           bool  // it is a CONNECT
	replayable        bool  // may be sent twice, as far as the method goes
	pin               bool  // authenticates the connection, not the request
	forwards          int64 // Max-Forwards for the next hop, -1: none

	reqHead  []byte      // as it goes upstream; kept until the end, for a retry and the log
	reqBody  http1.Body  // the framing of what is still to be read
	ready    int         // bytes at the front of session.in that are body, as it goes upstream
	keep     bool        // they stay there after they were sent, for a retry
	pumping  bool        // the rest of the body is being sent by another goroutine
	allRead  atomic.Bool // which has read the last of it
	accepted bool        // a byte of it was
	broken   bool        // not the whole request was, or will be, sent
	pumpErr  error       // what the pump ended with
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

	received, sent int64 // bytes of body from the upstream, and of request body
	status         int
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
	}
	exchanges.Put(x)
}

// classify notes what the request's head says about how to treat it.
func (x *exchange) classify(retryKeyed bool) {
	r := &x.req
	x.http10 = r.Minor == 0
	x.keepAlive = !x.http10 && !r.Close || x.http10 && (r.KeepAlive || http1.EqualFold(r.First(http1.ProxyConnection), "keep-alive"))
	x.keepAlive = x.keepAlive && !r.Suspect
	x.forwards = -1
	switch string(r.Method) {
	case "HEAD":
		x.isHead = true
	case "OPTIONS":
		x.isOptions = true
		x.forwards, _ = maxForwards(r)
	case "TRACE":
		x.forwards, _ = maxForwards(r)
	}
	x.upgrade = offersUpgrade(r)
	x.replayable = !x.upgrade && repeatable(r, retryKeyed)
	x.pin = pins(r.First(http1.Authorization))
	x.reqBody = r.Body()
}

// offersUpgrade reports whether an Upgrade is to be passed on. Not one with a
// long body, or one of which it is not known how long it is: there are servers
// that take what follows such a head for the other protocol, or for the next
// request (Kludex/uvicorn#2722), and the other protocol begins where the request
// ends. docker exec sends a short one. And not one to HTTP/2, which would only
// take the connection out of the pool.
func offersUpgrade(r *http1.Request) bool {
	if !r.Upgrade || r.Minor == 0 || !r.Has.Of(http1.Upgrade) {
		return false
	}
	body, h2c := r.Body(), false
	if body.Chunked() || body.Left() > maxReplay {
		return false
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == http1.Upgrade {
			http1.EachOption(r.Value(f), func(o []byte) bool {
				h2c = h2c || http1.EqualFold(o, "h2c")
				return true
			})
		}
	}
	return !h2c
}

// pins reports whether credentials are of a scheme that authenticates the
// connection instead of the request (RFC 4559): such a connection is for this
// client only.
func pins(credentials []byte) bool {
	for _, scheme := range [...]string{"ntlm", "negotiate"} {
		if n := len(scheme); len(credentials) >= n && http1.EqualFold(credentials[:n], scheme) &&
			(len(credentials) == n || credentials[n] == ' ') {
			return true
		}
	}
	return false
}

// maxReplay is how much of a request body is kept for a retry.
const maxReplay = 64 << 10

// exchange carries the request in x upstream and brings the answer back.
func (s *session) exchange(x *exchange) (more bool) {
	s.in.Consume(x.headLen)
	x.keep = x.replayable && x.reqBody.Left() <= maxReplay
	if err := s.decodeBody(x); err != nil {
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
		x.broken, x.accepted = false, false
		x.rb.Release()
		x.resp.Reset()
		s.p.retries.Add(1)
	}
}

// unlent ends an exchange for which there is no connection.
func (s *session) unlent(x *exchange, p *problem) step {
	f := facts{unlent: p, read: x.reqBody.Done(), sent: true, persists: x.keepAlive}
	return s.tell(x, f.judge())
}

// acquire borrows a connection: the one that belongs to this client, or one
// from the pool.
func (s *session) acquire(x *exchange) (*pool.Lease, error) {
	// A handshake has to get through: the other protocol is spoken for long.
	s.ticket.Replayable, s.ticket.Fresh = x.replayable && x.keep, x.retried || x.upgrade && !s.ticket.Kept()
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
	n, err := lease.Writev(x.reqHead, s.in.Bytes()[:x.ready])
	if err != nil {
		x.broken = true // there may be an answer all the same, an early one
		if x.accepted = n > 0; !x.accepted {
			if v := s.judge(x, lease, unanswered, err); v.next == again {
				return s.conclude(x, lease, v)
			}
		}
	} else {
		x.accepted = true
		s.sendRest(x, lease)
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

// judge stops the pump, gathers the facts, and has them judged. err is what the
// exchange cannot go on for, nil if there is nothing.
func (s *session) judge(x *exchange, lease *pool.Lease, got progress, err error) verdict {
	pumped := s.joinPump(x, lease)
	r := &x.resp
	f := facts{
		got: got, accepted: x.accepted, read: x.reqBody.Done(), sent: !x.broken, replayable: x.replayable, kept: x.keep,
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
	f.blame(pumped, isClientError(pumped))
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
	if t := s.p.cfg.ResponseHeaderTimeout; t > 0 && !x.pumping {
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
