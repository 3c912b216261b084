package pool_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue returns a certificate for good.test and 127.0.0.1, changed first.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"},
		DNSNames: []string{"good.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(leaf)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, parentKey := a.cert, a.key
	if leaf.Subject.CommonName == "self-signed" {
		parent, parentKey = leaf, key
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return roots
}

// secure is an upstream that speaks TLS.
type secure struct {
	*upstream
	cfg *tls.Config
}

// corked is the server's end of a connection: what is written while it is
// corked leaves in one piece when it is not.
type corked struct {
	*net.TCPConn
	on   bool
	kept bytes.Buffer
}

func (c *corked) Write(p []byte) (int, error) {
	if c.on {
		return c.kept.Write(p)
	}
	return c.TCPConn.Write(p)
}

func (c *corked) uncork() error {
	c.on = false
	_, err := c.kept.WriteTo(c.TCPConn)
	return err
}

// uncorkPart sends the first n bytes of what was kept.
func (c *corked) uncorkPart(n int) error {
	_, err := c.TCPConn.Write(c.kept.Next(n))
	return err
}

// peer is the server's end of a TLS connection.
type peer struct {
	*tls.Conn
	wire *corked
}

// accept takes the next connection and shakes hands, in the background.
func (s *secure) accept() <-chan peer {
	return testkit.In(func() peer {
		wire := &corked{TCPConn: <-s.conns}
		c := tls.Server(wire, s.cfg)
		if c.HandshakeContext(context.Background()) != nil {
			return peer{nil, wire}
		}
		return peer{c, wire}
	})
}

// newSecure returns an upstream called good.test and a pool that trusts it.
func newSecure(t testing.TB, change ...func(*pool.Config)) (*secure, *pool.Pool, *pool.Origin) {
	t.Helper()
	a := newAuthority(t)
	s := &secure{newUpstream(t), &tls.Config{Certificates: []tls.Certificate{a.issue(t, nil)}}}
	p := newPool(t, append(change, func(c *pool.Config) {
		c.RootCAs, c.Resolver = a.roots(), names{"good.test": loopback(1), "good.test.": loopback(1), "bad.test": loopback(1)}
	})...)
	p.StopJanitor()
	return s, p, p.Origin(pool.Lookup{TLS: true, Host: []byte("good.test"), Port: s.addr.Port()})
}

// connect opens a connection and returns both ends.
func (s *secure) connect(t testing.TB, o *pool.Origin, k pool.Ticket) (*pool.Lease, peer) {
	t.Helper()
	accepted := s.accept()
	l := acquire(t, o, k)
	c := testkit.Await(t, "the server has shaken hands", accepted)
	if c.Conn == nil {
		t.Fatal("the server's handshake failed")
	}
	return l, c
}

func TestTLSConnectionsCarryExchangesAndAreKept(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			s, p, o := newSecure(t)
			s.cfg.MaxVersion = version
			s.cfg.NextProtos = []string{"h2", "http/1.1"}
			l, c := s.connect(t, o, pool.Ticket{})
			for i := range 5 {
				if _, err := l.Writev([]byte("pi"), []byte("ng")); err != nil {
					t.Fatal(err)
				}
				testkit.Read(t, c, "ping")
				testkit.Write(t, c, "pong")
				var b sock.Buffer
				if err := l.Fill(&b); err != nil || string(b.Bytes()) != "pong" {
					t.Fatalf("got %q, %v", b.Bytes(), err)
				}
				b.Release()
				l.Release()
				again := acquire(t, o, pool.Ticket{})
				if again != l {
					t.Fatalf("exchange %d got another connection, closed %v", i, stats(t, p).Closed)
				}
			}
			l.Release()
			if state := c.ConnectionState(); state.NegotiatedProtocol != "http/1.1" || state.ServerName != "good.test" {
				t.Errorf("protocol %q, server name %q", state.NegotiatedProtocol, state.ServerName)
			}
		})
	}
}

