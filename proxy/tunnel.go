package proxy

import (
	"net"
	"slices"
	"strconv"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// serveConnect serves a CONNECT (RFC 9110 section 9.3.6).
func (s *session) serveConnect(x *exchange) bool {
	x.connect, x.http10 = true, x.req.Minor == 0
	if err := s.routeConnect(x); err != nil {
		return s.refuse(x, err)
	}
	s.in.Consume(x.headLen) // what is behind the head is the client's, through the tunnel
	if err := s.conn.Register(); err != nil {
		return false
	}
	s.p.decider.decide(x.authority(), s.client, func() { s.tunnel(x) })
	return false
}

// routeConnect finds the origin that a CONNECT names.
func (s *session) routeConnect(x *exchange) error {
	host, port, bad := splitAuthority(x.req.Target)
	if bad != nil {
		return bad
	}
	if port == 0 {
		return &problemAuthority
	}
	addr, err := policy.Host(host)
	if err != nil {
		return err
	}
	if ports := s.p.cfg.ConnectPorts; ports != nil && !slices.Contains(ports, port) {
		return &problemConnectPort
	}
	x.origin = s.p.originOf(false, host, addr, port)
	return nil
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
		return s.unlent(x, &problemMemory)
	}
	s.ticket.Virgin = true // the client's connection serves nothing else
	lease, err := s.acquire(x)
	if err != nil {
		return s.unlent(x, dialProblem(err))
	}
	x.status = 200
	version := "HTTP/1.1"
	if x.http10 {
		version = "HTTP/1.0"
	}
	return s.join(x, lease, append(append(x.respHead[:0], version...), " 200 Connection established\r\n\r\n"...))
}

// switchProtocols passes a 101 on and relays what follows, both ways (RFC 9110
// section 7.8).
func (s *session) switchProtocols(x *exchange, lease *pool.Lease) step {
	x.status, x.keepAlive = 101, false
	head := append(x.buildResponse(s.p.cfg.Via), "Connection: Upgrade\r\n\r\n"...)
	x.rb.Consume(x.headLen)
	x.up.forget()
	if err := s.conn.Register(); err != nil {
		return s.brokenOff(x, lease, &clientError{err}, false)
	}
	return s.join(x, lease, head)
}

// join tells the client that the connection is its own now, and makes it so. What
// both have sent already, in s.in and x.rb, comes first.
func (s *session) join(x *exchange, lease *pool.Lease, head []byte) step {
	x.respHead = head
	if _, err := s.client.Write(head); err != nil {
		return s.brokenOff(x, lease, &clientError{err}, false)
	}
	lease.SetPatient(true)
	f := new(flow)
	s.reins.beginFlow(f)
	broken := s.splice(x, lease, f)
	detail := s.reins.endFlow()
	v := s.judge(x, lease, complete, nil)
	if broken {
		lease.Abort(v.reason)
	} else {
		lease.Discard(v.reason)
	}
	s.abort = broken
	countAnswer(x.origin, x.status)
	s.logDetail(x, x.status, noError, detail)
	return v.next
}
