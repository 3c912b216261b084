package proxy

import (
	"errors"
	"io"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// splice relays bytes between a client and a lease, until both have ended. The
// bytes that have come already are first.
type splice struct {
	client   *client
	lease    *pool.Lease
	in       *sock.Buffer // what the upstream has sent already
	flow     flow
	up, down int64 // bytes relayed
}

func newSplice(c *client, w wire) *splice {
	lease, in := w.raw()
	lease.SetPatient(true)
	return &splice{client: c, lease: lease, in: in}
}

// run relays. It reports whether that was ended by a failure, such as a reset, which
// has to look like one on both sides.
func (t *splice) run() (broken bool) {
	down := make(chan error, 1)
	go func() { down <- t.oneWay(t.client.stream, t.lease, t.in, &t.down) }()
	up := t.oneWay(t.lease, t.client.stream, &t.client.in, &t.up)
	return isBroken(up, <-down)
}

// isBroken reports whether one of the two directions has failed.
func isBroken(up, down error) bool {
	err := errors.Join(up, down)
	rethrow(err)
	return err != nil
}

// oneWay relays one direction. Its end is passed on; a failure ends the other
// direction too.
func (t *splice) oneWay(dst, src sock.Stream, b *sock.Buffer, count *int64) (err error) {
	*count, err = relayBytes(dst, src, b, &t.flow)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil && err != errPlainHTTP {
		t.cut()
	}
	return err
}

// cut ends both directions.
func (t *splice) cut() {
	t.flow.cut.Store(true)
	t.lease.Interrupt()
	t.client.conn.Interrupt()
}

// relayBytes copies src to dst, beginning with what is in b, until src ends.
// No buffer is held while nothing comes. f is told of what moves.
func relayBytes(dst io.Writer, src sock.Stream, b *sock.Buffer, f *flow) (n int64, err error) {
	defer f.end()
	defer catch(&err)
	for {
		if b.Len() > 0 {
			k, err := dst.Write(b.Bytes())
			f.pass()
			n += int64(k)
			b.Release()
			if err != nil {
				return n, err
			}
		}
		if err := src.Fill(b); err != nil {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}
