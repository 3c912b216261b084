package proxy_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// script is a connection on which a hop says something, in pieces of a size, and ends.
type script struct {
	net.Conn
	says  []byte
	piece int
}

func (s *script) Write(p []byte) (int, error) { return len(p), nil }

func (s *script) Read(p []byte) (int, error) {
	if len(s.says) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.says[:min(s.piece, len(s.says))])
	s.says = s.says[n:]
	return n, nil
}

// The answer of a hop to CONNECT means the same in whatever pieces it comes, and what
// is behind it is lost to nobody.
func FuzzAnswerToCONNECT(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\n\r\nbehind", "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbehind",
		"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP/1.1 503 No\n\nbehind", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\nbehind",
		"HTTP/1.1 101 X\r\n\r\n", "HTTP/1.1 2", "220 smtp\r\n", "",
	} {
		f.Add([]byte(answer), uint8(1))
		f.Add([]byte(answer), uint8(7))
	}
	const limit = 512
	h := proxy.NewHop(pool.Key{Host: "hop.test", Port: 80}, policy.Direct{}, nil).Pool(limit)
	f.Fuzz(func(t *testing.T, says []byte, piece uint8) {
		to := pool.Key{Host: "far.test", Port: 25, Way: pool.ByHop}
		ask := func(size int) ([]byte, error) {
			s := &script{says: bytes.Clone(says), piece: size}
			early, err := h.Connect(s, to)
			return append(bytes.Clone(early), s.says...), err
		}
		whole, err := ask(len(says) + 1)
		pieces, other := ask(int(piece%32) + 1)
		switch {
		case (err == nil) != (other == nil), err != nil && err.Error() != other.Error():
			t.Fatalf("%q in one piece: %v, in several: %v", says, err, other)
		case err == nil && !bytes.Equal(whole, pieces):
			t.Fatalf("%q: behind it is %q in one piece, %q in several", says, whole, pieces)
		case err == nil && !bytes.HasSuffix(says, whole):
			t.Fatalf("%q ends in %q", says, whole)
		case err == nil && len(says)-len(whole) > limit:
			t.Fatalf("%d bytes of heads were taken", len(says)-len(whole))
		}
	})
}
