package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// opening is a CONNECT on its way to become what it is meant for. It borrows a
// connection, so that the client is told if there is none. Then the first to speak
// decides, and no timer:
//
//   - The upstream: it is a tunnel.
//   - The client, in HTTP/1: the session goes on with its requests. Each of them
//     borrows a connection for itself, as those on the proxy's own port do.
//   - The client, in anything else: it is a tunnel, on a connection that has never
//     carried HTTP.
//
// The connection that was lent may have carried requests. Then its upstream waits
// for the client to speak, and bytes of its own are no part of the tunnel. So it goes
// back at once, and the client is heard (client.unheard) whenever it speaks.
type opening struct {
	s *session
	x *exchange
	t *splice // from listen on
}

// open answers a CONNECT to the origin of x, and sees to what becomes of it. closed
// says that nobody may look into the tunnel.
func (s *session) open(x *exchange, closed bool) step {
	s.p.tunnels.Add(1)
	defer s.uncount(&s.p.tunnels) // after a panic too
	o := &opening{s: s, x: x}
	if !closed && s.route.originates(x.origin.Key()) {
		return o.await()
	}
	lease, p := s.borrow(x, closed || x.origin.Opaque())
	if p != nil {
		return s.tell(x, x.unlent(p))
	}
	x.status = 200
	established := x.established()
	switch {
	case lease.Carried(), lease.Way() == pool.ToHop:
		s.reins.letGo()
		lease.Return()
		return o.await()
	case closed:
		return s.join(x, established)
	}
	if _, err := s.client.stream.Write(established); err != nil {
		return s.brokenOff(x, &clientError{err}, false)
	}
	return o.listen()
}

// established is the answer to a CONNECT (RFC 9110 section 9.3.6).
func (x *exchange) established() []byte {
	x.respHead = append(x.respHead[:0], "HTTP/1.1 200 Connection established\r\n\r\n"...)
	if x.http10 {
		x.respHead[len("HTTP/1.")] = '0'
	}
	return x.respHead
}

// await answers that there is a tunnel, and lets the client speak first.
func (o *opening) await() step {
	o.x.status = 200
	if _, err := o.s.client.stream.Write(o.x.established()); err != nil {
		return closing
	}
	o.s.client.unheard = true
	return o.enter()
}

// enter makes the session go on with the requests in the tunnel.
func (o *opening) enter() step {
	o.s.lane = within(o.x.origin.Key())
	o.s.p.ended(o.x, o.x.status, noError, "")
	return following
}

// listen waits for whoever speaks first. The connection has carried nothing.
func (o *opening) listen() step {
	s, x := o.s, o.x
	o.t = s.newSplice(x)
	s.reins.beginFlow(&o.t.flow, s.p.now())
	down := o.answer()
	is, err := o.hear()
	if s.reins.settle(&o.t.flow, is) == plainHTTP {
		_ = o.t.lease.SetReadDeadline(time.Unix(1, 0))
		rethrow(<-down)
		return o.request()
	}
	o.t.lease.CarriesTunnel()
	if s.client.in.Len() > 0 { // known from now on, for a tunnel may last
		x.origin.SetOpaque(true)
		if !s.p.draining.Load() {
			x.origin.ExpectTunnel()
		}
	}
	if err != nil && (!isEnd(err) || s.reins.isGone()) {
		o.t.up.err = err
	}
	return s.become(o.t, x)
}

// answer begins to relay what the upstream says. It returns how that has ended if the
// client turns out to speak HTTP.
func (o *opening) answer() <-chan error {
	w, r := &o.t.down, &o.s.reins
	w.src, o.t.heard = &firstWord{Stream: o.t.lease, reins: r, flow: &o.t.flow}, true
	down := make(chan error, 1)
	go func() {
		if w.err = w.relay(); r.overhear(&o.t.flow) {
			w.rest()
		} else {
			down <- w.err
		}
	}()
	return down
}

// request gives the connection back, for the client speaks HTTP.
func (o *opening) request() step {
	s, t := o.s, o.t
	o.x.origin.SetOpaque(false)
	s.reins.endFlow()
	gone, _ := s.reins.letGo()
	switch {
	case gone:
		t.lease.Discard(pool.ClientGone)
		return closing
	case t.in.Len() > 0: // the upstream has spoken too
		t.in.Release()
		t.lease.Discard(pool.StrayBytes)
	case t.lease.SetDeadline(time.Time{}) != nil:
		t.lease.Discard(pool.UpstreamClosed)
	default:
		t.lease.Return()
	}
	return o.enter()
}

// hear listens to the client. A panic is an error like any other, so that the
// goroutine of the other direction ends before the session does.
func (o *opening) hear() (is speech, err error) {
	defer catch(&err)
	return o.s.client.listen()
}

// isEnd reports whether an error of listen means that the tunnel goes on: the
// client has ended its side, or nobody waits any longer for what it has to say.
func isEnd(err error) bool { return err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) }

// firstWord is an upstream in an opening: that it speaks, or ends, decides.
type firstWord struct {
	sock.Stream
	reins  *reins
	flow   *flow
	spoken bool
}

// errPlainHTTP is why the tunnel does not read from the upstream any more.
var errPlainHTTP = errors.New("proxy: what the client speaks is plain HTTP")

// Fill implements sock.Stream.
func (f *firstWord) Fill(b *sock.Buffer) error {
	err := f.Stream.Fill(b)
	if !f.spoken {
		if f.spoken = true; !f.reins.overhear(f.flow) {
			return errPlainHTTP
		}
	}
	return err
}

// late makes a tunnel of what the client says so late that the connection for it was
// given back. It was told that there is one, so if there is none now it is cut off.
// err is how listening to it has ended.
func (o *opening) late(err error) step {
	s, x := o.s, o.x
	x.connect = true
	k := s.lane.inside
	x.origin = s.p.cfg.Upstreams.Origin(k.Lookup()) // it was found before
	if err != nil && !isEnd(err) || !s.reins.resume() {
		return closing
	}
	if err := s.route.mayTunnel(*k); err != nil {
		s.p.refused.Add(1)
		return o.giveUp(asProblem(err))
	}
	s.p.tunnels.Add(1)
	defer s.uncount(&s.p.tunnels)
	x.origin.SetOpaque(true)
	x.status = 200
	if _, p := s.borrow(x, true); p != nil {
		return o.giveUp(p)
	}
	return s.join(x, nil)
}

// giveUp cuts off a client that was told that there is a tunnel.
func (o *opening) giveUp(p *problem) step {
	o.s.client.abort = true
	o.s.p.errors[p.kind].Add(1)
	o.s.p.ended(o.x, p.status, p.kind, p.text)
	return closing
}
