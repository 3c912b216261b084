package sock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
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

func (r *recorder) ReadMore([]byte) int { return 0 }

// pieces is a layer that gives out its pieces one by one: those that are there when
// more is asked for, and each when it is waited for.
type pieces struct {
	net.Conn
	list  []string
	there int // how many ReadMore may give out
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.list) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.list[0])
	if p.list[0] = p.list[0][n:]; p.list[0] == "" {
		p.list = p.list[1:]
		p.there--
	}
	return n, nil
}

func (p *pieces) ReadMore(b []byte) int {
	if p.there <= 0 {
		return 0
	}
	n, _ := p.Read(b)
	return n
}

func (p *pieces) CloseWrite() error { return nil }

func TestALayersFillTakesWhatHasComeAndNoMore(t *testing.T) {
	long := strings.Repeat("x", sock.BufferSize)
	for name, c := range map[string]struct {
		list  []string
		there int
		want  []string
	}{
		"a piece":                     {[]string{"abc"}, 1, []string{"abc"}},
		"a byte":                      {[]string{"a", "b"}, 1, []string{"a", "b"}},
		"pieces together":             {[]string{"abc", "d", "ef", "gh"}, 3, []string{"abcdef", "g", "h"}},
		"more than there is room for": {[]string{long + "abc", "d"}, 2, []string{long, "abcd"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sock.Over(&pieces{list: c.list, there: c.there})
			var b sock.Buffer
			for _, want := range c.want {
				if err := s.Fill(&b); err != nil || string(b.Bytes()) != want {
					t.Fatalf("got %d bytes, %v, want %d", b.Len(), err, len(want))
				}
				b.Release()
			}
		})
	}
}

// noted is a layer that notes, whenever it is waited for, whether memory is held.
type noted struct {
	pieces
	buffer *sock.Buffer
	held   bool
}

func (n *noted) Read(b []byte) (int, error) {
	n.held = n.held || n.buffer.HoldsMemory()
	return n.pieces.Read(b)
}

func TestALayerThatWaitsHoldsNoBuffer(t *testing.T) {
	var b sock.Buffer
	l := &noted{pieces: pieces{list: []string{"abc", "d"}, there: 1}, buffer: &b}
	s := sock.Over(l)
	for _, want := range []string{"abc", "d"} {
		if err := s.Fill(&b); err != nil || string(b.Bytes()) != want {
			t.Errorf("%q, %v", b.Bytes(), err)
		}
		b.Consume(b.Len())
	}
	if err := s.Fill(&b); err != io.EOF || l.held {
		t.Errorf("%v, memory %v", err, l.held)
	}
}

// piped is a layer over a pipe.
type piped struct{ net.Conn }

func (piped) ReadMore([]byte) int { return 0 }

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
	s := sock.Over(&piped{ours})
	var b sock.Buffer
	b.Add([]byte("hel"))
	for range 2 {
		if err := s.Fill(&b); err != nil {
			t.Fatal(err)
		}
	}
	if string(b.Bytes()) != "hello" {
		t.Fatalf("got %q", b.Bytes())
	}
	if err := s.Fill(&b); err != io.EOF || string(b.Bytes()) != "hello" {
		t.Fatalf("got %q, %v", b.Bytes(), err)
	}
	b.Release()
	if err := s.Fill(&b); err != io.EOF || b.HoldsMemory() {
		t.Errorf("at the end: %v, memory %v", err, b.HoldsMemory())
	}
}
