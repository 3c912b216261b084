package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// established is the whole of what a client gets before its tunnel.
const established = "HTTP/1.1 200 Connection established\r\n\r\n"

func connectTo(authority string) string {
	return "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n"
}

// tunnel opens one to o.
func tunnel(r *rig, o *origin) (client, up *wire) {
	r.t.Helper()
	client = r.client()
	client.send(connectTo(o.addr))
	client.want(established)
	return client, o.accept()
}

func TestTunnels(t *testing.T) {
	t.Parallel()
	t.Run("C1 exact answer, then bytes both ways", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		client.send("ping")
		up.want("ping")
		up.send("pong")
		client.want("pong")
		if s := r.proxy.Stats(); s.Tunnels != 1 || !r.proxy.Busy() {
			t.Errorf("the tunnel is not counted: %+v", s)
		}
		_ = client.Close()
		up.end()
		_ = up.Close()
		if rec := r.logged(1); rec.Method != "CONNECT" || rec.Origin != o.addr || rec.Sent != 4 || rec.Received != 4 || rec.Status != 200 {
			t.Errorf("logged as %+v", rec)
		}
	})
	t.Run("C1 bytes right behind the head", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(connectTo(o.addr) + "early")
		up := o.accept()
		up.want("early")
		client.want(established)
		client.send("late")
		up.want("late")
	})
	t.Run("C1 the upstream speaks first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(connectTo(o.addr))
		up := o.accept()
		up.send("220 hello\r\n")
		client.want(established + "220 hello\r\n")
	})
	t.Run("C2 HTTP/1.0 without Host", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send("CONNECT " + o.addr + " HTTP/1.0\r\n\r\n")
		client.want("HTTP/1.0 200 Connection established\r\n\r\n")
		up := o.accept()
		client.send("ping")
		up.want("ping")
	})
	t.Run("C9 HTTP/2 inside", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		client := r.client()
		client.send(connectTo(o.addr) + preface)
		up := o.accept()
		up.want(preface)
		client.want(established)
	})
}

func TestTunnelsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.ruled(proxy.EgressConfig{Rules: policy.Rules{ConnectPorts: []uint16{443, 8443}}}) })
	for name, c := range map[string]struct {
		authority string
		status    int
	}{
		"C2 no port":             {"example.test", 400},
		"C2 empty port":          {"example.test:", 400},
		"C2 port 0":              {"example.test:0", 400},
		"C2 port too large":      {"example.test:65536", 400},
		"C2 port of many digits": {"example.test:18446744073709551617", 400},
		"C2 port negative":       {"example.test:-1", 400},
		"C2 port with a plus":    {"example.test:+443", 400},
		"C2 port by name":        {"example.test:https", 400},
		"C2 no host":             {":443", 400},
		"C2 user information":    {"user@example.test:443", 400},
		"C2 a URL":               {"https://example.test:443/", 400},
		"C2 IPv6 without port":   {"[::1]", 400},
		"C4 another port":        {"127.0.0.1:22", 403},
		"C4 port 80":             {"127.0.0.1:80", 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := r.client()
			client.send("CONNECT " + c.authority + " HTTP/1.1\r\nHost: example.test\r\n\r\nearly")
			client.refused(c.status)
		})
	}
}

func TestC3EarlyBytesAndNoConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(connectTo(testkit.Refused(t).String()) + o.get("/smuggled"))
	client.refused(502)
	o.served(0)
	if s := r.proxy.Stats(); s.Tunnels != 0 {
		t.Errorf("%d tunnels are open", s.Tunnels)
	}
}

