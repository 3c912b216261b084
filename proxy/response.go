package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// buildResponse starts x.respHead with what came, less what was meant for the
// upstream's connection only. The caller ends it.
func (x *exchange) buildResponse(via bool) []byte {
	r := &x.resp
	if r.Status < 200 || r.Status == 204 {
		r.DropLength() // RFC 9110 section 8.6, RFC 9112 section 6.1
		r.DropAll(http1.TransferEncoding)
	}
	const hopByHop = 1<<http1.Connection | 1<<http1.KeepAlive | 1<<http1.ProxyConnection | 1<<http1.Upgrade
	if r.Has&hopByHop != 0 {
		for _, n := range [...]http1.Name{http1.Connection, http1.KeepAlive, http1.ProxyConnection} {
			r.DropAll(n)
		}
		if !passesUpgrade(r.Status) {
			r.DropAll(http1.Upgrade)
		}
	}
	b := r.AppendFields(r.AppendLine(x.respHead[:0]))
	if via {
		b = appendVia(b, r.Minor)
	}
	return b
}

// passesUpgrade reports whether Upgrade tells the client something: to what was
// switched, or to what it is to switch (RFC 9110 section 15.5.22). Elsewhere it
// offers what carpool does not.
func passesUpgrade(status int) bool { return status == 101 || status == 426 }

// appendConnection appends what the client has to know of its connection.
func (x *exchange) appendConnection(b []byte) []byte {
	upgrade := x.resp.Has.Of(http1.Upgrade) && passesUpgrade(x.resp.Status)
	switch {
	case !x.keepAlive && upgrade:
		return append(b, "Connection: close, Upgrade\r\n"...)
	case !x.keepAlive:
		return append(b, "Connection: close\r\n"...)
	case x.http10 && upgrade:
		return append(b, "Connection: keep-alive, Upgrade\r\n"...)
	case x.http10:
		return append(b, "Connection: keep-alive\r\n"...)
	case upgrade:
		return append(b, "Connection: Upgrade\r\n"...)
	}
	return b
}

// answer passes the final response on, whose head is in x.resp and at the
// front of x.rb.
func (s *session) answer(x *exchange, lease *pool.Lease) (again bool) {
	r := &x.resp
	if r.Status == 101 {
		_ = s.joinPump(x, lease)
		if !x.upgrade || x.broken { // it goes on where the request ends
			s.giveBack(lease, pool.BadAnswer)
			return s.fail(x, &problemUpgrade)
		}
		return s.switchProtocols(x, lease)
	}
	x.status = r.Status
	x.respBody = r.Body(x.isHead)
	x.suspect = x.suspect || r.Status == 204 && (r.Length > 0 || r.Chunked) // there may be a body to come
	x.hintTimeout, x.hintMax = r.KeepAliveHint()
	if x.http10 && r.Chunked {
		x.respBody.Unwrap = true
		r.DropAll(http1.TransferEncoding)
		r.DropAll(http1.Trailer)
	}
	x.pin = x.pin || r.Status == 401 && r.Has.Of(http1.WWWAuthenticate) && asksForConnection(r)
	if !s.uploaded(x) || s.p.draining.Load() || x.untilClose() ||
		r.Status == 205 && !x.respBody.Done() { // which some clients take for one without a body
		x.keepAlive = false
	}
	x.respHead = append(x.appendConnection(x.buildResponse(s.p.cfg.Via)), "\r\n"...)
	return s.relay(x, lease)
}

// untilClose reports whether the client can tell the end of the answer only
// by the end of the connection.
func (x *exchange) untilClose() bool {
	return x.respBody.UntilClose() || x.respBody.Unwrap && x.respBody.Chunked()
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

// relay writes the head in x.respHead and the body as it comes: in one write
// what came in one read.
func (s *session) relay(x *exchange, lease *pool.Lease) bool {
	skip, untilClose := x.headLen, x.untilClose()
	for head := x.respHead; ; {
		out, used, bad := x.respBody.Decode(x.rb.Bytes()[skip:])
		x.received += int64(out)
		if bad != nil && head != nil && out == 0 {
			_ = s.joinPump(x, lease)
			s.giveBack(lease, pool.BadAnswer)
			return s.fail(x, &problemProtocol)
		}
		held := lease
		if bad == nil && x.respBody.Done() {
			// Others may have the connection while the client takes its time.
			s.settle(x, lease, x.rb.Len() == skip+used)
			held = nil
		}
		if err := s.send(head, x.rb.Bytes()[skip:skip+out]); err != nil {
			return s.brokenOff(x, held, &clientError{err}, false)
		}
		x.rb.Consume(skip + used)
		head, skip = nil, 0
		switch {
		case held == nil:
			return s.finish(x)
		case bad != nil:
			return s.brokenOff(x, held, bad, untilClose)
		}
		if err := s.fillAnswer(x, lease); err != nil {
			if err == io.EOF && x.respBody.UntilClose() {
				x.resp.Close = true
				s.settle(x, lease, true)
				return s.finish(x)
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
func (s *session) settle(x *exchange, lease *pool.Lease, clean bool) {
	_ = s.joinPump(x, lease)
	whole := !x.broken
	interrupted := s.hold(nil)
	r := &x.resp
	if whole && clean && s.p.cfg.BodyIdleTimeout > 0 {
		_ = lease.SetReadDeadline(time.Time{})
	}
	switch {
	case interrupted: // as the answer came: the connection is of no use any more
		lease.Discard(pool.ClientGone)
	case !clean:
		lease.Discard(pool.StrayBytes)
	case !whole:
		lease.Discard(pool.EarlyAnswer)
	case x.idledOut(lease):
		lease.Discard(x.reasonOf408())
	case r.Suspect, x.respBody.Suspect, x.suspect:
		lease.Discard(pool.BadAnswer)
	case ends(r), x.upgrade: // who declines an upgrade may still be of two minds
		lease.Discard(pool.NotKept)
	default:
		lease.Hint(x.hintTimeout, x.hintMax)
		if x.pin {
			lease.ReleaseTo(&s.ticket, x.status == 401)
			return
		}
		lease.Release()
	}
}

// finish ends an exchange whose answer was passed on whole.
func (s *session) finish(x *exchange) bool {
	answered(x.origin, x.status)
	s.log(x, x.status, "")
	if s.p.cfg.BodyIdleTimeout > 0 {
		_ = s.client.SetWriteDeadline(time.Time{})
	}
	if x.reqBody.Done() {
		s.in.Consume(x.ready)                     // what was kept for a retry
		s.linger = !x.keepAlive && s.in.Len() > 0 // the rest of a pipeline
		return x.keepAlive
	}
	s.linger = true
	return false
}

// brokenOff ends an exchange whose answer was passed on in part: the client
// must not take it for the whole. lease is nil if it was given back.
func (s *session) brokenOff(x *exchange, lease *pool.Lease, err error, untilClose bool) bool {
	kind, reason := "http_response_incomplete", pool.Dead(err, pool.BadAnswer)
	switch {
	case isClientError(err) || s.isGone():
		kind, reason = "client_gone", pool.ClientGone
	case errors.Is(err, os.ErrDeadlineExceeded):
		kind, reason = "http_response_timeout", pool.TimedOut
	}
	if lease != nil {
		if isClientError(s.joinPump(x, lease)) {
			kind, reason = "client_gone", pool.ClientGone
		}
		s.giveBack(lease, reason)
	}
	s.abort = untilClose // an ordinary close would look like the end
	answered(x.origin, x.status)
	s.log(x, x.status, kind)
	return false
}
