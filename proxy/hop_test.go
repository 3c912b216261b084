package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// The next hop is played by hand, as upstreams are. What it is asked for is far away:
// no test resolves it or connects to it.

// hop is what the settings of a rig say of its next hop.
type hop struct {
	*proxy.Hop
	mu    sync.Mutex
	asked []pool.Key
}

// byHop gives a rig a next hop, which is called by the name hop.test, in TLS or not.
func byHop(o *origin, h *hop, secure bool, direct ...string) func(*settings) {
	return func(s *settings) {
		var patterns []policy.HostPattern
		for _, d := range direct {
			p, ok := policy.ParseHostPattern(d)
			if !ok {
				o.t.Fatal(d)
			}
			patterns = append(patterns, p)
		}
		at := pool.Key{TLS: secure, Host: "hop.test", Port: netip.MustParseAddrPort(o.addr).Port()}
		h.Hop = proxy.NewHop(at, policy.NewDirect(patterns, nil), func(k pool.Key) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.asked = append(h.asked, k)
		})
		s.proxy.Hop = h.Hop
		s.pool.Hop = h.Pool(64 << 10)
		s.pool.Resolver = names{"hop.test": {netip.MustParseAddr("127.0.0.1")}}
	}
}

// throughHop starts a rig with a next hop that is played on o.
func throughHop(t testing.TB, change ...func(*settings)) (*rig, *origin, *hop) {
	t.Helper()
	o, h := newOrigin(t), new(hop)
	return start(t, append([]func(*settings){byHop(o, h, false)}, change...)...), o, h
}

const (
	basic   = "Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=\r\n" // user:pass:word
	relayed = "GET http://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n"
)

// connected has the hop take a CONNECT.
func (w *wire) connected(authority, more string) {
	w.t.Helper()
	w.want("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n" + more + "\r\n")
	w.send("HTTP/1.1 200 OK\r\n\r\n")
}

func TestC30PlainHTTPIsRelayedOnSharedConnections(t *testing.T) {
	t.Parallel()
	r, o, h := throughHop(t)
	h.SetCredentials("user:pass:word")
	var up *wire
	client, other := r.client(), r.client()
	for i, c := range []struct {
		client             *wire
		sent, want, origin string
	}{
		{client, "GET http://far.test/a?b=c HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic s3cret\r\nX: y\r\n\r\n", "GET http://far.test/a?b=c HTTP/1.1\r\nHost: far.test\r\nX: y\r\n" + basic + "\r\n", "http://far.test:80"},
		{other, "GET HTTP://u:p@Near.Test:8080?q#f HTTP/1.1\r\nHost: x\r\nConnection: X\r\nX: y\r\n\r\n", "GET http://Near.Test:8080/?q HTTP/1.1\r\nHost: Near.Test:8080\r\n" + basic + "\r\n", "http://near.test:8080"},
		{client, "OPTIONS http://far.test HTTP/1.1\r\nHost: far.test\r\n\r\n", "OPTIONS http://far.test HTTP/1.1\r\nHost: far.test\r\n" + basic + "\r\n", "http://far.test:80"},
		{other, "POST http://192.0.2.1/p HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 2\r\n\r\nhi", "POST http://192.0.2.1/p HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 2\r\n" + basic + "\r\nhi", "http://192.0.2.1:80"},
		{client, "GET http://[2001:db8::1]:81/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://[2001:db8::1]:81/ HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n" + basic + "\r\n", "http://[2001:db8::1]:81"},
	} {
		c.client.send(c.sent)
		if up == nil {
			up = o.accept()
		}
		up.want(c.want)
		up.send(ok)
		c.client.want(ok)
		if rec := r.logged(i + 1); rec.Origin != c.origin || strings.ContainsAny(rec.Path, "?:") || rec.Error != "" {
			t.Errorf("logged as %+v", rec)
		}
	}
	o.served(1)
	if s := r.pool.Snapshot().Origins[0]; s.Origin != "next hop http://hop.test"+o.port() || s.Opened != 1 || s.Reused != 4 || s.Tally[2] != 5 {
		t.Errorf("the next hop's figures: %+v", s)
	}
	if len(h.asked) != 4 || h.asked[1] != (pool.Key{Host: "near.test", Port: 8080}) {
		t.Errorf("told to be asked for: %v", h.asked)
	}
}

