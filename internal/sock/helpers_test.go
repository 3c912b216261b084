package sock_test

import (
	"context"
	"crypto/sha256"
	"hash"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func listen(t testing.TB) *sock.Listener {
	t.Helper()
	l, err := sock.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t testing.TB, to net.Addr) *net.TCPConn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// accepted returns a connection fresh from Accept, in which first waits to be
// read, and its peer.
func accepted(t testing.TB, first string) (*sock.Conn, *net.TCPConn) {
	t.Helper()
	l := listen(t)
	peer := dial(t, l.Addr())
	testkit.Write(t, peer, first)
	c := new(sock.Conn)
	if err := l.Accept(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, peer
}

// acceptedQuiet is accepted with nothing to read.
func acceptedQuiet(t testing.TB) (*sock.Conn, *net.TCPConn) {
	t.Helper()
	c, peer := accepted(t, "x")
	testkit.Read(t, c, "x")
	return c, peer
}

// dialled returns a connection made from a net.TCPConn, and its peer.
func dialled(t testing.TB) (*sock.Conn, *net.TCPConn) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := sock.FromTCP(dial(t, l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = peer.Close(), c.Close() })
	return c, peer.(*net.TCPConn)
}

// bothKinds runs a test with an accepted, unregistered connection and with a
// dialled one.
func bothKinds(t *testing.T, test func(t *testing.T, c *sock.Conn, peer *net.TCPConn)) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) (*sock.Conn, *net.TCPConn){
		"accepted": acceptedQuiet, "dialled": dialled,
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := open(t)
			test(t, c, peer)
		})
	}
}

// reset closes a peer's end so that the other end sees a reset.
func reset(t testing.TB, c *net.TCPConn) {
	t.Helper()
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// noise returns n bytes without a pattern that a lost or doubled piece would fit.
func noise(n int) []byte {
	p := make([]byte, n)
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		p[i] = byte(x)
	}
	return p
}

// digest is a hash and length of bytes seen.
type digest struct {
	h hash.Hash
	n int
}

func newDigest() *digest { return &digest{h: sha256.New()} }

func (d *digest) Write(p []byte) (int, error) {
	d.n += len(p)
	return d.h.Write(p)
}

func digestOf(parts ...[]byte) *digest {
	d := newDigest()
	for _, p := range parts {
		_, _ = d.Write(p)
	}
	return d
}

func (d *digest) same(e *digest) bool {
	return d.n == e.n && string(d.h.Sum(nil)) == string(e.h.Sum(nil))
}
