package sock_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
)

func TestAZeroBufferHoldsNoMemory(t *testing.T) {
	var b sock.Buffer
	if b.HoldsMemory() || b.Len() != 0 || len(b.Bytes()) != 0 || b.Free() != sock.BufferSize {
		t.Errorf("memory %v, Len %d, Bytes %q, Free %d", b.HoldsMemory(), b.Len(), b.Bytes(), b.Free())
	}
	b.Consume(0)
	b.Release()
	if b.HoldsMemory() {
		t.Error("doing nothing took memory")
	}
}

func TestConsumingTheLastByteGivesTheMemoryBack(t *testing.T) {
	var b sock.Buffer
	b.Add([]byte("hello"))
	b.Consume(2)
	if string(b.Bytes()) != "llo" || !b.HoldsMemory() {
		t.Fatalf("got %q, memory %v", b.Bytes(), b.HoldsMemory())
	}
	b.Consume(3)
	if b.HoldsMemory() || b.Len() != 0 {
		t.Errorf("memory %v, Len %d", b.HoldsMemory(), b.Len())
	}
}

func TestConsumingTooMuchIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var b sock.Buffer
	b.Add([]byte("abc"))
	b.Consume(4)
}

func TestAFullBufferMakesRoomOfWhatWasConsumed(t *testing.T) {
	var b sock.Buffer
	b.Add(make([]byte, sock.BufferSize))
	if b.Free() != 0 || b.Add([]byte("x")) != 0 {
		t.Fatal("a full buffer took more")
	}
	b.Consume(sock.BufferSize - 3)
	if b.Free() != sock.BufferSize-3 {
		t.Errorf("Free is %d", b.Free())
	}
	if n := b.Add([]byte("abc")); n != 3 || string(b.Bytes()) != "\x00\x00\x00abc" {
		t.Errorf("added %d, holds %q", n, b.Bytes())
	}
}

func TestGrow(t *testing.T) {
	for name, c := range map[string]struct {
		fill, limit int
		ok          bool
	}{
		"with room left":                 {10, 5, true},
		"full and below the limit":       {sock.BufferSize, sock.BufferSize + 1, true},
		"full and at the limit":          {sock.BufferSize, sock.BufferSize, false},
		"full and far below the limit":   {sock.BufferSize, 100 * sock.BufferSize, true},
		"empty, whatever the limit says": {0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			var b sock.Buffer
			content := bytes.Repeat([]byte("0123456789"), c.fill/10+1)[:c.fill]
			b.Add(content)
			if ok := b.Grow(c.limit); ok != c.ok {
				t.Fatalf("Grow said %v", ok)
			}
			if !bytes.Equal(b.Bytes(), content) {
				t.Error("the content has changed")
			}
			if c.ok && b.Free() == 0 {
				t.Error("there is no room")
			}
			b.Release()
		})
	}
}

func TestWhatIsGrownBeyondTheLimitEnds(t *testing.T) {
	const limit = 1 << 20
	var b sock.Buffer
	chunk := make([]byte, 10000)
	for b.Grow(limit) {
		if b.Add(chunk) == 0 {
			t.Fatal("Grow promised room")
		}
	}
	if b.Len() < limit || b.Len() > limit+sock.BufferSize {
		t.Errorf("ended at %d bytes", b.Len())
	}
}

// model does to a slice what is done to a Buffer.
type model struct {
	t     *testing.T
	b     sock.Buffer
	want  []byte
	count byte
}

func (m *model) step(op, x, y byte) {
	n := len(m.want)
	switch op % 6 {
	case 0, 1:
		p := make([]byte, (int(x)<<8|int(y))*2)
		for i := range p {
			m.count++
			p[i] = m.count
		}
		m.want = append(m.want, p[:m.b.Add(p)]...)
	case 2:
		k := n * int(x) / 255
		m.b.Consume(k)
		m.want = m.want[k:]
	case 3:
		from := n * int(x) / 255
		to := from + (n-from)*int(y)/255
		m.b.Cut(from, to)
		m.want = append(m.want[:from:from], m.want[to:]...)
	case 4:
		m.grow(int(x) << 12)
	case 5:
		m.b.Idle()
	}
	m.check()
}

func (m *model) grow(limit int) {
	full := m.b.Free() == 0
	if ok := m.b.Grow(limit); ok != (!full || len(m.want) < limit) {
		m.t.Fatalf("Grow(%d) said %v with %d bytes, full %v", limit, ok, len(m.want), full)
	} else if ok && m.b.Free() == 0 {
		m.t.Fatal("Grow made no room")
	}
}

func (m *model) check() {
	if !bytes.Equal(m.b.Bytes(), m.want) {
		m.t.Fatalf("the buffer's %d bytes are not the %d expected", m.b.Len(), len(m.want))
	}
	if len(m.want) > 0 && !m.b.HoldsMemory() {
		m.t.Fatal("bytes without memory")
	}
}

func (m *model) run(ops []byte) {
	for ; len(ops) >= 3; ops = ops[3:] {
		m.step(ops[0], ops[1], ops[2])
	}
	m.b.Idle()
	if len(m.want) == 0 && m.b.HoldsMemory() {
		m.t.Fatal("memory without bytes")
	}
	m.b.Release()
	m.want = nil
	m.check()
}

func TestBuffersBehaveLikeSlices(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		ops := make([]byte, 300)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		m := model{t: t}
		m.run(ops)
	}
}

func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 128, 0, 3, 10, 200, 0, 255, 255, 4, 255, 0, 0, 255, 255, 2, 255, 0})
	f.Add([]byte{0, 255, 255, 2, 254, 0, 0, 0, 9, 5, 0, 0, 3, 0, 255})
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := model{t: t}
		m.run(ops[:min(len(ops), 300)])
	})
}

// Not parallel: it is for the whole process.
func TestBuffersAreSmallWhileRationed(t *testing.T) {
	asked := 0
	sock.Ration(func() bool { asked++; return false })
	defer sock.Ration(nil)
	var buffers [64]sock.Buffer // more than others may have given back
	small := 0
	for i := range buffers {
		b := &buffers[i]
		b.Add([]byte("abc"))
		if b.Free() < sock.BufferSize-3 {
			small++
		}
	}
	if small == 0 || small != asked {
		t.Fatalf("%d of %d buffers are small, asked %d times", small, len(buffers), asked)
	}
	b := &buffers[len(buffers)-1]
	long := bytes.Repeat([]byte("0123456789"), 10000)
	for n := b.Len(); n < len(long); n = b.Len() { // it grows like others
		if b.Free() == 0 && !b.Grow(len(long)) {
			t.Fatalf("does not grow beyond %d", b.Len())
		}
		b.Add(long[n:])
	}
	if want := "abc" + string(long[3:]); string(b.Bytes()) != want || !b.HoldsMemory() {
		t.Errorf("holds %d bytes, not what was added", b.Len())
	}
	for i := range buffers {
		if buffers[i].Release(); buffers[i].HoldsMemory() {
			t.Fatal("memory was not given back")
		}
	}
	sock.Ration(nil)
	for range 3 {
		var b sock.Buffer
		b.Add([]byte("x"))
		if b.Free() != sock.BufferSize-1 {
			t.Errorf("without rationing %d bytes are free", b.Free())
		}
	}
}