// A server sends its tickets with the handshake or after it, and nobody has
// read from a spare connection by then.
func TestSessionTicketsAreNotStrayBytes(t *testing.T) {
	for name, when := range map[string]tls.ClientAuthType{
		"read ahead": tls.NoClientCert, "still in the socket": tls.RequestClientCert,
	} {
		t.Run(name, func(t *testing.T) {
			s, p, o, c := newSpare(t, when)
			if when == tls.RequestClientCert {
				testkit.Eventually(t, "tickets wait on the idle connection", o.IdlePending)
			}
			for range 2 {
				l := acquire(t, o, pool.Ticket{})
				if n := stats(t, p).Opened; n != 1 {
					t.Fatalf("%d opened, closed %v", n, stats(t, p).Closed)
				}
				testkit.Write(t, c, "data")
				testkit.Read(t, l, "data")
				l.Release()
			}
			again, second := s.connect(t, o, pool.Ticket{Fresh: true})
			if !second.ConnectionState().DidResume {
				t.Error("the tickets were lost")
			}
			again.Release()
		})
	}
}

// newSpare is newSecure with an idle connection that was never used.
func newSpare(t *testing.T, auth tls.ClientAuthType) (*secure, *pool.Pool, *pool.Origin, peer) {
	t.Helper()
	g := newGate()
	defer g.release()
	s, p, o := newSecure(t, func(c *pool.Config) { c.CheckAddr = g.check })
	s.cfg.ClientAuth = auth
	w := enqueue(t, p, o, pool.Ticket{})
	testkit.Await(t, "the dial begins", g.tried)
	o.Cancel(&w.ticket)
	if err := w.fails(t); !errors.Is(err, pool.ErrCanceled) {
		t.Fatal(err)
	}
	accepted := s.accept()
	g.release()
	c := testkit.Await(t, "the server has shaken hands", accepted)
	testkit.Eventually(t, "the connection is idle", func() bool { return stats(t, p).Idle == 1 })
	return s, p, o, c
}

func TestStrayBytesInTLSAreSeen(t *testing.T) {
	for name, send := range map[string]func(t *testing.T, c peer, l *pool.Lease){
		"in a record of their own": func(t *testing.T, c peer, l *pool.Lease) {
			testkit.Write(t, c, "answer")
			testkit.Read(t, l, "answer")
			testkit.Write(t, c, "stray")
			testkit.Eventually(t, "they arrive", l.Pending)
		},
		// crypto/tls reads ahead, so the socket knows nothing of these.
		"in a record that came with the last one": func(t *testing.T, c peer, l *pool.Lease) {
			c.wire.on = true
			testkit.Write(t, c, "answer")
			testkit.Write(t, c, "stray")
			if err := c.wire.uncork(); err != nil {
				t.Fatal(err)
			}
			testkit.Read(t, l, "answer")
		},
		"in the same record": func(t *testing.T, c peer, l *pool.Lease) {
			testkit.Write(t, c, "answer, stray")
			testkit.Read(t, l, "answer")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, p, o := newSecure(t)
			l, c := s.connect(t, o, pool.Ticket{})
			send(t, c, l)
			l.Release()
			again, _ := s.connect(t, o, pool.Ticket{})
			defer again.Release()
			if again == l || stats(t, p).Closed[pool.StrayBytes] != 1 {
				t.Error("the connection is used again")
			}
		})
	}
}

