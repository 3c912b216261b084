package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// originating has plain requests to secure.test on o's port leave in TLS.
func (o *origin) originating(s *settings) {
	p, _ := policy.ParseHostPattern("secure.test" + o.port())
	s.proxy.Originate = proxy.NewOriginate([]policy.HostPattern{p})
}

// way is a way by which a client reaches secure.test in plain HTTP: it returns a
// connection on which requests are sent, and how one is written.
type way func(*rig, *origin) (client *wire, request func(method, path, more string) string)

// plainWays are all there are.
var plainWays = map[string]way{
	"absolute-form": func(r *rig, o *origin) (*wire, func(method, path, more string) string) {
		return r.client(), func(method, path, more string) string {
			host := "secure.test" + o.port()
			return method + " http://" + host + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + more
		}
	},
	"inside CONNECT": func(r *rig, o *origin) (*wire, func(method, path, more string) string) {
		client := r.client()
		client.send(connectTo("secure.test" + o.port()))
		client.want(established)
		return client, func(method, path, more string) string {
			return method + " " + path + " HTTP/1.1\r\nHost: secure.test" + o.port() + "\r\n" + more
		}
	},
	"a local port": func(r *rig, o *origin) (*wire, func(method, path, more string) string) {
		port, _ := strconv.ParseUint(o.port()[1:], 10, 16)
		return r.lane(proxy.LaneTo(pool.Key{Host: "secure.test", Port: uint16(port)}))(), func(method, path, more string) string {
			return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + more
		}
	},
}

// lane serves a lane beside the proxy's own, and returns a function that connects to
// it.
func (r *rig) lane(lane proxy.Lane) (client func() *wire) {
	r.t.Helper()
	l, err := sock.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.proxy.Serve(l, lane) }()
	r.t.Cleanup(func() {
		r.stop()
		if err := <-served; !errors.Is(err, proxy.ErrClosed) {
			r.t.Errorf("Serve: %v", err)
		}
	})
	return func() *wire {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = c.Close() })
		return &wire{t: r.t, name: "client", Conn: c}
	}
}

func TestC6PlainRequestsLeaveInTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"secure.test"}})
	for name, way := range plainWays {
		t.Run("C6 "+name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			r := start(t, ca.trusted, o.originating)
			var up *wire
			for range 3 { // over one connection, whoever asks
				client, request := way(r, o)
				for range 2 {
					client.send(request("POST", "/a?b", "Content-Length: 5\r\n\r\nhello"))
					if up == nil {
						up = o.secure(cert)
					}
					up.want("POST /a?b HTTP/1.1\r\nHost: secure.test" + o.port() + "\r\nContent-Length: 5\r\n\r\nhello")
					up.send("HTTP/1.1 302 Found\r\nLocation: https://secure.test/\r\nContent-Length: 0\r\n\r\n")
					client.want("HTTP/1.1 302 Found\r\nLocation: https://secure.test/\r\nContent-Length: 0\r\n\r\n")
				}
			}
			if sni := up.Conn.(*tls.Conn).ConnectionState().ServerName; sni != "secure.test" {
				t.Errorf("server name %q", sni)
			}
			// It is the origin that https:// names.
			client := r.client()
			client.send("GET https://secure.test" + o.port() + "/ HTTP/1.1\r\nHost: secure.test" + o.port() + "\r\n\r\n")
			up.head()
			up.send(ok)
			client.want(ok)
			o.served(1)
		})
	}
}

// C5: never in clear, however TLS fails.
func TestC5WhatIsToLeaveInTLSNeverLeavesInClear(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	at := func(begin, end time.Duration) *x509.Certificate {
		return &x509.Certificate{DNSNames: []string{"secure.test"}, NotBefore: time.Now().Add(begin), NotAfter: time.Now().Add(end)}
	}
	certs := map[string]tls.Certificate{
		"wrong name":    ca.sign(&x509.Certificate{DNSNames: []string{"other.test"}}),
		"expired":       ca.sign(at(-2*time.Hour, -time.Hour)),
		"not yet valid": ca.sign(at(time.Hour, 2*time.Hour)),
		"self-signed":   (&authority{t: t}).sign(&x509.Certificate{DNSNames: []string{"secure.test"}}),
	}
	for name, way := range plainWays {
		for wrong, cert := range certs {
			t.Run("C5 "+name+" "+wrong, func(t *testing.T) {
				t.Parallel()
				o := newOrigin(t)
				r := start(t, ca.trusted, o.originating)
				client, request := way(r, o)
				client.send(request("POST", "/", "Content-Length: 6\r\n\r\nsecret"))
				up := o.secure(cert)
				if s, _ := up.rest(); s != "" {
					t.Errorf("the upstream got %q", s)
				}
				head, _ := client.problem(502)
				details := strings.NewReplacer(" ", "_", "-", "_").Replace(wrong)
				if got := field(head, "Proxy-Status"); got != `carpool; error=tls_certificate_error; details="`+details+`"` {
					t.Errorf("Proxy-Status: %s", got)
				}
				o.served(1)
			})
		}
		t.Run("C5 "+name+" no TLS at all", func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			r := start(t, ca.trusted, o.originating)
			client, request := way(r, o)
			client.send(request("GET", "/", "\r\n"))
			up := o.accept()
			_ = up.fill()
			if !strings.HasPrefix(string(up.in), "\x16\x03") || strings.Contains(string(up.in), "GET /") {
				t.Errorf("the request went in plain text: %q", up.in)
			}
			up.send("HTTP/1.1 400 Bad Request\r\n\r\n")
			client.problem(502)
			o.served(1)
		})
	}
}