// C30: whoever answers a TRACE shows the request as it came (RFC 9110 section 9.3.8).
func TestC30NoCredentialsInATRACE(t *testing.T) {
	t.Parallel()
	r, o, h := throughHop(t)
	h.SetCredentials("user:pass:word")
	client := r.client()
	client.send("TRACE http://far.test/ HTTP/1.1\r\nHost: far.test\r\nMax-Forwards: 1\r\n\r\n")
	up := o.accept()
	up.want("TRACE http://far.test/ HTTP/1.1\r\nHost: far.test\r\nMax-Forwards: 0\r\n\r\n")
	up.send(ok)
	client.want(ok)
}

func TestC30AnOldHopClosesAfterEachAnswer(t *testing.T) {
	t.Parallel()
	r, o, _ := throughHop(t)
	client := r.client()
	for range 3 {
		client.send(relayed)
		up := o.accept()
		up.want(relayed)
		up.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
		client.want(ok)
		_ = up.Close()
	}
	o.served(3)
}

// C30: what far upstreams answer says nothing of the hop.
func TestC30AnswersOfUpstreamsAreNotTheHops(t *testing.T) {
	t.Parallel()
	r, o, _ := throughHop(t)
	client := r.client()
	var up *wire
	for range 12 {
		client.send(relayed)
		if up == nil {
			up = o.accept()
		}
		up.want(relayed)
		up.send("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
		client.want("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
	}
	for _, s := range r.pool.Snapshot().Origins {
		for _, a := range s.Addrs {
			if a.Benched != "" {
				t.Errorf("the next hop is left alone: %+v", a)
			}
		}
	}
	if n := r.proxy.Stats().HopErrors; len(n) != 0 {
		t.Errorf("counted against the hop: %v", n)
	}
}

func TestC31TunnelsGoThroughTheHop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ answer, early string }{
		"C31 plain 200":                {"HTTP/1.1 200 Connection established\r\n\r\n", ""},
		"C31 HTTP/1.0":                 {"HTTP/1.0 200 OK\r\n\r\n", ""},
		"C31 another 2xx":              {"HTTP/1.1 299 Yes\r\n\r\n", ""},
		"C35 1xx before":               {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		"C35 a length that means none": {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", ""},
		"C35 a long head":              {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60<<10) + "\r\n\r\n", ""},
		"C31 bytes behind the 200":     {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "220 mail.test\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o, h := throughHop(t)
			h.SetCredentials("user:pass:word")
			client := r.client()
			client.send("CONNECT Far.Test:25 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic s3cret\r\nX: y\r\n\r\n")
			up := o.accept()
			up.want("CONNECT far.test:25 HTTP/1.1\r\nHost: far.test:25\r\n" + basic + "\r\n")
			up.send(c.answer + c.early)
			client.want(established + c.early)
			client.send("\x16\x03ping")
			up.want("\x16\x03ping")
			up.send("pong")
			client.want("pong")
			client.shut()
			up.end()
			up.send("rest")
			_ = up.Close()
			client.want("rest")
			client.end()
			if rec := r.logged(1); rec.Origin != "far.test:25" || rec.Status != 200 {
				t.Errorf("logged as %+v", rec)
			}
		})
	}
}

// secured takes what is said on w from now on as a TLS server.
func (w *wire) secured(cert tls.Certificate) *wire {
	if len(w.in) > 0 {
		w.t.Fatalf("%q is left over", w.in)
	}
	return &wire{t: w.t, name: w.name, Conn: tls.Server(w.Conn, &tls.Config{Certificates: []tls.Certificate{cert}})}
}

func (a *authority) trust(s *settings) {
	s.pool.RootCAs = x509.NewCertPool()
	s.pool.RootCAs.AddCert(a.cert)
}

