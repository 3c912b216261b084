package sock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// recorder is a connection that keeps what each Write got, until it breaks.
type recorder struct {
	net.Conn
	writes  [][]byte
	breakAt int // how many writes succeed, if more than 0
	closed  bool
}

var errBroken = errors.New("broken")

func (r *recorder) Write(p []byte) (int, error) {
	if r.breakAt > 0 && len(r.writes) == r.breakAt {
		return 1, errBroken
	}
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

func (r *recorder) Close() error { r.closed = true; return nil }

func TestALayersShortMessagesLeaveInOneWrite(t *testing.T) {
	big := make([]byte, sock.BufferSize)
	for name, c := range map[string]struct {
		a, b   []byte
		writes int
	}{
		"head and body":            {[]byte("head"), []byte("body"), 1},
		"a head alone":             {[]byte("head"), nil, 1},
		"as much as fits":          {big[:10], big[10:], 1},
		"a byte more than fits":    {big, []byte("x"), 2},
		"a big one without a head": {nil, append(big, big...), 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{}
			n, err := sock.Over(r).Writev(c.a, c.b)
			if n != len(c.a)+len(c.b) || err != nil {
				t.Fatalf("got %d, %v", n, err)
			}
			writes := 0
			for _, w := range r.writes {
				if len(w) > 0 {
					writes++
				}
			}
			if writes != c.writes {
				t.Errorf("%d writes, want %d", writes, c.writes)
			}
			if !bytes.Equal(bytes.Join(r.writes, nil), append(bytes.Clone(c.a), c.b...)) {
				t.Error("something else was written")
			}
		})
	}
}

func TestALayersWritevCountsWhatWasAcceptedBeforeAnError(t *testing.T) {
	r := &recorder{breakAt: 1}
	n, err := sock.Over(r).Writev(make([]byte, sock.BufferSize), []byte("xyz"))
	if n != sock.BufferSize+1 || err != errBroken {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestALayerWithoutHalfCloseIsClosed(t *testing.T) {
	r := &recorder{}
	s := sock.Over(r)
	if err := s.CloseRead(); err != nil || r.closed {
		t.Errorf("one direction: closed %v, %v", r.closed, err)
	}
	if err := s.CloseWrite(); err != nil || !r.closed {
		t.Errorf("the other: closed %v, %v", r.closed, err)
	}
}

func TestALayersFillAddsToTheBuffer(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_, _ = theirs.Write([]byte("lo"))
		_ = theirs.Close()
	}()
	s := sock.Over(ours)
	var b sock.Buffer
	b.Add([]byte("hel"))
	if err := s.Fill(&b); err != nil || string(b.Bytes()) != "hello" {
		t.Fatalf("got %q, %v", b.Bytes(), err)
	}
	if err := s.Fill(&b); err != io.EOF || string(b.Bytes()) != "hello" {
		t.Fatalf("got %q, %v", b.Bytes(), err)
	}
	b.Release()
	if err := s.Fill(&b); err != io.EOF || b.HoldsMemory() {
		t.Errorf("at the end: %v, memory %v", err, b.HoldsMemory())
	}
}