// vacant returns an address on which nobody listens yet.
func vacant(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestC7EndsOfTunnels(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 64<<10)
	t.Run("X9 the client ends first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		client.send("request")
		client.shut()
		up.want("request")
		up.end()
		up.send("answer") // the other direction goes on
		client.want("answer")
		go func() { _ = up.trySend(big); _ = up.Close() }()
		if client.take(len(big)) != big {
			t.Error("the answer is not what was sent")
		}
		client.end()
	})
	t.Run("X9 the upstream ends first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		up.send("greeting")
		up.shut()
		client.want("greeting")
		client.end()
		client.send("and more")
		up.want("and more")
		go func() { _ = client.trySend(big); _ = client.Close() }()
		if up.take(len(big)) != big {
			t.Error("the request is not what was sent")
		}
		up.end()
	})
	t.Run("C7 what was sent before the end arrives", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		go func() { _ = client.trySend(big); _ = client.Close() }()
		if up.take(len(big)) != big {
			t.Error("not all arrived")
		}
		up.end()
	})
	t.Run("C7 a reset ends both sides", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		up.reset()
		if _, err := client.rest(); !isReset(err) {
			t.Errorf("the client sees %v, want a reset", err)
		}
		client, up = tunnel(r, o)
		client.reset()
		if _, err := up.rest(); !isReset(err) {
			t.Errorf("the upstream sees %v, want a reset", err)
		}
		eventually(t, "no tunnel is left", func() bool { return r.proxy.Stats().Tunnels == 0 })
	})
}

// Tunnels count against the pool's budget for as long as they are open.
func TestTunnelsCountAsConnections(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.pool.MaxConns = 1; s.pool.PendingTimeout = 50 * time.Millisecond })
	o := newOrigin(t)
	client, up := tunnel(r, o)
	other := r.client()
	other.send(connectTo(o.addr))
	other.refused(503)
	other = r.client()
	other.send(o.get("/"))
	other.problem(503)
	_, _ = client.Close(), up.Close()
	eventually(t, "no tunnel is left", func() bool { return r.proxy.Stats().Tunnels == 0 })
	o.exchange(other, nil)
	r.idle(o, 1)
	client = r.client()
	client.send(connectTo(o.addr) + "ping") // what is idle makes room
	client.want(established)
	o.accept().want("ping")
}

// authority signs certificates for the tests.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	self := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.cert, a.key = self.Leaf, self.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign completes a certificate and signs it, by itself if there is no
// authority yet.
func (a *authority) sign(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) trusted(s *settings) {
	s.pool.RootCAs = x509.NewCertPool()
	s.pool.RootCAs.AddCert(a.cert)
	s.pool.Resolver = names{"secure.test": {netip.MustParseAddr("127.0.0.1")}, "other.test": {netip.MustParseAddr("127.0.0.1")}}
}

// names is a resolver.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a := n[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// port returns the port of o, with its colon.
func (o *origin) port() string { return o.addr[strings.LastIndexByte(o.addr, ':'):] }