func TestC31HTTPSGoesThroughTheHop(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	far, near := ca.sign(&x509.Certificate{DNSNames: []string{"far.test"}}), ca.sign(&x509.Certificate{DNSNames: []string{"hop.test"}})
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("C31 TLS to the hop is %v", secure), func(t *testing.T) {
			t.Parallel()
			o, h := newOrigin(t), new(hop)
			r := start(t, byHop(o, h, secure), ca.trust)
			accept := func() *wire {
				if up := o.accept(); secure {
					return up.secured(near)
				} else {
					return up
				}
			}
			client := r.client()
			client.send("GET https://far.test/a HTTP/1.1\r\nHost: far.test\r\n\r\n")
			hopEnd := accept()
			hopEnd.connected("far.test:443", "")
			up := hopEnd.secured(far)
			for i := range 3 { // over one connection
				if i > 0 {
					client.send("GET https://far.test/a HTTP/1.1\r\nHost: far.test\r\n\r\n")
				}
				up.want("GET /a HTTP/1.1\r\nHost: far.test\r\n\r\n")
				up.send(ok)
				client.want(ok)
			}
			o.served(1)
			client.send(relayed) // on a connection of its own
			up = accept()
			up.want(relayed)
			up.send(ok)
			client.want(ok)
			client = r.client() // what the client encrypts itself
			client.send(connectTo("far.test:443"))
			up = accept()
			up.connected("far.test:443", "")
			client.want(established)
			client.send("\x16\x03hello")
			up.want("\x16\x03hello")
			up.send("world")
			client.want("world")
			o.served(3)
		})
	}
}

// C31: a connection of two layers of TLS is looked at as others are.
func TestC31TLSInTLSIsNotTrustedBlindly(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	far, near := ca.sign(&x509.Certificate{DNSNames: []string{"far.test"}}), ca.sign(&x509.Certificate{DNSNames: []string{"hop.test"}})
	o, h := newOrigin(t), new(hop)
	r := start(t, byHop(o, h, true), ca.trust)
	client := r.client()
	for range 2 {
		client.send("GET https://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n")
		hopEnd := o.accept().secured(near)
		hopEnd.connected("far.test:443", "")
		up := hopEnd.secured(far)
		up.head()
		up.send(ok)
		client.want(ok)
		up.send("HTTP/1.1 200 OK\r\n\r\nnot asked for")
		eventually(t, "the connection is closed for stray bytes", func() bool {
			for _, s := range r.pool.Snapshot().Origins {
				if s.Closed[pool.StrayBytes] > 0 {
					return true
				}
			}
			return false
		})
	}
}

func TestC32WhatIsExemptGoesDirectly(t *testing.T) {
	t.Parallel()
	o, next, h := newOrigin(t), newOrigin(t), new(hop)
	r := start(t, byHop(next, h, false, ".svc", "corp.test"), func(s *settings) {
		here := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		s.pool.Resolver = names{"hop.test": here, "orders.shop.svc": here, "corp.test": here, "a.corp.test": here, "orders": here}
	})
	client := r.client()
	for _, host := range []string{"orders.shop.svc", "corp.test", "a.corp.test", "orders", "127.0.0.1", "localhost"} {
		client.send("GET http://" + host + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		up := o.accept()
		up.want("GET / HTTP/1.1\r\nHost: " + host + o.port() + "\r\n\r\n")
		up.send(ok)
		client.want(ok)
		tunnel := r.client()
		tunnel.send(connectTo(host+o.port()) + "\x16\x03ping")
		tunnel.want(established)
		o.accept().want("\x16\x03ping")
	}
	next.served(0)
}

// C33: an unusable next hop is an answer with a reason, and never a way round it.
func TestC33AHopThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	wrong := ca.sign(&x509.Certificate{DNSNames: []string{"other.test"}})
	for name, c := range map[string]struct {
		play   func(*wire) // nil: nobody is there
		change func(*settings)
		secure bool
		status int
		kind   string
		text   string
	}{
		"C33 refused":    {nil, func(*settings) {}, false, 502, "connection_refused", "the next hop refused the connection"},
		"C33 no address": {nil, func(s *settings) { s.pool.Resolver = names{} }, false, 502, "dns_error", "the host name of the next hop does not exist"},
		"C33 no name server": {nil, func(s *settings) {
			s.pool.Resolver, s.pool.DNSTimeout = stuck{make(chan struct{}, 9)}, 100*time.Millisecond
		}, false, 504, "dns_timeout", "next hop"},
		"C33 forbidden": {nil, func(s *settings) {
			s.pool.Resolver = names{"hop.test": {netip.MustParseAddr("169.254.1.1")}}
		}, false, 502, "destination_ip_prohibited", "the next hop: 169.254.1.1 is a link-local address"},
		"C33 another's certificate": {func(w *wire) { _ = w.secured(wrong).fill() }, ca.trust, true, 502, "tls_certificate_error", "the next hop's certificate"},
		"C33 no TLS":                {func(w *wire) { _ = w.fill(); w.send("HTTP/1.1 400 Bad Request\r\n\r\n") }, ca.trust, true, 502, "tls_protocol_error", "the TLS handshake with the next hop failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, h := newOrigin(t), new(hop)
			if c.play == nil {
				o = &origin{t: t, addr: testkit.Refused(t).String()}
			} else {
				o.handle(c.play)
			}
			r := start(t, byHop(o, h, c.secure), c.change)
			h.SetCredentials("user:s3cret")
			for i, request := range []string{relayed, "GET https://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n", connectTo("far.test:443"), connectTo("far.test:80")} {
				client := r.client()
				client.send(request)
				client.hopProblem(o, c.status, c.kind, 0, c.text)
				if rec := r.logged(i + 1); rec.Error != c.kind || !strings.Contains(rec.Detail, "next hop") || strings.Contains(fmt.Sprint(rec), "s3cret") {
					t.Errorf("logged as %+v", rec)
				}
			}
			if n := r.proxy.Stats().HopErrors; n[c.kind] != 4 || len(n) != 1 {
				t.Errorf("counted: %v", n)
			}
		})
	}
}