// P2 of the catalogue, in TLS: the janitor sees them too, and takes no session
// ticket for them.
func TestP2StrayBytesOnAnIdleTLSConnectionCloseIt(t *testing.T) {
	for name, send := range map[string]func(*testing.T, peer){
		"a record": func(t *testing.T, c peer) { testkit.Write(t, c, "stray") },
		"a bye": func(t *testing.T, c peer) {
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run("P2 "+name, func(t *testing.T) {
			s, p, o := newSecure(t)
			l, c := s.connect(t, o, pool.Ticket{})
			l.Release()
			o.Tidy() // takes the tickets in
			if s := stats(t, p); s.Idle != 1 {
				t.Fatalf("closed %v", s.Closed)
			}
			send(t, c)
			testkit.Eventually(t, "it arrives", o.IdlePending)
			o.Tidy()
			s2 := stats(t, p)
			if s2.Idle != 0 || s2.Closed[pool.StrayBytes]+s2.Closed[pool.UpstreamClosed] != 1 {
				t.Errorf("%d idle, closed %v", s2.Idle, s2.Closed)
			}
		})
	}
}

// Bytes that came with the last answer are in no socket any more.
func TestP2StrayBytesThatWereReadAheadCloseAnIdleTLSConnection(t *testing.T) {
	s, p, o := newSecure(t)
	l, c := s.connect(t, o, pool.Ticket{})
	c.wire.on = true
	testkit.Write(t, c, "answer")
	testkit.Write(t, c, "stray")
	if err := c.wire.uncork(); err != nil {
		t.Fatal(err)
	}
	testkit.Read(t, l, "answer")
	l.Release()
	o.Tidy()
	if s := stats(t, p); s.Closed[pool.StrayBytes] != 1 {
		t.Errorf("closed %v", s.Closed)
	}
}

// P24 of the catalogue: of a record that is there in part nobody knows whether it
// is a session ticket, so no request is put behind it.
func TestP24AConnectionWithHalfATLSRecordIsNotUsed(t *testing.T) {
	for name, n := range map[string]int{"a byte": 1, "half a head": 3, "a head": 5, "half": 12} {
		t.Run("P24 "+name, func(t *testing.T) {
			s, p, o, _ := withHalf(t, n)
			again, _ := s.connect(t, o, pool.Ticket{})
			defer again.Release()
			if s := stats(t, p); s.Closed[pool.NotTrusted] != 1 || s.Opened != 2 {
				t.Errorf("%d opened, closed %v", s.Opened, s.Closed)
			}
		})
	}
}

func TestP2HalfATLSRecordOfWhichTheRestDoesNotComeClosesTheConnection(t *testing.T) {
	_, p, o, _ := withHalf(t, 12)
	if o.Tidy(); stats(t, p).Idle != 1 {
		t.Fatal("it was closed at the first look")
	}
	o.PassTime(pool.HalfFor)
	if o.Tidy(); stats(t, p).Closed[pool.StrayBytes] != 1 {
		t.Errorf("closed %v", stats(t, p).Closed)
	}
}

// withHalf returns an origin with an idle connection on which n bytes of a stray
// record have arrived.
func withHalf(t *testing.T, n int) (*secure, *pool.Pool, *pool.Origin, peer) {
	t.Helper()
	s, p, o := newSecure(t)
	l, c := s.connect(t, o, pool.Ticket{})
	testkit.Write(t, c, "answer")
	testkit.Read(t, l, "answer")
	l.Release()
	c.wire.on = true
	testkit.Write(t, c, "stray")
	if err := c.wire.uncorkPart(n); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it arrives", o.IdlePending)
	return s, p, o, c
}

// A ticket may arrive in parts, and be looked at in between.
func TestHalfASessionTicketClosesNothing(t *testing.T) {
	s, p, o := newSecure(t)
	base := s.cfg.Clone()
	s.cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientAuth = tls.RequestClientCert // so that the tickets come last
		c.VerifyConnection = func(tls.ConnectionState) error {
			hello.Conn.(*corked).on = true
			return nil
		}
		return c, nil
	}
	l, c := s.connect(t, o, pool.Ticket{})
	l.Release()
	if err := c.wire.uncorkPart(100); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "half a ticket arrives", o.IdlePending)
	o.Tidy()
	if err := c.wire.uncork(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the rest arrives", o.IdlePending)
	o.Tidy()
	o.Tidy()
	again := acquire(t, o, pool.Ticket{})
	if again != l {
		t.Errorf("it was closed: %v", stats(t, p).Closed)
	}
	again.Release()
}

func TestATLSConnectionThatEndsWhileIdleIsRemoved(t *testing.T) {
	for name, end := range map[string]func(peer){
		"properly":      func(c peer) { _ = c.Close() },
		"without a bye": func(c peer) { _ = c.wire.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, p, o := newSecure(t)
			l, c := s.connect(t, o, pool.Ticket{})
			l.Release()
			end(c)
			closedFor(t, p, pool.UpstreamClosed, 1)
		})
	}
}

func TestATLSConnectionWhoseServerSaidByeIsNotUsed(t *testing.T) {
	s, p, o := newSecure(t)
	l, c := s.connect(t, o, pool.Ticket{})
	l.Release()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the bye arrives", o.IdlePending)
	again, _ := s.connect(t, o, pool.Ticket{})
	defer again.Release()
	if again == l || stats(t, p).Closed[pool.UpstreamClosed] != 1 {
		t.Errorf("closed %v", stats(t, p).Closed)
	}
}

