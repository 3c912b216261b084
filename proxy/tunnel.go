package proxy

// serveConnect serves a CONNECT (RFC 9110 section 9.3.6).
func (s *session) serveConnect(x *exchange) bool {
	x.connect, x.http10 = true, x.req.Minor == 0
	if p := s.lane.noTunnel(); p != nil {
		return s.refuse(x, p)
	}
	o, _, err := s.route.tunnelTo(x.req.Target)
	if err != nil {
		return s.refuse(x, err)
	}
	x.origin = o
	s.client.in.Consume(x.headLen) // what is behind the head is the client's, through the tunnel
	if err := s.client.conn.Register(); err != nil {
		return false
	}
	fate := s.p.decider.decide(x.authority(), s.client.stream)
	if fate == answered {
		return false
	}
	if fate == tunnelled {
		if err := s.route.mayTunnel(o.Key()); err != nil {
			return s.refuse(x, err)
		}
	}
	more := s.open(x, fate == tunnelled) == following
	return s.reins.enter(busy, 0) && more
}

// authority returns host:port of the request's origin.
func (x *exchange) authority() string { return x.origin.Key().Authority() }

// switchProtocols passes a 101 on and relays what follows, both ways (RFC 9110
// section 7.8).
func (s *session) switchProtocols(x *exchange) step {
	x.status, x.keepAlive, x.timed = 101, false, false
	head := append(x.buildResponse(), "Connection: Upgrade\r\n\r\n"...)
	x.up.forget()
	if err := s.client.conn.Register(); err != nil {
		return s.brokenOff(x, &clientError{err}, false)
	}
	return s.join(x, head)
}

// join tells the client that the connection is its own now, unless head is nil: it
// was told. Then it makes it so. What both have sent already comes first.
func (s *session) join(x *exchange, head []byte) step {
	if head != nil {
		x.respHead = head
		if _, err := s.client.stream.Write(head); err != nil {
			return s.brokenOff(x, &clientError{err}, false)
		}
	}
	t := s.newSplice(x)
	t.flow.meaning = otherwise
	return s.become(t, x)
}
