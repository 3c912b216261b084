package proxy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// laneTo serves a lane to an origin beside the proxy's own, and returns a function
// that connects to it.
func (r *rig) laneTo(o *origin) (client func() *wire) {
	r.t.Helper()
	a := netip.MustParseAddrPort(o.addr)
	return r.lane(proxy.LaneTo(pool.Key{TLS: scheme() == "https", Host: a.Addr().String(), Port: a.Port()}))
}

// A lane to one origin takes requests as a web server does, and rewrites Host.
func TestALaneToOneOriginTakesWebRequests(t *testing.T) {
	t.Parallel()
	r := start(t)
	o := newOrigin(t)
	c := r.laneTo(o)()
	var up *wire
	for _, ex := range []struct{ sent, forwarded string }{
		{"GET /a?b=c HTTP/1.1\r\nHost: localhost:9001\r\nX: y\r\n\r\n", "GET /a?b=c HTTP/1.1\r\nHost: " + o.addr + "\r\nX: y\r\n\r\n"},
		{"GET /a#b HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n", o.forwarded("GET", "/a", "")},
		{"GET //other/a HTTP/1.1\r\nHost: other\r\n\r\n", "GET //other/a HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n"},
		{o.get("/absolute"), o.forwarded("GET", "/absolute", "")},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\nHost: " + o.addr + "\r\nContent-Length: 3\r\n\r\nabc"},
	} {
		c.send(ex.sent)
		if up == nil {
			up = o.accept()
		}
		up.want(ex.forwarded)
		up.send(ok)
		c.want(ok)
	}
	// All of it is the pool's: the proxy's own lane goes on with the connection.
	o.exchange(r.client(), up)
	o.served(1)
}

// What a lane to one origin cannot do is refused, and goes nowhere.
func TestALaneToOneOriginRefusesOthers(t *testing.T) {
	t.Parallel()
	r := start(t)
	o, other := newOrigin(t), newOrigin(t)
	client := r.laneTo(o)
	for request, status := range map[string]int{
		other.get("/"): 421,
		strings.Replace(o.get("/"), scheme()+"://", "ftp://", 1): 400,
		"CONNECT " + other.addr + " HTTP/1.1\r\nHost: x\r\n\r\n": 400,
		"CONNECT " + o.addr + " HTTP/1.1\r\nHost: x\r\n\r\n":     400,
		"GET * HTTP/1.1\r\nHost: x\r\n\r\n":                      400,
		"GET a HTTP/1.1\r\nHost: x\r\n\r\n":                      400,
		"GET / HTTP/1.1\r\n\r\n":                                 400, // RFC 9112 section 3.2
	} {
		c := client()
		c.send(request)
		c.refused(status)
	}
	o.served(0)
	other.served(0)
}

// A default port is not written into Host.
func TestALaneToOneOriginNamesItAsClientsDo(t *testing.T) {
	t.Parallel()
	for want, key := range map[string]pool.Key{
		"http://orders/":          {Host: "orders", Port: 80},
		"http://orders:443/":      {Host: "orders", Port: 443},
		"https://api.example.com": {TLS: true, Host: "api.example.com", Port: 443},
		"https://[::1]:80/":       {TLS: true, Host: "::1", Port: 80},
		"http://[::1]/":           {Host: "::1", Port: 80},
	} {
		if got := proxy.AuthorityOf(proxy.LaneTo(key)); got != strings.TrimSuffix(want, "/") {
			t.Errorf("%v is called %q, want %q", key, got, want)
		}
	}
}
