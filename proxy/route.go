package proxy

import (
	"bytes"
	"strconv"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// target is a request target in absolute-form (RFC 9112 section 3.2.2), as
// parts of the bytes it was written in.
type target struct {
	tls       bool
	scheme    []byte // with its "://"
	authority []byte // host[:port]
	path      []byte // with the query; "" if there is none
}

// parseTarget takes a target apart. Fragment and user information, which some
// clients send though they must not (RFC 9112 section 3.2.2, RFC 9110 section
// 4.2.4), are cut off and go nowhere. The order is RFC 3986's: the fragment is
// all behind the first "#", the authority ends at the first "/" or "?", and the
// host is behind its last "@".
func parseTarget(t []byte) (target, *problem) {
	var out target
	switch {
	case len(t) >= 7 && http1.EqualFold(t[:7], "http://"):
		out.scheme, t = t[:7], t[7:]
	case len(t) >= 8 && http1.EqualFold(t[:8], "https://"):
		out.tls, out.scheme, t = true, t[:8], t[8:]
	case len(t) > 0 && (t[0] == '/' || t[0] == '*'):
		return out, &problemNotProxied
	default:
		return out, &problemTarget
	}
	if fragment := bytes.IndexByte(t, '#'); fragment >= 0 {
		t = t[:fragment]
	}
	end := 0
	for end < len(t) && t[end] != '/' && t[end] != '?' {
		end++
	}
	out.authority, out.path = t[:end], t[end:]
	if bytes.IndexByte(out.authority, '\\') >= 0 {
		return out, &problemTarget // which ends the authority for browsers, and so for those who think like them
	}
	out.authority = out.authority[bytes.LastIndexByte(out.authority, '@')+1:]
	return out, nil
}

// splitAuthority parts host[:port]. The host keeps the brackets of an IPv6
// address. Port 0 is returned if there is none.
func splitAuthority(a []byte) (host []byte, port uint16, err *problem) {
	host = a
	colon := bytes.LastIndexByte(a, ':')
	if colon < 0 || bytes.IndexByte(a[colon:], ']') >= 0 {
		return host, 0, nil
	}
	host, digits := a[:colon], a[colon+1:]
	if len(digits) == 0 {
		return host, 0, nil // RFC 3986 section 3.2.3
	}
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' || n > 65535 {
			return nil, 0, &problemPort
		}
		n = n*10 + int(c-'0')
	}
	if n == 0 || n > 65535 {
		return nil, 0, &problemPort
	}
	return host, uint16(n), nil
}

// route finds the origin of the request in x and builds the head that goes
// there. The error is a *problem or a *policy.Denied.
func (s *session) route(x *exchange) error {
	t, bad := parseTarget(x.req.Target)
	if bad != nil {
		return bad
	}
	if s.origin == nil || s.tls != t.tls || s.origin.Gone() || !bytes.Equal(s.authority, t.authority) {
		if err := s.findOrigin(t); err != nil {
			return err
		}
	}
	x.origin = s.origin
	s.buildRequest(x, t)
	return nil
}

// findOrigin looks an origin up and remembers it for the session's next
// request, which is most likely for the same.
func (s *session) findOrigin(t target) error {
	host, port, bad := splitAuthority(t.authority)
	if bad != nil {
		return bad
	}
	if port == 0 {
		port = 80
		if t.tls {
			port = 443
		}
	}
	addr, err := policy.Host(host)
	if err != nil {
		return err
	}
	var buf [256]byte
	name := buf[:0]
	if addr.IsValid() {
		name = addr.AppendTo(name)
	} else {
		name = appendLower(name, host)
	}
	s.origin = s.p.cfg.Upstreams.Origin(pool.Lookup{TLS: t.tls, Host: name, Port: port})
	s.tls, s.authority = t.tls, append(s.authority[:0], t.authority...)
	return nil
}

func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// buildRequest writes the head for the upstream: what came, less what was
// meant for this connection only (RFC 9110 section 7.6.1), in origin-form.
func (s *session) buildRequest(x *exchange, t target) {
	r := &x.req
	x.classify(s.p.cfg.RetryIdempotencyKey)
	b := append(x.reqHead[:0], r.Method...)
	b = append(b, ' ')
	switch {
	case len(t.path) == 0 && x.isOptions:
		b = append(b, '*') // RFC 9112 section 3.2.4
	case len(t.path) == 0 || t.path[0] == '?':
		b = append(b, '/')
	}
	b = append(b, t.path...)
	b = append(b, " HTTP/1.1\r\n"...)
	if !bytes.Equal(r.First(http1.Host), t.authority) {
		r.DropAll(http1.Host) // RFC 9112 section 3.2.2
		b = append(b, "Host: "...)
		b = append(b, t.authority...)
		b = append(b, "\r\n"...)
	}
	const hopByHop = 1<<http1.Connection | 1<<http1.KeepAlive | 1<<http1.ProxyConnection | 1<<http1.ProxyAuthorization |
		1<<http1.TE | 1<<http1.Upgrade | 1<<http1.Expect | 1<<http1.MaxForwards
	trailers := false
	if r.Has&hopByHop != 0 {
		trailers = dropHopByHop(x)
	}
	b = r.AppendFields(b)
	switch {
	case x.upgrade:
		b = append(b, "Connection: Upgrade\r\n"...)
	case trailers:
		b = append(b, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	if x.forwards >= 0 {
		b = append(b, "Max-Forwards: "...)
		b = http1.AppendInt(b, x.forwards)
		b = append(b, "\r\n"...)
	}
	if s.p.cfg.Via {
		b = appendVia(b, r.Minor)
	}
	x.reqHead = append(b, "\r\n"...)
}

// dropHopByHop marks the fields of a request that end here and reports
// whether the client takes trailers.
func dropHopByHop(x *exchange) (trailers bool) {
	r := &x.req
	http1.EachOption(r.First(http1.TE), func(o []byte) bool {
		trailers = trailers || http1.EqualFold(o, "trailers")
		return true
	})
	for _, n := range [...]http1.Name{http1.Connection, http1.KeepAlive, http1.ProxyConnection, http1.ProxyAuthorization, http1.TE} {
		r.DropAll(n)
	}
	if !x.upgrade {
		r.DropAll(http1.Upgrade)
	}
	if r.Minor == 0 {
		r.DropAll(http1.Expect) // RFC 9110 section 10.1.1
	}
	if x.forwards >= 0 {
		r.DropAll(http1.MaxForwards)
	}
	return trailers
}

func appendVia(b []byte, minor int) []byte {
	if minor == 0 {
		return append(b, "Via: 1.0 carpool\r\n"...)
	}
	return append(b, "Via: 1.1 carpool\r\n"...)
}

// maxForwards returns Max-Forwards where it counts, less this hop; -1 where it
// does not (RFC 9110 section 7.6.2).
func maxForwards(r *http1.Request) (int64, bool) {
	v := r.First(http1.MaxForwards)
	if v == nil {
		return -1, false
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	switch {
	case err != nil || n < 0:
		return -1, false
	case n == 0:
		return -1, true
	}
	return n - 1, false
}
