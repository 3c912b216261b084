package proxy

import "github.com/carpoolproxy/carpool/proxy/http1"

// traits are what a request's head says about how to treat it: what is known of it
// after its bytes are gone.
type traits struct {
	isHead, isOptions bool
	keepAlive         bool  // the client wants to go on after the answer
	http10            bool  // the client speaks HTTP/1.0
	upgrade           bool  // the client offers another protocol
	replayable        bool  // may be sent twice, as far as the method goes
	pin               bool  // authenticates the connection, not the request
	forwards          int64 // Max-Forwards for the next hop, -1: none
}

// read notes the traits of a request. keyed is whether an Idempotency-Key makes one
// that is not idempotent replayable.
func (x *traits) read(r *http1.Request, keyed bool) {
	x.http10 = r.Minor == 0
	x.keepAlive = !x.http10 && !r.Close || x.http10 && (r.KeepAlive || http1.EqualFold(r.First(http1.ProxyConnection), "keep-alive"))
	x.keepAlive = x.keepAlive && !r.Suspect
	x.forwards = -1
	switch string(r.Method) {
	case "HEAD":
		x.isHead = true
	case "OPTIONS":
		x.isOptions = true
		x.forwards, _ = maxForwards(r)
	case "TRACE":
		x.forwards, _ = maxForwards(r)
	}
	x.upgrade = offersUpgrade(r)
	x.replayable = !x.upgrade && repeatable(r, keyed)
	x.pin = pins(r.First(http1.Authorization))
}

// offersUpgrade reports whether an Upgrade is to be passed on. Not one with a
// long body, or one of which it is not known how long it is: there are servers
// that take what follows such a head for the other protocol, or for the next
// request (Kludex/uvicorn#2722), and the other protocol begins where the request
// ends. docker exec sends a short one. And not one to HTTP/2, which would only
// take the connection out of the pool.
func offersUpgrade(r *http1.Request) bool {
	if !r.Upgrade || r.Minor == 0 || !r.Has.Of(http1.Upgrade) {
		return false
	}
	body, h2c := r.Body(), false
	if body.Chunked() || body.Left() > maxReplay {
		return false
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; f.Name == http1.Upgrade {
			http1.EachOption(r.Value(f), func(o []byte) bool {
				h2c = h2c || http1.EqualFold(o, "h2c")
				return true
			})
		}
	}
	return !h2c
}

// pins reports whether credentials are of a scheme that authenticates the
// connection instead of the request (RFC 4559): such a connection is for this
// client only.
func pins(credentials []byte) bool {
	for _, scheme := range [...]string{"ntlm", "negotiate"} {
		if n := len(scheme); len(credentials) >= n && http1.EqualFold(credentials[:n], scheme) &&
			(len(credentials) == n || credentials[n] == ' ') {
			return true
		}
	}
	return false
}