// secure takes the next connection as a TLS server.
func (o *origin) secure(cert tls.Certificate) *wire {
	o.t.Helper()
	w := o.accept()
	raw := w.Conn
	w.Conn = tls.Server(&segments{Conn: raw}, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	return w
}

// segments is a connection that can hold writes back, to send them as one.
type segments struct {
	net.Conn
	hold bool
	held []byte
}

func (s *segments) Write(p []byte) (int, error) {
	s.held = append(s.held, p...)
	if s.hold {
		return len(p), nil
	}
	return len(p), s.release()
}

func (s *segments) release() error {
	_, err := s.Conn.Write(s.held)
	s.hold, s.held = false, nil
	return err
}

func TestC5CertificatesThatDoNotHold(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	expired := &x509.Certificate{DNSNames: []string{"secure.test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	for name, cert := range map[string]tls.Certificate{
		"C5 wrong name":  ca.sign(&x509.Certificate{DNSNames: []string{"other.test"}}),
		"C5 expired":     ca.sign(expired),
		"C5 self-signed": (&authority{t: t}).sign(&x509.Certificate{DNSNames: []string{"secure.test"}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t, ca.trusted), newOrigin(t)
			client := r.client()
			client.send("POST https://secure.test" + o.port() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecret")
			up := o.secure(cert)
			if s, _ := up.rest(); s != "" {
				t.Errorf("the upstream got %q", s)
			}
			head, _ := client.problem(502)
			if got := field(head, "Proxy-Status"); !strings.HasPrefix(got, "carpool; error=tls_certificate_error; details=") {
				t.Errorf("Proxy-Status: %s", got)
			}
		})
	}
	t.Run("C5 no TLS at all", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, ca.trusted), newOrigin(t)
		client := r.client()
		client.send("GET https://secure.test" + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		up := o.accept()
		_ = up.fill()
		if !strings.HasPrefix(string(up.in), "\x16\x03") || strings.Contains(string(up.in), "GET /") {
			t.Errorf("C6: the request went in plain text: %q", up.in)
		}
		up.send("HTTP/1.1 400 Bad Request\r\n\r\n")
		client.problem(502)
	})
}

func TestC6HTTPSTargets(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"secure.test", "other.test"}})
	r, o := start(t, ca.trusted), newOrigin(t)
	host := "secure.test" + o.port()
	client := r.client()
	more := "Content-Length: 5\r\n\r\nhello"
	var up *wire
	for i := range 3 { // over one connection
		client.send("PUT https://" + host + "/a HTTP/1.1\r\nHost: " + host + "\r\n" + more)
		if i == 0 {
			up = o.secure(cert)
		}
		up.want("PUT /a HTTP/1.1\r\nHost: " + host + "\r\n" + more)
		up.send(ok)
		client.want(ok)
	}
	if p := up.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("negotiated %q", p)
	}
	o.served(1)
	// P20: another name, or no TLS, is another connection, though the address is the same.
	other := "other.test" + o.port()
	client.send("GET https://" + other + "/ HTTP/1.1\r\nHost: " + other + "\r\n\r\n")
	up = o.secure(cert)
	up.head()
	up.send(ok)
	client.want(ok)
	client.send("GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	up = o.accept()
	up.want("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	up.send(ok)
	client.want(ok)
	o.served(3)
}

// P1 and P2 inside TLS: the second answer has arrived with the first, in a
// record of its own.
func TestP1TwoAnswersInOneSegmentOfTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"secure.test"}})
	r, o := start(t, ca.trusted), newOrigin(t)
	request := "GET https://secure.test" + o.port() + "/ HTTP/1.1\r\nHost: secure.test" + o.port() + "\r\n\r\n"
	client := r.client()
	client.send(request)
	up := o.secure(cert)
	up.head()
	raw := up.Conn.(*tls.Conn).NetConn().(*segments)
	raw.hold = true
	up.send(ok)
	up.send(answer("not asked for"))
	if err := raw.release(); err != nil {
		t.Fatal(err)
	}
	client.want(ok)
	client.send(request)
	other := o.secure(cert)
	other.head()
	other.send(ok)
	client.want(ok)
	r.closedStray(o)
}

// closedStray waits until a connection was closed for bytes nobody asked for.
func (r *rig) closedStray(o *origin) {
	r.t.Helper()
	eventually(r.t, "a connection was closed for stray bytes", func() bool {
		for _, s := range r.pool.Snapshot().Origins {
			if strings.HasSuffix(s.Origin, o.port()) && s.Closed[pool.StrayBytes] > 0 {
				return true
			}
		}
		return false
	})
}

// P15 and P9 inside TLS.
func TestTLSConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.sign(&x509.Certificate{DNSNames: []string{"secure.test"}})
	r, o := start(t, ca.trusted), newOrigin(t)
	host := "secure.test" + o.port()
	request := "GET https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	client := r.client()
	client.send(request)
	up := o.secure(cert)
	up.head()
	up.send(ok)
	client.want(ok)
	client.send(request)
	up.head()
	_ = up.Close() // close_notify and FIN
	up = o.secure(cert)
	up.head()
	up.send(ok)
	client.want(ok)
	client.send(request)
	up.head()
	up.send("HTTP/1.1 200 OK\r\n\r\npiece")
	client.want("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npiece")
	_ = up.Conn.(*tls.Conn).NetConn().(*segments).Conn.(*net.TCPConn).SetLinger(0)
	_ = up.Conn.(*tls.Conn).NetConn().Close()
	if s, err := client.rest(); !isReset(err) {
		t.Errorf("the client sees the end: %q, %v", s, err)
	}
	o.served(2)
}
