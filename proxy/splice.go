package proxy

import (
	"errors"
	"io"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// splice relays bytes both ways until both sides have ended. It reports whether
// that came by a failure, such as a reset, which has to look like one on both
// sides.
func (s *session) splice(x *exchange, lease *pool.Lease, f *flow) (broken bool) {
	up := make(chan error, 1)
	go func() { up <- s.oneWay(lease, s.client, &s.in, &x.up.sent, f, lease) }()
	down := s.oneWay(s.client, lease, &x.rb, &x.received, f, lease)
	err := errors.Join(<-up, down)
	rethrow(err)
	return err != nil
}

// oneWay relays one direction. Its end is passed on; a failure ends the other
// direction too.
func (s *session) oneWay(dst, src sock.Stream, b *sock.Buffer, count *int64, f *flow, lease *pool.Lease) error {
	n, err := relayBytes(dst, src, b, f)
	*count += n
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		lease.Interrupt()
		s.conn.Interrupt()
	}
	return err
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
