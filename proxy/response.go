package proxy

import (
	"io"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// answer passes the final response on, whose head is in x.resp and at the
// front of x.rb.
func (s *session) answer(x *exchange, lease *pool.Lease) step {
	r := &x.resp
	if r.Status == 101 {
		if v := s.judge(x, lease, headed, nil); v.next != passOn {
			return s.conclude(x, lease, v)
		}
		return s.switchProtocols(x, lease)
	}
	x.status = r.Status
	x.hintTimeout, x.hintMax = r.KeepAliveHint()
	x.pin = x.pin || r.Status == 401 && r.Has.Of(http1.WWWAuthenticate) && asksForConnection(r)
	x.frame(x.up.whole() && !s.p.draining.Load())
	x.respHead = append(x.appendConnection(x.buildResponse(s.p.cfg.Via)), "\r\n"...)
	return s.relay(x, lease)
}

// relay writes the head in x.respHead and the body as it comes: in one write
// what came in one read.
func (s *session) relay(x *exchange, lease *pool.Lease) step {
	skip, untilClose := x.headLen, x.untilClose()
	for head := x.respHead; ; {
		out, used, bad := x.respBody.Decode(x.rb.Bytes()[skip:])
		x.received += int64(out)
		if bad != nil && head != nil && out == 0 {
			return s.conclude(x, lease, s.judge(x, lease, headed, bad))
		}
		held, done := lease, closing
		if bad == nil && x.respBody.Done() {
			// Others may have the connection while the client takes its time.
			held, done = nil, s.settle(x, lease, x.rb.Len() == skip+used)
		}
		if err := s.send(head, x.rb.Bytes()[skip:skip+out]); err != nil {
			return s.brokenOff(x, held, &clientError{err}, false)
		}
		x.rb.Consume(skip + used)
		head, skip = nil, 0
		switch {
		case held == nil:
			return s.finish(x, done)
		case bad != nil:
			return s.brokenOff(x, held, bad, untilClose)
		}
		if err := s.fillAnswer(x, lease); err != nil {
			if err == io.EOF && x.respBody.UntilClose() {
				x.resp.Close = true
				return s.finish(x, s.settle(x, lease, true))
			}
			return s.brokenOff(x, lease, err, untilClose)
		}
	}
}

// send writes to the client.
func (s *session) send(head, body []byte) error {
	if len(head)+len(body) == 0 {
		return nil
	}
	if t := s.p.cfg.BodyIdleTimeout; t > 0 {
		if err := s.client.SetWriteDeadline(time.Now().Add(t)); err != nil {
			return err
		}
	}
	_, err := s.client.Writev(head, body)
	return err
}

// fillAnswer reads the next part of a response body.
func (s *session) fillAnswer(x *exchange, lease *pool.Lease) error {
	if t := s.p.cfg.BodyIdleTimeout; t > 0 {
		if err := s.deadline(lease, t); err != nil {
			return err
		}
	}
	x.rb.Grow(http1.MaxUnused) // a line that has not ended; the decoder's own limit comes first
	return lease.Fill(&x.rb)
}

// settle gives the connection back after a whole response, for further use if
// nothing speaks against it. clean says that nothing came behind the response.
func (s *session) settle(x *exchange, lease *pool.Lease, clean bool) step {
	x.stray = !clean
	v := s.judge(x, lease, complete, nil)
	if v.reason != "" {
		lease.Discard(v.reason)
		return v.next
	}
	if s.p.cfg.BodyIdleTimeout > 0 {
		_ = lease.SetReadDeadline(time.Time{})
	}
	lease.Hint(x.hintTimeout, x.hintMax)
	if x.pin {
		lease.ReleaseTo(&s.ticket, x.status == 401)
	} else {
		lease.Release()
	}
	return v.next
}

// finish ends an exchange whose answer was passed on whole.
func (s *session) finish(x *exchange, next step) step {
	countAnswer(x.origin, x.status)
	s.log(x, x.status, noError)
	if s.p.cfg.BodyIdleTimeout > 0 {
		_ = s.client.SetWriteDeadline(time.Time{})
	}
	s.linger = true
	if x.up.body.Done() {
		x.up.forget()                                // what was kept for a retry
		s.linger = next == closing && s.in.Len() > 0 // the rest of a pipeline
	}
	return next
}

// brokenOff ends an exchange whose answer was passed on in part. lease is nil if
// it was given back.
func (s *session) brokenOff(x *exchange, lease *pool.Lease, err error, untilClose bool) step {
	v := s.judge(x, lease, passing, err)
	if lease != nil {
		s.reins.letGo()
		lease.Discard(v.reason)
	}
	s.abort = untilClose // an ordinary close would look like the end
	countAnswer(x.origin, x.status)
	s.log(x, x.status, v.problem.kind)
	return closing
}

// asksForConnection reports whether a 401 asks for credentials of a scheme
// that authenticates the connection.
func asksForConnection(r *http1.Response) bool {
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == http1.WWWAuthenticate && pins(r.Value(f)) {
			return true
		}
	}
	return false
}