// hopProblem reads an answer about the next hop.
func (w *wire) hopProblem(o *origin, status int, kind string, received int, text string) {
	w.t.Helper()
	want := "carpool; error=" + kind + `; next-hop="hop.test` + o.port() + `"`
	if received != 0 {
		want += fmt.Sprintf("; received-status=%d", received)
	}
	head, body := w.problem(status)
	if got := field(head, "Proxy-Status"); got != want {
		w.t.Errorf("Proxy-Status: %s, want %s", got, want)
	}
	if !strings.Contains(body, text) || strings.Contains(head+body, "s3cret") || field(head, "Proxy-Authenticate") != "" {
		w.t.Errorf("answered %q %q, want %q", head, body, text)
	}
}

// C35, C33: what the hop says to CONNECT, other than yes.
func TestC35WhatTheHopAnswersToCONNECT(t *testing.T) {
	t.Parallel()
	const slow = 200 * time.Millisecond
	for name, c := range map[string]struct {
		answer   string // "" is none at all
		ends     bool
		status   int
		kind     string
		received int
		text     string
	}{
		"C34 407":                    {"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 6\r\n\r\ns3cret", false, 502, "proxy_configuration_error", 407, "CARPOOL_NEXT_PROXY_AUTH_FILE"},
		"C34 401":                    {"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 6\r\n\r\ns3cret", false, 502, "proxy_configuration_error", 401, "CARPOOL_NEXT_PROXY_AUTH_FILE"},
		"C35 502":                    {"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\ns3cret", true, 502, "destination_unavailable", 502, "the next hop could not connect to the upstream: it answered CONNECT with 502"},
		"C35 503":                    {"HTTP/1.0 503 Bad\r\n\r\ns3cret", true, 502, "destination_unavailable", 503, "it answered CONNECT with 503"},
		"C35 504":                    {"HTTP/1.1 504 Slow\r\n\r\n", true, 504, "destination_unavailable", 504, "in time"},
		"C35 403":                    {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", false, 403, "http_request_denied", 403, "does not let"},
		"C35 405":                    {"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", false, 502, "destination_unavailable", 405, "is it a proxy"},
		"C35 302":                    {"HTTP/1.1 302 There\r\nLocation: /login\r\n\r\n", false, 502, "destination_unavailable", 302, "302"},
		"C35 101":                    {"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n", false, 502, "destination_unavailable", 101, "101"},
		"C35 a head that is too big": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10), false, 502, "http_protocol_error", 0, "not valid HTTP"},
		"C35 1xx without end":        {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 4<<10), false, 502, "http_protocol_error", 0, "not valid HTTP"},
		"C35 garbage":                {"220 smtp.test\r\n", false, 502, "http_protocol_error", 0, "is CARPOOL_NEXT_PROXY a proxy"},
		"C35 half an answer":         {"HTTP/1.1 200 O", true, 502, "connection_terminated", 0, "closed the connection without an answer to CONNECT"},
		"C33 dies":                   {"", true, 502, "connection_terminated", 0, "closed the connection without an answer to CONNECT"},
		"C33 says nothing":           {"", false, 504, "connection_timeout", 0, "did not answer CONNECT in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o, h := throughHop(t, func(s *settings) {
				if c.answer == "" && !c.ends {
					s.pool.DialTimeout = slow
				}
			})
			o.handle(func(w *wire) {
				if !strings.HasPrefix(w.head(), "CONNECT far.test:443 HTTP/1.1\r\n") {
					t.Error("no CONNECT came")
				}
				_ = w.trySend(c.answer)
				if !c.ends {
					_, _ = w.rest()
				}
			})
			h.SetCredentials("user:s3cret")
			client := r.client()
			client.send("GET https://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n")
			client.hopProblem(o, c.status, c.kind, c.received, c.text)
			client = r.client()
			client.send(connectTo("far.test:443"))
			client.hopProblem(o, c.status, c.kind, c.received, c.text)
			if n := r.proxy.Stats().HopErrors; n[c.kind] != 2 {
				t.Errorf("counted: %v", n)
			}
		})
	}
	t.Run("C35 bytes behind the 200, where TLS is to begin", func(t *testing.T) {
		t.Parallel()
		r, o, _ := throughHop(t)
		client := r.client()
		client.send("GET https://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n")
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		client.hopProblem(o, 502, "http_protocol_error", 200, "behind its answer to CONNECT")
	})
}

