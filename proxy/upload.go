package proxy

import (
	"errors"
	"os"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// clientError is an error of the client's connection, told from one of the
// upstream's.
type clientError struct{ err error }

func (e *clientError) Error() string { return "client: " + e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

func isClientError(err error) bool {
	if err == nil {
		return false // and does not allocate
	}
	var e *clientError
	return errors.As(err, &e)
}

// decodeBody goes on through the request body as far as it is in s.in: what is
// right moves up behind the bytes that are ready.
func (s *session) decodeBody(x *exchange) error {
	out, used, err := x.reqBody.Decode(s.in.Bytes()[x.ready:])
	s.in.Cut(x.ready+out, x.ready+used)
	x.ready += out
	x.sent += int64(out)
	x.keep = x.keep && x.ready <= maxReplay // chunks do not say how many will come
	return err
}

// sendRest sees to the rest of a request body after its beginning was sent. If
// there is one, another goroutine sends it, for the upstream may answer before
// it is all there.
func (s *session) sendRest(x *exchange, lease *pool.Lease) {
	if x.reqBody.Done() {
		s.dropSent(x)
		return
	}
	if err := s.conn.Register(); err != nil {
		x.broken = true
		return
	}
	if s.pumpDone == nil {
		s.pumpDone = make(chan error, 1)
	}
	x.pumping = true
	s.watchLease(lease, true)
	go func() {
		err := s.pump(x, lease)
		if isPanic(err) {
			lease.Interrupt()
		}
		s.pumpDone <- err
	}()
}

// watchLease begins or ends the time in which the upstream may take the request
// as slowly as it likes: the sweeper sees to it that it lives.
func (s *session) watchLease(lease *pool.Lease, on bool) {
	lease.SetPatient(on)
	s.reins.setPatient(on)
}

// dropSent gives up body bytes that were sent and need not be kept.
func (s *session) dropSent(x *exchange) {
	if !x.keep {
		s.in.Consume(x.ready)
		x.ready = 0
	}
}

// pump sends the rest of a request body as it comes. While it runs, s.in and
// the request's half of x are its own. A failure of the client's ends the
// exchange; one of the upstream's does not, for there may be an answer.
func (s *session) pump(x *exchange, lease *pool.Lease) (err error) {
	defer catch(&err)
	for !x.reqBody.Done() {
		if s.in.Free() == 0 {
			x.keep = false // no room to keep it
		}
		s.dropSent(x)
		sent := x.ready
		if err := s.fillBody(x); err != nil {
			lease.Interrupt()
			return err
		}
		if x.reqBody.Done() {
			x.allRead.Store(true) // before the upstream can answer
		}
		if err := s.sendBody(lease, s.in.Bytes()[sent:x.ready]); err != nil {
			return err
		}
	}
	s.dropSent(x)
	if s.p.cfg.BodyIdleTimeout > 0 {
		_ = lease.SetWriteDeadline(time.Time{})
	}
	s.watchLease(lease, false)
	if t := s.p.cfg.ResponseHeaderTimeout; t > 0 {
		return s.reins.awaitHead(lease, t)
	}
	return nil
}

// fillBody reads and decodes the next part of a request body. If joinPump stops
// it, that is no failure of the client's.
func (s *session) fillBody(x *exchange) error {
	if t := s.p.cfg.BodyIdleTimeout; t > 0 {
		if err := s.client.SetReadDeadline(time.Now().Add(t)); err != nil {
			return &clientError{err}
		}
		if s.stopping.Load() { // by a deadline that may just have been overwritten
			return os.ErrDeadlineExceeded
		}
	}
	s.in.Grow(http1.MaxUnused) // a line that has not ended; the decoder's own limit comes first
	if err := s.client.Fill(&s.in); err != nil {
		if s.stopping.Load() {
			return os.ErrDeadlineExceeded
		}
		return &clientError{err}
	}
	if err := s.decodeBody(x); err != nil {
		return &clientError{err}
	}
	return nil
}

// sendBody writes a part of a request body. An upstream that takes too long over
// it gets no chance to answer either.
func (s *session) sendBody(lease *pool.Lease, part []byte) error {
	t := s.p.cfg.BodyIdleTimeout
	if t > 0 {
		if err := lease.SetWriteDeadline(time.Now().Add(t)); err != nil {
			return err
		}
		if s.stopping.Load() { // by a deadline that may just have been overwritten
			return os.ErrDeadlineExceeded
		}
	}
	_, err := lease.Write(part)
	if t > 0 && errors.Is(err, os.ErrDeadlineExceeded) && !s.stopping.Load() {
		lease.Interrupt()
	}
	return err
}

// joinPump stops the pump, if it runs, and returns what went wrong on the
// client's side of it. x.broken then tells whether the whole request was sent.
func (s *session) joinPump(x *exchange, lease *pool.Lease) error {
	if x.pumping && !s.pumpEnded(x) {
		past := time.Unix(1, 0)
		s.stopping.Store(true)
		_ = s.client.SetReadDeadline(past)
		_ = lease.SetWriteDeadline(past)
		err := <-s.pumpDone
		s.stopping.Store(false)
		_ = lease.SetWriteDeadline(time.Time{})
		s.pumped(x, err)
		if errors.Is(err, os.ErrDeadlineExceeded) && !isClientError(err) {
			x.pumpErr = nil // it was stopped, it did not fail
		}
	}
	return x.pumpErr
}

// pumpEnded reports whether the pump has come to its end by itself.
func (s *session) pumpEnded(x *exchange) bool {
	select {
	case err := <-s.pumpDone:
		s.pumped(x, err)
		return true
	default:
		return false
	}
}

// pumped notes how the pump ended.
func (s *session) pumped(x *exchange, err error) {
	rethrow(err)
	x.pumping, x.pumpErr = false, err
	_ = s.client.SetReadDeadline(time.Time{})
	if err != nil {
		x.broken = true
	}
}

// uploaded reports whether the client has sent its whole request by now, so
// that another can follow.
func (s *session) uploaded(x *exchange) bool {
	if x.pumping && !s.pumpEnded(x) {
		return x.allRead.Load()
	}
	return !x.broken
}
