package proxy

import (
	"bytes"
	"net/netip"

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

// Lane is where the origin of a request comes from, which is all that the
// listeners of a proxy differ in. The zero value is that of a proxy: requests name
// it in their absolute-form target.
type Lane struct{}

// target takes a request target apart as the lane has it.
func (Lane) target(t []byte) (target, *problem) { return parseTarget(t) }

// route finds the origin of the request in x and builds the head that goes
// there. The error is a *problem or a *policy.Denied.
func (s *session) route(x *exchange) error {
	t, bad := s.lane.target(x.req.Target)
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
	s.origin = s.p.originOf(t.tls, host, addr, port)
	s.tls, s.authority = t.tls, append(s.authority[:0], t.authority...)
	return nil
}

// originOf returns the origin of a host that policy.Host has judged; addr is its
// address, if it is one.
func (p *Proxy) originOf(tls bool, host []byte, addr netip.Addr, port uint16) *pool.Origin {
	var buf [256]byte
	name := buf[:0]
	if addr.IsValid() {
		name = addr.AppendTo(name)
	} else {
		name = appendLower(name, host)
	}
	return p.cfg.Upstreams.Origin(pool.Lookup{TLS: tls, Host: name, Port: port})
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
