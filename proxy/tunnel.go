package proxy

import (
	"net"
	"strconv"
)

// serveConnect serves a CONNECT (RFC 9110 section 9.3.6).
func (s *session) serveConnect(x *exchange) bool {
	x.connect, x.http10 = true, x.req.Minor == 0
	if s.lane.fixed != nil {
		return s.refuse(x, &problemNoTunnel)
	}
	o, err := s.route.tunnelTo(x.req.Target)
	if err != nil {
		return s.refuse(x, err)
	}
	x.origin = o
	s.client.in.Consume(x.headLen) // what is behind the head is the client's, through the tunnel
	if err := s.client.conn.Register(); err != nil {
		return false
	}
	s.p.decider.decide(x.authority(), s.client.stream, func() { s.tunnel(x) })
	return false
}

// authority returns host:port of the request's origin.
func (x *exchange) authority() string {
	k := x.origin.Key()
	return net.JoinHostPort(k.Host, strconv.Itoa(int(k.Port)))
}

// tunnel borrows a connection that has carried nothing, and relays the client's
// bytes on it.
func (s *session) tunnel(x *exchange) step {
	s.p.tunnels.Add(1)
	defer s.p.tunnels.Add(-1) // after a panic too
	switch {
	case !s.reins.begin(x.origin):
		return closing
	case !s.p.admits():
		return s.tell(x, x.unlent(&problemMemory))
	}
	s.ticket.Virgin = true // the client's connection serves nothing else
	if _, err := s.acquire(x); err != nil {
		return s.tell(x, x.unlent(dialProblem(err)))
	}
	x.status = 200
	version := "HTTP/1.1"
	if x.http10 {
		version = "HTTP/1.0"
	}
	return s.join(x, append(append(x.respHead[:0], version...), " 200 Connection established\r\n\r\n"...))
}

// switchProtocols passes a 101 on and relays what follows, both ways (RFC 9110
// section 7.8).
func (s *session) switchProtocols(x *exchange) step {
	x.status, x.keepAlive = 101, false
	head := append(x.buildResponse(), "Connection: Upgrade\r\n\r\n"...)
	x.up.forget()
	if err := s.client.conn.Register(); err != nil {
		return s.brokenOff(x, &clientError{err}, false)
	}
	return s.join(x, head)
}

// join tells the client that the connection is its own now, and makes it so. What
// both have sent already comes first.
func (s *session) join(x *exchange, head []byte) step {
	x.respHead = head
	if _, err := s.client.stream.Write(head); err != nil {
		return s.brokenOff(x, &clientError{err}, false)
	}
	t := newSplice(&s.client, x.wire)
	s.reins.beginFlow(&t.flow)
	broken := t.run()
	detail := s.reins.endFlow()
	x.up.sent, x.received = x.up.sent+t.up, x.received+t.down
	v := x.judge(&s.reins, complete, nil)
	if broken {
		t.lease.Abort(v.reason)
	} else {
		t.lease.Discard(v.reason)
	}
	s.client.abort = broken
	countAnswer(x.origin, x.status)
	s.p.log(x, x.status, noError, detail)
	return v.next
}
