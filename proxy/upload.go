package proxy

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

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

// upload is the body of one request, on its way from the client to the upstream.
//
// What is there when the head is sent goes with it. The rest is sent by another
// goroutine, from start until stop or ended says that it has come to its end: the
// upstream may answer first. While it runs, the client's bytes and all fields but
// the atomic ones are its own. A failure of the client's ends the exchange; one of
// the upstream's does not, for there may be an answer.
type upload struct {
	client *client
	wire   wire // where it goes, from start on

	body  http1.Body // the framing of what is still to be read
	ready int        // bytes at the front of in that are body, as it goes upstream
	keep  bool       // they stay there after they were sent, for a retry
	sent  int64      // bytes of body that went, or are about to go, upstream

	broken  bool  // not the whole request was, or will be, sent
	running bool  // the goroutine is
	err     error // what it ended with

	done     chan error  // made when first needed, and kept; holds one
	allRead  atomic.Bool // the last of the body has been read
	stopping atomic.Bool // the goroutine is to end
}

// bytes are those of the body that are ready.
func (u *upload) bytes() []byte { return u.client.in.Bytes()[:u.ready] }

// decode goes on through the body as far as it is there: what is right moves up
// behind the bytes that are ready.
func (u *upload) decode() error {
	out, used, err := u.body.Decode(u.client.in.Bytes()[u.ready:])
	u.client.in.Cut(u.ready+out, u.ready+used)
	u.ready += out
	u.sent += int64(out)
	u.keep = u.keep && u.ready <= maxReplay // chunks do not say how many will come
	return err
}

// forget gives up the bytes that are ready: they were sent, or will never be.
func (u *upload) forget() {
	u.client.in.Consume(u.ready)
	u.ready = 0
}

// drop gives up bytes that were sent and need not be kept.
func (u *upload) drop() {
	if !u.keep {
		u.forget()
	}
}

// start sees to the rest of the body after its beginning was sent, on a goroutine
// if there is one.
func (u *upload) start(w wire) {
	if u.body.Done() {
		u.drop()
		return
	}
	if err := u.client.conn.Register(); err != nil {
		u.broken = true
		return
	}
	if u.done == nil {
		u.done = make(chan error, 1)
	}
	u.wire, u.running = w, true
	w.beginBody()
	go func() {
		err := u.run()
		if isPanic(err) {
			w.interrupt()
		}
		u.done <- err
	}()
}

// run sends the rest of the body as it comes.
func (u *upload) run() (err error) {
	defer catch(&err)
	for !u.body.Done() {
		if u.client.in.Free() == 0 {
			u.keep = false // no room to keep it
		}
		u.drop()
		sent := u.ready
		if err := u.fill(); err != nil {
			u.wire.interrupt()
			return err
		}
		if u.body.Done() {
			u.allRead.Store(true) // before the upstream can answer
		}
		if err := u.wire.sendBody(u.client.in.Bytes()[sent:u.ready]); err != nil {
			return err
		}
	}
	u.drop()
	return u.wire.endBody()
}

// fill reads and decodes the next part of the body. If stop ends it, that is no
// failure of the client's.
func (u *upload) fill() error {
	c := u.client
	if t := c.cfg.BodyIdleTimeout; t > 0 {
		if err := c.stream.SetReadDeadline(time.Now().Add(t)); err != nil {
			return &clientError{err}
		}
		if u.stopping.Load() { // by a deadline that may just have been overwritten
			return os.ErrDeadlineExceeded
		}
	}
	c.in.Grow(http1.MaxUnused) // a line that has not ended; the decoder's own limit comes first
	if err := c.stream.Fill(&c.in); err != nil {
		if u.stopping.Load() {
			return os.ErrDeadlineExceeded
		}
		return &clientError{err}
	}
	if err := u.decode(); err != nil {
		return &clientError{err}
	}
	return nil
}

// stop ends the goroutine, if it runs, and returns what went wrong on the client's
// side of it. broken then tells whether the whole request was sent.
func (u *upload) stop() error {
	if u.running && !u.ended() {
		u.stopping.Store(true)
		_ = u.client.stream.SetReadDeadline(time.Unix(1, 0))
		u.wire.stopBody()
		err := <-u.done
		u.stopping.Store(false)
		u.wire.resume()
		u.end(err)
		if errors.Is(err, os.ErrDeadlineExceeded) && !isClientError(err) {
			u.err = nil // it was stopped, it did not fail
		}
	}
	return u.err
}

// ended reports whether the goroutine has come to its end by itself.
func (u *upload) ended() bool {
	select {
	case err := <-u.done:
		u.end(err)
		return true
	default:
		return false
	}
}

// end notes how the goroutine has ended.
func (u *upload) end(err error) {
	rethrow(err)
	u.running, u.err = false, err
	_ = u.client.stream.SetReadDeadline(time.Time{})
	if err != nil {
		u.broken = true
	}
}

// whole reports whether the client has sent its whole request by now, so that
// another can follow.
func (u *upload) whole() bool {
	if u.running && !u.ended() {
		return u.allRead.Load()
	}
	return !u.broken
}