// What is named by a CONNECT and then is no plain HTTP goes where the CONNECT says, as
// it is: TLS of the client's own, say.
func TestC9ATunnelToAHostThatIsReachedInTLSStaysOne(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	r := start(t, newAuthority(t).trusted, o.originating)
	for range 2 {
		client := r.client()
		client.send(connectTo("secure.test" + o.port()))
		client.want(established)
		client.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
		up := o.accept()
		up.want("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
		up.send("\x16\x03\x03")
		client.want("\x16\x03\x03")
		client.shut()
		up.end()
		up.shut()
		client.end()
	}
}

// S9: what is judged is where the request goes, and a tunnel goes elsewhere.
func TestS9RequestsThatLeaveInTLSAreJudgedByWhereTheyGo(t *testing.T) {
	t.Parallel()
	p, _ := policy.ParseHostPattern("good.test")
	bad, _ := policy.ParseHostPattern("bad.test")
	limited := func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("good.test:443,bad.test:80", "", "", "")})
		s.pool.Resolver = names{"good.test": {netip.MustParseAddr("169.254.169.254")}, "bad.test": loopback}
		s.proxy.Originate = proxy.NewOriginate([]policy.HostPattern{p, bad})
	}
	r := start(t, limited)
	r.forbids("bad.test:80", "http_request_denied", "CARPOOL_ALLOW_HOSTS")
	// The address it leads to is judged too.
	client := r.client()
	client.send("GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n")
	head, _ := client.problem(403)
	if got := field(head, "Proxy-Status"); got != "carpool; error=destination_ip_prohibited" {
		t.Errorf("Proxy-Status: %s", got)
	}
	client = r.client()
	client.send(connectTo("good.test:80"))
	client.want(established)
	client.send("GET / HTTP/1.1\r\nHost: good.test\r\n\r\n")
	client.problem(403)
	// In a tunnel something else than HTTP would go to port 80.
	client = r.client()
	client.send(connectTo("good.test:80"))
	client.want(established)
	client.send("\x16\x03\x01")
	client.cut()
	closed := start(t, limited, func(s *settings) { s.proxy.ConnectTunnelPorts = []uint16{80} })
	client = closed.client()
	client.send(connectTo("good.test:80"))
	client.problem(403)
}

func TestPort80Becomes443WherePlainRequestsLeaveInTLS(t *testing.T) {
	t.Parallel()
	var patterns []policy.HostPattern
	for _, s := range []string{"a.test", ".b.test", "c.test:8443", "d.test:80", "10.0.0.7"} {
		p, _ := policy.ParseHostPattern(s)
		patterns = append(patterns, p)
	}
	o := proxy.NewOriginate(patterns)
	for from, to := range map[string]string{
		"a.test:80": "443", "a.test.:80": "443", "a.test:8080": "", "x.a.test:80": "", "x.b.test:80": "443", "b.test:80": "",
		"c.test:8443": "8443", "c.test:80": "", "d.test:80": "443", "10.0.0.7:80": "443", "10.0.0.8:80": "",
	} {
		host, text, _ := strings.Cut(from, ":")
		port, _ := strconv.ParseUint(text, 10, 16)
		k := pool.Key{Host: host, Port: uint16(port)}
		want := k
		if n, err := strconv.ParseUint(to, 10, 16); err == nil {
			want.TLS, want.Port = true, uint16(n)
		}
		if got := o.Key(k); got != want {
			t.Errorf("%s: %v", from, got)
		}
		k.TLS = true
		if o.Key(k) != k {
			t.Errorf("https to %s is changed", from)
		}
	}
}