// C35: what is behind the hop is told apart from it.
func TestC35FaultsBehindTheHop(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	wrong := ca.sign(&x509.Certificate{DNSNames: []string{"other.test"}})
	r, o, _ := throughHop(t, ca.trust)
	client := r.client()
	client.send("GET https://far.test/ HTTP/1.1\r\nHost: far.test\r\n\r\n")
	up := o.accept()
	up.connected("far.test:443", "")
	_ = up.secured(wrong).fill()
	client.hopProblem(o, 502, `tls_certificate_error; details="wrong_name"`, 0, "the upstream's certificate")
	if n := r.proxy.Stats().HopErrors; len(n) != 0 {
		t.Errorf("counted against the hop: %v", n)
	}
}

func TestC34ARelayed407IsNotForTheClient(t *testing.T) {
	t.Parallel()
	r, o, h := throughHop(t)
	h.SetCredentials("user:s3cret")
	client := r.client()
	for range 2 {
		client.send("POST http://far.test/ HTTP/1.1\r\nHost: far.test\r\nContent-Length: 2\r\n\r\nhi")
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 6\r\n\r\ns3cret")
		client.hopProblem(o, 502, "proxy_configuration_error", 407, "CARPOOL_NEXT_PROXY_AUTH_FILE")
	}
	if n := r.proxy.Stats().HopErrors["proxy_configuration_error"]; n != 2 {
		t.Errorf("%d are counted", n)
	}
	// C37: the next request has what was set meanwhile.
	h.SetCredentials("user:pass:word")
	client.send(relayed)
	up := o.accept()
	up.want(strings.Replace(relayed, "\r\n\r\n", "\r\n"+basic+"\r\n", 1))
	up.send(ok)
	client.want(ok)
	h.SetCredentials("")
	client.send(relayed)
	up.want(relayed)
	up.send(ok)
	client.want(ok)
}