func TestTheSecondHandshakeIsShorter(t *testing.T) {
	s, _, o := newSecure(t)
	for i := range 3 {
		l, c := s.connect(t, o, pool.Ticket{Fresh: true})
		testkit.Write(t, c, "x")
		testkit.Read(t, l, "x") // and the tickets before it
		if resumed := c.ConnectionState().DidResume; resumed != (i > 0) {
			t.Errorf("handshake %d: resumed %v", i, resumed)
		}
		l.Discard(pool.NotKept)
	}
}

// C5 of the catalogue.
func TestAnUpstreamThatCannotProveItsNameGetsNothing(t *testing.T) {
	unknown := func(err error) bool { var e x509.UnknownAuthorityError; return errors.As(err, &e) }
	for name, c := range map[string]struct {
		host  string
		cert  func(*x509.Certificate)
		tls   func(*tls.Config)
		wrong func(error) bool // nil if nothing is wrong
	}{
		"good":                   {"good.test", nil, nil, nil},
		"good, with a final dot": {"good.test.", nil, nil, nil},
		"good, by address":       {"127.0.0.1", nil, nil, nil},
		"another name": {"bad.test", nil, nil, func(err error) bool {
			var e x509.HostnameError
			return errors.As(err, &e)
		}},
		"another address": {"127.0.0.1", func(c *x509.Certificate) { c.IPAddresses = nil }, nil, func(err error) bool {
			var e x509.HostnameError
			return errors.As(err, &e)
		}},
		"expired": {"good.test", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, nil, func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == x509.Expired
		}},
		"self-signed": {"good.test", func(c *x509.Certificate) { c.Subject.CommonName = "self-signed" }, nil, unknown},
		"not for servers": {"good.test", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, nil, func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == x509.IncompatibleUsage
		}},
		"an old version": {"good.test", nil, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }, func(err error) bool {
			return strings.Contains(err.Error(), "protocol version")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			s := &secure{newUpstream(t), &tls.Config{Certificates: []tls.Certificate{a.issue(t, c.cert)}, MinVersion: tls.VersionTLS10}}
			if c.tls != nil {
				c.tls(s.cfg)
			}
			p := newPool(t, func(cfg *pool.Config) {
				cfg.RootCAs, cfg.Resolver = a.roots(), names{
					"good.test": loopback(1), "good.test.": loopback(1), "bad.test": loopback(1),
				}
			})
			o := p.Origin(pool.Lookup{TLS: true, Host: []byte(c.host), Port: s.addr.Port()})
			accepted := s.accept()
			if c.wrong == nil {
				acquire(t, o, pool.Ticket{}).Release()
				testkit.Await(t, "the server has shaken hands", accepted)
				return
			}
			if err := failure(t, o); err.Stage != pool.StageTLS || !c.wrong(err) {
				t.Errorf("got %v, at %s", err, err.Stage)
			}
			if end := testkit.Await(t, "the server has shaken hands", accepted); end.Conn != nil {
				if n, err := end.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Error("something was sent")
				}
			}
			if s := stats(t, p); s.Opened != 0 || s.DialErrors != 1 {
				t.Errorf("%d opened, %d failed", s.Opened, s.DialErrors)
			}
		})
	}
}

func TestAHandshakeThatStallsIsGivenUp(t *testing.T) {
	s, _, o := newSecure(t, func(c *pool.Config) { c.DialTimeout = 50 * ms })
	err := failure(t, o)
	if err.Stage != pool.StageTLS || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, at %s", err, err.Stage)
	}
	if _, err := io.Copy(io.Discard, s.next()); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("the server saw %v", err)
	}
}

func TestAnAddressOfAnotherFamilyIsVerifiedToo(t *testing.T) {
	a := newAuthority(t)
	var lc net.ListenConfig
	probe, err := lc.Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	_ = probe.Close()
	s := &secure{newUpstreamAt(t, "[::1]:0"), &tls.Config{Certificates: []tls.Certificate{
		a.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{netip.IPv6Loopback().AsSlice()} }),
	}}}
	p := newPool(t, func(c *pool.Config) { c.RootCAs = a.roots() })
	l, _ := s.connect(t, p.Origin(pool.Lookup{TLS: true, Host: []byte("::1"), Port: s.addr.Port()}), pool.Ticket{})
	l.Release()
}
