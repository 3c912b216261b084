package proxy

import (
	"errors"
	"io"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// switchProtocols passes a 101 on and relays what follows, both ways (RFC 9110
// section 7.8).
func (s *session) switchProtocols(x *exchange, lease *pool.Lease) bool {
	x.status = 101
	b := x.buildResponse(s.p.cfg.Via)
	x.respHead = append(b, "Connection: Upgrade\r\n\r\n"...)
	x.rb.Consume(x.headLen)
	s.in.Consume(x.ready)
	x.ready = 0
	if err := s.conn.Register(); err != nil {
		return s.brokenOff(x, lease, &clientError{err}, false)
	}
	if _, err := s.client.Write(x.respHead); err != nil {
		return s.brokenOff(x, lease, &clientError{err}, false)
	}
	lease.SetPatient(true)
	f := new(flow)
	s.beginFlow(f)
	up := make(chan error, 1)
	go func() { up <- s.oneWay(lease, s.client, &s.in, &x.sent, f, lease) }()
	down := s.oneWay(s.client, lease, &x.rb, &x.received, f, lease)
	err := errors.Join(<-up, down)
	rethrow(err)
	detail := s.endFlow()
	s.giveBack(lease, pool.Upgraded)
	answered(x.origin, 101)
	s.logDetail(x, 101, "", detail)
	s.abort = err != nil
	return false
}

// oneWay relays one direction of an upgraded connection. Its end is passed on;
// a failure ends the other direction too.
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