// C33: a hop that dies under a relayed request is judged as an upstream is.
func TestC33AHopThatDiesUnderARequest(t *testing.T) {
	t.Parallel()
	r, o, _ := throughHop(t)
	client := r.client()
	client.send(relayed)
	up := o.accept()
	up.head()
	up.send(ok)
	client.want(ok)
	client.send(relayed) // a kept one, and the request is repeated
	up.head()
	up.reset()
	up = o.accept()
	up.head()
	up.send(ok)
	client.want(ok)
	client.send("POST http://far.test/ HTTP/1.1\r\nHost: far.test\r\nContent-Length: 2\r\n\r\nhi")
	up.head()
	up.reset()
	client.hopProblem(o, 502, "connection_terminated", 0, "the next hop closed a kept connection")
	client.send(relayed)
	up = o.accept()
	up.head()
	up.send("nonsense\r\n\r\n")
	client.hopProblem(o, 502, "http_protocol_error", 0, "the next hop's answer is not valid HTTP/1.1")
	if n := r.proxy.Stats().HopErrors; n["connection_terminated"] != 1 || n["http_protocol_error"] != 1 {
		t.Errorf("counted: %v", n)
	}
}

// C36: what is forbidden is refused here, not handed on.
func TestC36PolicyComesBeforeTheHop(t *testing.T) {
	t.Parallel()
	o, h := newOrigin(t), new(hop)
	r := start(t, byHop(o, h, false), func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("far.test,.internal,metadata.tencentyun.com", "", "169.254.0.0/16,100.64.0.0/10,fd00::/8,64:ff9b::/96,10.0.0.0/8", "10.9.0.0/16")})
	})
	for name, c := range map[string]struct {
		host string
		kind string
	}{
		"C36 metadata":              {"169.254.169.254", "destination_ip_prohibited"},
		"C36 Alibaba":               {"100.100.100.200", "destination_ip_prohibited"},
		"C36 EC2 IPv6":              {"[fd00:ec2::254]", "destination_ip_prohibited"},
		"C36 NAT64":                 {"[64:ff9b::a9fe:a9fe]", "destination_ip_prohibited"},
		"C36 a denied range":        {"10.9.1.1", "destination_ip_prohibited"},
		"C36 Google by name":        {"metadata.google.internal", "destination_ip_prohibited"},
		"C36 Google by name, a dot": {"Metadata.Google.Internal.", "destination_ip_prohibited"},
		"C36 Tencent by name":       {"metadata.tencentyun.com", "destination_ip_prohibited"},
		"C36 Tencent, a dot":        {"Metadata.TencentYun.com.", "destination_ip_prohibited"},
		"C36 not allowed":           {"other.test", "http_request_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, request := range []string{
				"GET http://" + c.host + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
				"GET https://" + c.host + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
				connectTo(c.host + ":443"), connectTo(c.host + ":80"),
			} {
				client := r.client()
				client.send(request)
				head, _ := client.problem(403)
				if got := field(head, "Proxy-Status"); got != "carpool; error="+c.kind {
					t.Errorf("Proxy-Status: %s", got)
				}
			}
		})
	}
	o.served(0)
	client := r.client()
	client.send(relayed)
	up := o.accept()
	up.want(relayed)
	up.send(ok)
	client.want(ok)
}

// C36: what a rule would refuse is told of by its own name, each time.
func TestC36ReportsNameWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	o, h := newOrigin(t), new(hop)
	var told []string
	r := start(t, byHop(o, h, false), func(s *settings) {
		s.ruled(proxy.EgressConfig{
			Rules: rules("", "far.test", "", ""), Report: true,
			Reported: func(r proxy.Reported) { told = append(told, r.Target) },
		})
	})
	client := r.client()
	var up *wire
	for range 2 {
		client.send(relayed)
		if up == nil {
			up = o.accept()
		}
		up.want(relayed)
		up.send(ok)
		client.want(ok)
	}
	if want := "[http://far.test:80 http://far.test:80]"; fmt.Sprint(told) != want {
		t.Errorf("told of %v, want %s", told, want)
	}
}

