package proxy

import (
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// answer passes the final response on, whose head has come.
func (s *session) answer(x *exchange) step {
	r := x.resp
	if r.Status == 101 || x.asked() {
		if v := x.judge(&s.reins, headed, nil); v.next != passOn {
			return s.conclude(x, v)
		}
		return s.switchProtocols(x)
	}
	x.status = r.Status
	x.pin = x.pin || r.Status == 401 && r.Has.Of(http1.WWWAuthenticate) && asksForConnection(r)
	x.frame(x.up.whole() && !s.p.draining.Load())
	x.respHead = append(x.appendTiming(x.appendConnection(x.buildResponse())), "\r\n"...)
	return s.relay(x)
}

// relay writes the head in x.respHead and the body as it comes: in one write
// what came in one read.
func (s *session) relay(x *exchange) step {
	for head := x.respHead; ; head = nil {
		part, last, err := x.wire.body()
		x.received += int64(len(part))
		if err != nil && head != nil && len(part) == 0 {
			return s.conclude(x, x.judge(&s.reins, headed, err))
		}
		next := closing
		if last { // others may have the connection while the client takes its time
			next = s.settle(x)
		}
		if err := s.client.send(head, part); err != nil {
			return s.brokenOff(x, &clientError{err}, false)
		}
		switch {
		case last:
			return s.finish(x, next)
		case err != nil:
			return s.brokenOff(x, err, x.framing.untilClose)
		}
	}
}

// settle gives the connection back after a whole response, for further use if
// nothing speaks against it.
func (s *session) settle(x *exchange) step {
	v := x.judge(&s.reins, complete, nil)
	var pin *pool.Ticket
	if x.pin {
		pin = &s.ticket
	}
	x.wire.settle(v.reason, pin, x.status == 401)
	return v.next
}

// finish ends an exchange whose answer was passed on whole.
func (s *session) finish(x *exchange, next step) step {
	countAnswer(x.origin, x.status)
	s.p.ended(x, x.status, noError, "")
	s.client.sent()
	s.client.linger = true
	if x.up.body.Done() {
		x.up.forget()                                              // what was kept for a retry
		s.client.linger = next == closing && s.client.in.Len() > 0 // the rest of a pipeline
	}
	return next
}

// brokenOff ends an exchange whose answer was passed on in part. abort says that an
// ordinary close would look like its end.
func (s *session) brokenOff(x *exchange, err error, abort bool) step {
	v := x.judge(&s.reins, passing, err)
	s.reins.letGo()
	x.wire.settle(v.reason, nil, false)
	s.client.abort = abort
	countAnswer(x.origin, x.status)
	s.p.ended(x, x.status, v.problem.kind, "")
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
