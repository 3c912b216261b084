package proxy

import (
	"bytes"
	"net/netip"
	"sync/atomic"

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
	named     bool   // the Host field names the authority too, and stays as it is
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
// it in their absolute-form target, and may ask for tunnels.
type Lane struct {
	fixed  *target   // of all requests, but for the path
	inside *pool.Key // they come in a tunnel to this origin, which fixed is, too: Host has to name it
	tally  *tally    // of a lane to one origin
}

// tally counts what comes in on a lane, for all listeners that serve it.
type tally struct {
	origin   pool.Key
	requests atomic.Uint64
}

// count counts a request that is well-formed.
func (l Lane) count() {
	if l.tally != nil {
		l.tally.requests.Add(1)
	}
}

// LaneTo returns the lane of which all requests go to one origin. Their targets are
// in origin-form, as for any web server; one in absolute-form has to name that
// origin (RFC 9112 section 3.2.2). Host is rewritten to it. There are no tunnels.
// Several listeners may serve one lane (see Stats.Lanes).
func LaneTo(origin pool.Key) Lane {
	return Lane{fixed: fixedTo(origin), tally: &tally{origin: origin}}
}

// fixedTo is the target, but for the path, of requests to one origin.
func fixedTo(origin pool.Key) *target {
	t := &target{tls: origin.TLS, scheme: []byte("http://")}
	port := uint16(80)
	if origin.TLS {
		t.scheme, port = []byte("https://"), 443
	}
	t.authority = []byte(origin.Authority())
	if origin.Port == port { // RFC 9110 section 4.2.3
		t.authority = t.authority[:bytes.LastIndexByte(t.authority, ':')]
	}
	return t
}

// within returns the lane of what is said inside a CONNECT in plain HTTP. Its origin
// is what the CONNECT has named, and what its requests name is that, or they are
// refused (RFC 9112 section 3.2.2). It is spoken to without TLS, whatever its port.
// There are no tunnels in the tunnel.
func within(origin pool.Key) Lane {
	return Lane{fixed: fixedTo(origin), inside: &origin}
}

// noTunnel is what is wrong with a CONNECT on this lane, nil if nothing is.
func (l Lane) noTunnel() *problem {
	switch {
	case l.fixed == nil:
		return nil
	case l.inside != nil:
		return &problemInTunnel
	}
	return &problemNoTunnel
}

// target takes the target of a request apart as the lane has it.
func (l Lane) target(r *http1.Request) (target, *problem) {
	if l.fixed == nil {
		return parseTarget(r.Target)
	}
	switch t := r.Target; {
	case string(t) == "*" && string(r.Method) == "OPTIONS":
		return l.hosted(r, *l.fixed)
	case t[0] == '/':
		out := *l.fixed
		out.path, _, _ = bytes.Cut(t, []byte("#"))
		return l.hosted(r, out)
	}
	out, bad := parseTarget(r.Target)
	switch {
	case bad != nil:
		return out, &problemOrigin
	case out.tls != l.fixed.tls || !l.names(out.authority):
		return out, l.misdirected()
	}
	out.authority = l.fixed.authority
	return out, nil
}

// hosted is the target of a request that says by Host alone where it goes.
func (l Lane) hosted(r *http1.Request, out target) (target, *problem) {
	if l.inside == nil || !r.Has.Of(http1.Host) { // HTTP/1.0 has none
		return out, nil
	}
	if out.named = l.names(r.First(http1.Host)); !out.named {
		return out, l.misdirected()
	}
	return out, nil
}

func (l Lane) misdirected() *problem {
	if l.inside != nil {
		return &problemMisdirectedInTunnel
	}
	return &problemMisdirected
}

// names reports whether an authority is that of the lane. In a tunnel, which leads
// nowhere else, it may be spelt in another way, and without its port.
func (l Lane) names(authority []byte) bool {
	if bytes.Equal(authority, l.fixed.authority) || http1.EqualFold(authority, string(l.fixed.authority)) {
		return true
	}
	if l.inside == nil {
		return false
	}
	host, port, bad := splitAuthority(authority)
	if bad != nil || port != 0 && port != l.inside.Port {
		return false
	}
	addr, err := policy.Host(host)
	switch {
	case err != nil:
		return false
	case addr.IsValid():
		return addr.String() == l.inside.Host
	}
	return http1.EqualFold(host, l.inside.Host)
}

// route finds the origins of a session's requests. The next is most likely for the
// same as the last, which it remembers.
type route struct {
	upstreams Upstreams
	egress    *Egress
	hop       *Hop // nil: there is none
	originate Originate

	origin    *pool.Origin // of the last request,
	authority []byte       // which named it like this
	tls       bool
	let       *policy.Denied // what a rule had against it, although it was let through

	name []byte // of the host looked up last
}

// forget makes r ready for another client.
func (r *route) forget() { *r = route{authority: r.authority[:0], name: r.name[:0]} }

// to returns the origin of a target. The error is a *problem, a *refusal or a
// *policy.Denied.
func (r *route) to(t target) (*pool.Origin, error) {
	if r.origin != nil && !r.origin.Gone() && r.leads(t) {
		if r.let != nil {
			r.egress.report(r.let, r.originate.Key(t.key()).String())
		}
		return r.origin, nil
	}
	host, port, bad := t.address()
	if bad != nil {
		return nil, bad
	}
	l, addr, err := r.lookup(t.tls, host, port)
	if err != nil {
		return nil, err
	}
	if !l.TLS {
		l.Port, l.TLS = r.originate.port(l.Host, port)
	}
	let, err := r.mayAsk(l, addr, 0)
	if err != nil {
		return nil, err
	}
	o, err := r.reach(l, addr, 0)
	if err != nil {
		return nil, err
	}
	r.origin, r.let = o, let
	r.tls, r.authority = t.tls, append(r.authority[:0], t.authority...)
	return o, nil
}

// moves reports whether a target is another host's or port's than the request before.
func (r *route) moves(t target) bool { return r.hop != nil && r.origin != nil && !r.leads(t) }

// leads reports whether the last request was for the host and port of a target, in the
// same letters.
func (r *route) leads(t target) bool { return r.tls == t.tls && bytes.Equal(r.authority, t.authority) }

// address returns the host and port of a target.
func (t target) address() (host []byte, port uint16, bad *problem) {
	host, port, bad = splitAuthority(t.authority)
	if port == 0 {
		port = 80
		if t.tls {
			port = 443
		}
	}
	return host, port, bad
}

// key returns what a target that was found names.
func (t target) key() pool.Key {
	host, port, _ := t.address()
	l, _, _ := lookup(nil, t.tls, host, port)
	return pool.Key{TLS: l.TLS, Host: string(l.Host), Port: l.Port}
}

// tunnelTo returns the origin that a CONNECT names, and what a rule has against it, if
// it is let through nevertheless. The error is as that of to. If requests in the tunnel
// leave in TLS, it is judged as where these go: see mayTunnel.
func (r *route) tunnelTo(authority []byte) (_ *pool.Origin, let *policy.Denied, _ error) {
	host, port, bad := splitAuthority(authority)
	switch {
	case bad != nil:
		return nil, nil, bad
	case port == 0:
		return nil, nil, &problemAuthority
	}
	l, addr, err := r.lookup(false, host, port)
	if err != nil {
		return nil, nil, err
	}
	asked := l
	asked.Port, asked.TLS = r.originate.port(l.Host, port)
	if let, err = r.mayAsk(asked, addr, port); err != nil {
		return nil, nil, err
	}
	o, err := r.reach(l, addr, port)
	return o, let, err
}

// originates reports whether requests to an origin leave in TLS that name it in
// plain HTTP.
func (r *route) originates(k pool.Key) bool { return r.originate.Key(k) != k }

// mayTunnel judges the tunnel that a CONNECT to an origin has become. That has been
// done, unless tunnelTo has judged where requests in it would go.
func (r *route) mayTunnel(k pool.Key) error {
	if !r.originates(k) {
		return nil
	}
	addr, _ := netip.ParseAddr(k.Host) // a name is no address
	_, err := r.mayAsk(pool.Lookup{Host: []byte(k.Host), Port: k.Port}, addr, k.Port)
	return err
}

// reach returns the origin that a request or a CONNECT may go to, by way of the hop if
// it goes there. connect is as in mayAsk.
func (r *route) reach(l pool.Lookup, addr netip.Addr, connect uint16) (*pool.Origin, error) {
	if r.hop.takes(l.Host, addr, l.Port) {
		if err := r.mayHandOn(l, addr, connect != 0); err != nil {
			return nil, err
		}
		if l.Way = pool.ByHop; !l.TLS && connect == 0 {
			l = r.hop.relayTo(l)
		}
	}
	return r.upstreams.Origin(l), nil
}

// lookup is the function of this name, in memory that lasts until the next call.
func (r *route) lookup(tls bool, host []byte, port uint16) (pool.Lookup, netip.Addr, error) {
	l, addr, err := lookup(r.name[:0], tls, host, port)
	r.name = l.Host
	return l, addr, err
}

// lookup returns what an origin is found by. Its host is appended to buf. The error is
// a *policy.Denied.
func lookup(buf []byte, tls bool, host []byte, port uint16) (pool.Lookup, netip.Addr, error) {
	addr, err := policy.Host(host)
	if addr.IsValid() {
		buf = addr.AppendTo(buf)
	} else {
		buf = appendLower(buf, host)
	}
	return pool.Lookup{TLS: tls, Host: buf, Port: port}, addr, err
}

// through returns the origin of a target that was found before, as it is reached
// through the hop.
func (r *route) through(t target) *pool.Origin {
	host, port, _ := t.address()
	var buf [256]byte
	l, _, _ := lookup(buf[:0], t.tls, host, port)
	l.Way = pool.ByHop
	return r.upstreams.Origin(l)
}

// mayHandOn asks Egress whether the hop may be asked for what only it will resolve.
func (r *route) mayHandOn(l pool.Lookup, addr netip.Addr, connect bool) error {
	if err := r.egress.handOn(l.Host, addr, l.Port); err != nil {
		return &refusal{*policyProblem(err), ruleOf(err), targetOf(l, connect)}
	}
	return nil
}

// mayAsk asks Egress whether an origin may be asked for, and reports what it lets
// through although a rule has something against it. connect is the port that a
// CONNECT names, 0 for a request.
func (r *route) mayAsk(l pool.Lookup, addr netip.Addr, connect uint16) (let *policy.Denied, _ error) {
	let, denied := r.egress.host(l.Host, addr, l.Port)
	if denied == nil && let == nil && connect != 0 {
		let, denied = r.egress.connectPort(connect)
	}
	switch {
	case denied != nil:
		return nil, refused(denied, targetOf(l, connect != 0))
	case let != nil:
		r.egress.report(let, targetOf(l, connect != 0))
	}
	return let, nil
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
