package proxy

import (
	"bytes"
	"strconv"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// What goes on of a head, and what ends here (RFC 9110 section 7.6.1). What goes on
// does so as the bytes that came. How a message is delimited is decided before it
// is written: of a request by its head (traits), of an answer by frame.

// buildRequest writes the head for the upstream: what came, less what was
// meant for this connection only (RFC 9110 section 7.6.1), in origin-form, or in
// absolute-form for the next hop (RFC 9112 section 3.2.2).
func (x *exchange) buildRequest(t target) {
	r := &x.req
	x.traits.read(r, x.cfg.RetryIdempotencyKey)
	x.up.body = r.Body()
	b := append(x.reqHead[:0], r.Method...)
	b = append(b, ' ')
	relayed := x.relayed()
	if relayed {
		b = append(append(b, "http://"...), t.authority...)
	}
	switch {
	case len(t.path) == 0 && x.isOptions && relayed: // RFC 9112 section 3.2.4
	case len(t.path) == 0 && x.isOptions:
		b = append(b, '*')
	case len(t.path) == 0 || t.path[0] == '?':
		b = append(b, '/')
	}
	b = append(b, t.path...)
	b = append(b, " HTTP/1.1\r\n"...)
	if (!t.named || relayed) && !bytes.Equal(r.First(http1.Host), t.authority) {
		r.Drop(1 << http1.Host) // RFC 9112 section 3.2.2
		b = append(b, "Host: "...)
		b = append(b, t.authority...)
		b = append(b, "\r\n"...)
	}
	trailers := takesTrailers(r)
	r.Drop(x.endsHere())
	b = r.AppendFields(b)
	if relayed && string(r.Method) != "TRACE" { // whose answer may show it (RFC 9110 section 9.3.8)
		b = append(b, x.cfg.Hop.authorization()...)
	}
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
	if x.cfg.Via {
		b = appendVia(b, r.Minor)
	}
	x.reqHead = append(b, "\r\n"...)
}

// takesTrailers reports whether the client takes trailers (RFC 9110 section
// 10.1.4).
func takesTrailers(r *http1.Request) (does bool) {
	if r.Has.Of(http1.TE) {
		http1.EachOption(r.First(http1.TE), func(o []byte) bool {
			does = does || http1.EqualFold(o, "trailers")
			return true
		})
	}
	return does
}

// endsHere are the fields of the request that are for this hop only, or that are
// written anew.
func (x *exchange) endsHere() http1.Set {
	drop := http1.HopByHop | 1<<http1.ProxyAuthorization
	if x.upgrade {
		drop &^= 1 << http1.Upgrade
	}
	if x.http10 {
		drop |= 1 << http1.Expect // RFC 9110 section 10.1.1
	}
	if x.forwards >= 0 {
		drop |= 1 << http1.MaxForwards
	}
	return drop
}

// frame decides how the final answer is delimited for the client, and whether
// another may follow; more says that nothing else speaks against that.
func (x *exchange) frame(more bool) {
	x.framing = x.wire.frame(x.isHead, x.http10)
	reset := x.status == 205 && !x.framing.empty // which some clients take for one without a body
	x.keepAlive = x.keepAlive && more && !x.framing.untilClose && !reset
}

// buildResponse starts x.respHead with what came, less what was meant for the
// upstream's connection only. The caller ends it.
func (x *exchange) buildResponse() []byte {
	r := x.resp
	drop := http1.HopByHop &^ (1 << http1.TE)
	if passesUpgrade(r.Status) {
		drop &^= 1 << http1.Upgrade
	}
	if r.Status < 200 || r.Status == 204 {
		r.DropLength() // RFC 9110 section 8.6, RFC 9112 section 6.1
		drop |= 1 << http1.TransferEncoding
	}
	if x.framing.unwrapped {
		drop |= 1<<http1.TransferEncoding | 1<<http1.Trailer
	}
	r.Drop(drop)
	b := r.AppendFields(r.AppendLine(x.respHead[:0]))
	if x.cfg.Via {
		b = appendVia(b, r.Minor)
	}
	return b
}

// passesUpgrade reports whether Upgrade tells the client something: to what was
// switched, or to what it is to switch (RFC 9110 section 15.5.22). Elsewhere it
// offers what carpool does not.
func passesUpgrade(status int) bool { return status == 101 || status == 426 }

// appendConnection appends what the client has to know of its connection.
func (x *exchange) appendConnection(b []byte) []byte {
	upgrade := x.resp.Has.Of(http1.Upgrade) && passesUpgrade(x.resp.Status)
	switch {
	case !x.keepAlive && upgrade:
		return append(b, "Connection: close, Upgrade\r\n"...)
	case !x.keepAlive:
		return append(b, "Connection: close\r\n"...)
	case x.http10 && upgrade:
		return append(b, "Connection: keep-alive, Upgrade\r\n"...)
	case x.http10:
		return append(b, "Connection: keep-alive\r\n"...)
	case upgrade:
		return append(b, "Connection: Upgrade\r\n"...)
	}
	return b
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
