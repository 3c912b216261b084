package pool_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// asking has an upstream ask for a certificate, and take any.
func (s *secure) asking() { s.cfg.ClientAuth = tls.RequestClientCert }

// shown is the common name of the certificate that a server was shown, "" for none.
func (p peer) shown() string {
	if certs := p.ConnectionState().PeerCertificates; len(certs) > 0 {
		return certs[0].Subject.CommonName
	}
	return ""
}

// client returns a certificate for a client.
func (a *authority) client(t testing.TB, name string) *tls.Certificate {
	c := a.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = name })
	return &c
}

func TestP20AClientCertificateIsShownOnlyWhereItIsFor(t *testing.T) {
	a := newAuthority(t)
	s, p, good := newSecure(t, func(c *pool.Config) {
		c.Certificate = a.client(t, "me")
		c.ShowTo = func(k pool.Key) bool { return k.Host == "good.test" }
	})
	s.asking()
	other := p.Origin(pool.Lookup{TLS: true, Host: []byte("127.0.0.1"), Port: s.addr.Port()})
	for _, c := range []struct {
		origin *pool.Origin
		want   string
	}{{good, "me"}, {other, ""}} {
		l, end := s.connect(t, c.origin, pool.Ticket{})
		if got := end.shown(); got != c.want {
			t.Errorf("%s was shown %q, want %q", c.origin.Key(), got, c.want)
		}
		l.Release()
	}
}

func TestP20ConnectionsOfAnotherIdentityInTLSAreNotUsed(t *testing.T) {
	a := newAuthority(t)
	roots := a.roots()
	s, p, o := newSecure(t, func(c *pool.Config) {
		c.Certificate = a.client(t, "old")
		c.ShowTo = func(pool.Key) bool { return true }
	})
	s.asking()
	idle, _ := s.connect(t, o, pool.Ticket{})
	busy, end := s.connect(t, o, pool.Ticket{Fresh: true})
	idle.Release()
	p.SetTLS(p.RootCAs(), a.client(t, "new"))
	closedFor(t, p, pool.TLSChanged, 1)
	testkit.Write(t, busy, "the exchange goes on")
	testkit.Read(t, end, "the exchange goes on")
	busy.Release()
	closedFor(t, p, pool.TLSChanged, 2)

	l, end := s.connect(t, o, pool.Ticket{})
	if got := end.shown(); got != "new" || end.ConnectionState().DidResume {
		t.Errorf("shown %q, resumed %v", got, end.ConnectionState().DidResume)
	}
	l.Return() // untouched
	l = acquire(t, o, pool.Ticket{})
	p.SetTLS(p.RootCAs(), a.client(t, "newer"))
	l.Return()
	closedFor(t, p, pool.TLSChanged, 3)

	// What is not trusted any more gets nothing.
	p.SetTLS(roots, a.client(t, "newer"))
	accepted := s.accept()
	if err := failure(t, o); err.Stage != pool.StageTLS {
		t.Errorf("%v", err)
	}
	testkit.Await(t, "the server has seen the handshake fail", accepted)
}

func TestP20AConnectionThatIsOvertakenByANewIdentityIsOpenedAgain(t *testing.T) {
	a := newAuthority(t)
	s, p, o := newSecure(t, func(c *pool.Config) {
		c.Certificate = a.client(t, "old")
		c.ShowTo = func(pool.Key) bool { return true }
	})
	s.asking()
	got := testkit.In(func() *pool.Lease { return acquire(t, o, pool.Ticket{}) })
	first := s.next()
	hello := make([]byte, 1)
	if _, err := first.Read(hello); err != nil { // the handshake is under way
		t.Fatal(err)
	}
	p.SetTLS(p.RootCAs(), a.client(t, "new"))
	early := tls.Server(begun{first, io.MultiReader(bytes.NewReader(hello), first)}, s.cfg)
	if err := early.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := testkit.Await(t, "the second handshake", s.accept())
	if end.Conn == nil || end.shown() != "new" {
		t.Fatal("not by the new certificate")
	}
	testkit.Await(t, "the connection", got).Release()
	closedFor(t, p, pool.TLSChanged, 1)
}

// begun is a connection of which something has been read.
type begun struct {
	net.Conn
	in io.Reader
}

func (b begun) Read(p []byte) (int, error) { return b.in.Read(p) }

func TestAnIdentityThatIsNotAnOriginsChangesNothingForIt(t *testing.T) {
	a := newAuthority(t)
	s, p, o := newSecure(t, func(c *pool.Config) { c.ShowTo = func(pool.Key) bool { return false } })
	l, _ := s.connect(t, o, pool.Ticket{})
	l.Release()
	p.SetTLS(p.RootCAs(), a.client(t, "new"))
	acquire(t, o, pool.Ticket{}).Release()
	if s := stats(t, p); s.Opened != 1 || len(s.Closed) != 0 {
		t.Errorf("%+v", s)
	}
}