// C38: a client that asks for a tunnel and speaks plain HTTP in it.
func TestC38PlainHTTPInsideIsRelayed(t *testing.T) {
	t.Parallel()
	t.Run("C38 on port 80 no tunnel is asked for", func(t *testing.T) {
		t.Parallel()
		r, o, _ := throughHop(t)
		up := (*wire)(nil)
		for range 2 {
			client := r.client()
			client.send(connectTo("far.test:80"))
			client.want(established)
			client.send("GET /a HTTP/1.1\r\nHost: Far.test\r\n\r\n")
			if up == nil {
				up = o.accept()
			}
			up.want("GET http://far.test/a HTTP/1.1\r\nHost: far.test\r\n\r\n")
			up.send(ok)
			client.want(ok)
		}
		o.served(1)
	})
	t.Run("C38 TLS on port 80", func(t *testing.T) {
		t.Parallel()
		r, o, _ := throughHop(t)
		client := r.client()
		client.send(connectTo("far.test:80"))
		client.want(established)
		unused := o.accept() // that it is there was found out
		client.send("\x16\x03hello")
		up := o.accept()
		up.connected("far.test:80", "")
		up.want("\x16\x03hello")
		up.send("world")
		client.want("world")
		client = r.client() // and from now on it is known
		client.send(connectTo("far.test:80") + "\x16\x03again")
		up = o.accept()
		up.connected("far.test:80", "")
		client.want(established)
		up.want("\x16\x03again")
		o.served(3)
		_ = unused
	})
	t.Run("C38 on another port", func(t *testing.T) {
		t.Parallel()
		r, o, _ := throughHop(t)
		var relay *wire
		for range 2 {
			client := r.client()
			client.send(connectTo("far.test:8080"))
			if relay == nil {
				o.accept().connected("far.test:8080", "")
			}
			client.want(established)
			client.send("GET /a HTTP/1.1\r\nHost: far.test:8080\r\n\r\n")
			if relay == nil {
				relay = o.accept()
			}
			relay.want("GET http://far.test:8080/a HTTP/1.1\r\nHost: far.test:8080\r\n\r\n")
			relay.send(ok)
			client.want(ok)
		}
		o.served(2)
	})
}

// C38: an upgrade is no HTTP any more, so it goes through the hop (RFC 6455 section 4.1).
func TestC38AnUpgradeGoesThroughTheHop(t *testing.T) {
	t.Parallel()
	r, o, h := throughHop(t)
	h.SetCredentials("user:pass:word")
	client := r.client()
	client.send("GET http://far.test:8080/ws HTTP/1.1\r\nHost: far.test:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	up := o.accept()
	up.connected("far.test:8080", basic)
	up.want("GET /ws HTTP/1.1\r\nHost: far.test:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	up.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	client.want("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
	client.send("ping")
	up.want("ping")
}

// C38: a connection that a far server knows its client by is for that server alone.
func TestC38WhatIsPinnedIsForOneHost(t *testing.T) {
	t.Parallel()
	r, o, _ := throughHop(t)
	client := r.client()
	ask := func(host string, up *wire, status string) *wire {
		request := "GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: NTLM abc\r\n\r\n"
		client.send(request)
		if up == nil {
			up = o.accept()
		}
		up.want(request)
		up.send("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n")
		client.want("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n")
		return up
	}
	up := ask("far.test", nil, "200 OK")
	ask("far.test", up, "200 OK")
	ask("near.test", nil, "200 OK")
	up.cut()
}

func TestC32RoutesOfOrigins(t *testing.T) {
	t.Parallel()
	at := pool.Key{Host: "hop.test", Port: 3128}
	h := proxy.NewHop(at, policy.Direct{}, nil)
	to := at
	to.Way = pool.ToHop
	for _, c := range []struct{ from, want pool.Key }{
		{pool.Key{Host: "far.test", Port: 80}, to},
		{pool.Key{TLS: true, Host: "far.test", Port: 443}, pool.Key{TLS: true, Host: "far.test", Port: 443, Way: pool.ByHop}},
		{pool.Key{Host: "orders", Port: 80}, pool.Key{Host: "orders", Port: 80}},
		{pool.Key{TLS: true, Host: "127.0.0.1", Port: 443}, pool.Key{TLS: true, Host: "127.0.0.1", Port: 443}},
		{at, to},
	} {
		if got := h.Route(c.from); got != c.want {
			t.Errorf("%v leads to %v, want %v", c.from, got, c.want)
		}
		if got := (*proxy.Hop)(nil).Route(c.from); got != c.from {
			t.Errorf("without a hop %v leads to %v", c.from, got)
		}
	}
}
