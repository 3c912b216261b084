package sock_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestFillHoldsNoMemoryWhileItWaits(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		var b sock.Buffer
		filled := testkit.In(func() error { return c.Fill(&b) })
		testkit.Eventually(t, "the read waits", func() bool { return c.Parks() > 0 })
		// The race detector cannot know that the peer's write orders what
		// follows behind this look.
		if !testkit.Race && b.HoldsMemory() {
			t.Error("there is memory in the buffer")
		}
		testkit.Write(t, peer, "hello")
		if err := testkit.Await(t, "bytes come", filled); err != nil || string(b.Bytes()) != "hello" {
			t.Errorf("got %q, %v", b.Bytes(), err)
		}
	})
}

func TestFillKeepsWhatWasInTheBufferWhileItWaits(t *testing.T) {
	c, peer := dialled(t)
	var b sock.Buffer
	b.Add([]byte("hel"))
	filled := testkit.In(func() error { return c.Fill(&b) })
	testkit.Eventually(t, "the read waits", func() bool { return c.Parks() > 0 })
	testkit.Write(t, peer, "lo")
	if err := testkit.Await(t, "bytes come", filled); err != nil || string(b.Bytes()) != "hello" {
		t.Errorf("got %q, %v", b.Bytes(), err)
	}
}

func TestAShortExchangeNeedsNoRegistration(t *testing.T) {
	c, peer := accepted(t, "request")
	var b sock.Buffer
	if err := c.Fill(&b); err != nil || string(b.Bytes()) != "request" {
		t.Fatalf("got %q, %v", b.Bytes(), err)
	}
	if _, err := c.Writev([]byte("head"), []byte("body")); err != nil {
		t.Fatal(err)
	}
	if c.Interrupt() || c.Registered() {
		t.Error("the socket was registered")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(peer); string(got) != "headbody" || err != nil {
		t.Errorf("the peer got %q, %v", got, err)
	}
}

func TestARegistrationLosesNothingThatCameBefore(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn) error{
		"bytes and the end": (*net.TCPConn).CloseWrite,
		"bytes":             func(*net.TCPConn) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := acceptedQuiet(t)
			testkit.Write(t, peer, "early")
			if err := end(peer); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, "they arrive", func() bool { some, _ := c.Pending(); return some })
			if err := c.Register(); err != nil {
				t.Fatal(err)
			}
			testkit.Read(t, c, "early")
			_ = peer.CloseWrite()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the end: %v", err)
			}
		})
	}
}

func TestAFirstWaitRegisters(t *testing.T) {
	c, peer := acceptedQuiet(t)
	got := testkit.In(func() string {
		b := make([]byte, 5)
		_, _ = io.ReadFull(c, b)
		return string(b)
	})
	testkit.Eventually(t, "the read waits", func() bool { return c.Parks() > 0 })
	testkit.Write(t, peer, "hello")
	if s := testkit.Await(t, "bytes come", got); s != "hello" || !c.Registered() {
		t.Errorf("got %q, registered %v", s, c.Registered())
	}
}

func TestWritevGoesOnUntilASlowReaderHasAll(t *testing.T) {
	for name, size := range map[string][2]int{
		"a short head": {200, 12 << 20}, "a long head": {12 << 20, 200}, "both": {6 << 20, 6 << 20},
		"no head": {0, 12 << 20}, "no body": {12 << 20, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
				a, b := noise(size[0]), noise(size[1])
				written := testkit.In(func() int {
					n, _ := c.Writev(a, b)
					_ = c.CloseWrite()
					return n
				})
				testkit.Eventually(t, "the write waits", func() bool { return c.Parks() > 0 })
				got := newDigest()
				if _, err := io.CopyBuffer(got, struct{ io.Reader }{peer}, make([]byte, 5000)); err != nil {
					t.Fatal(err)
				}
				if n := testkit.Await(t, "the write ends", written); n != len(a)+len(b) || !got.same(digestOf(a, b)) {
					t.Errorf("%d bytes accepted, %d arrived, of %d", n, got.n, len(a)+len(b))
				}
			})
		})
	}
}

func TestShortExchangesNeedNoTurn(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		echo := testkit.In(func() error { _, err := io.Copy(peer, peer); return err })
		payload := make([]byte, 8<<10)
		waited := 0
		for range 300 {
			testkit.Write(t, c, string(payload))
			parks := c.Parks()
			var b sock.Buffer
			for n := 0; n < len(payload); n += b.Len() {
				b.Release()
				if err := c.Fill(&b); err != nil {
					t.Fatal(err)
				}
			}
			b.Release()
			if c.Parks() == parks {
				continue
			}
			waited++
			if c.ReadsSpent() || c.WritesSpent() {
				t.Fatal("a connection that has just waited is to take a turn")
			}
		}
		if waited < 100 {
			t.Skipf("the peer was so fast that only %d reads had to wait", waited)
		}
		_ = c.Close()
		testkit.Await(t, "the echo ends", echo)
	})
}

func TestATransferThatNeverWaitsTakesTurns(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		drained := testkit.In(func() error { _, err := io.Copy(io.Discard, peer); return err })
		for range 64 {
			if c.WritesSpent() {
				t.Fatal("a turn is due already")
			}
			testkit.Write(t, c, "x")
		}
		if !c.WritesSpent() {
			t.Error("no turn is due after 64 calls")
		}
		if _, err := c.Writev([]byte("head"), []byte("body")); err != nil {
			t.Error(err)
		}
		if c.Parks() != 1 || c.WritesSpent() {
			t.Errorf("after a turn: %d parks, another one due: %v", c.Parks(), c.WritesSpent())
		}
		_ = c.Close()
		testkit.Await(t, "the peer sees the end", drained)
	})
}

// With one P and a goroutine that never waits, nobody else asks the network.
func TestATurnLetsThoseRunWhoseSocketsAreReady(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	c, peer := dialled(t)
	defer c.Close()
	heard := make(chan error, 1)
	go func() { heard <- c.Fill(new(sock.Buffer)) }()
	testkit.Eventually(t, "the read waits", func() bool { return c.Parks() > 0 })
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		sock.TakeTurn()
		select {
		case err := <-heard:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
	t.Error("after 1,000 turns the reader has not run")
}

func TestOrdinaryCallsMoveTheSameBytes(t *testing.T) {
	c, peer := dialled(t)
	payload := noise(4 << 20)
	got := newDigest()
	done := testkit.In(func() error { _, err := io.Copy(got, peer); return err })
	for p := payload; len(p) > 0; {
		k := min(len(p), 997)
		if n, err := c.Writev(p[:k/2], p[k/2:k]); n != k || err != nil {
			t.Fatal(n, err)
		}
		p = p[k:]
	}
	_ = c.Close()
	if err := testkit.Await(t, "all arrives", done); err != nil || !got.same(digestOf(payload)) {
		t.Errorf("%d of %d bytes, %v", got.n, len(payload), err)
	}
}

func TestAKeptConnectionReadsAndWritesWithoutAllocating(t *testing.T) {
	if testkit.Race {
		t.Skip("cannot be counted under the race detector")
	}
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		head, body := []byte("head"), []byte("body")
		var echo [8]byte
		var b sock.Buffer
		exchange := func() {
			if _, err := c.Writev(head, body); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(peer, echo[:]); err != nil {
				t.Fatal(err)
			}
			if c.PeerGone() {
				t.Fatal("gone")
			}
			if some, err := c.Pending(); some || err != nil {
				t.Fatal(some, err)
			}
			if _, err := peer.Write(echo[:]); err != nil {
				t.Fatal(err)
			}
			if err := c.Fill(&b); err != nil || !bytes.Equal(b.Bytes(), echo[:]) {
				t.Fatal(err)
			}
			b.Consume(b.Len())
		}
		if n := testing.AllocsPerRun(500, exchange); n != 0 {
			t.Errorf("%v allocations an exchange", n)
		}
	})
}

func TestDescriptorsAreGivenBack(t *testing.T) {
	l := listen(t)
	before := testkit.Sockets()
	for i := range 100 {
		peer := dial(t, l.Addr())
		testkit.Write(t, peer, "x")
		var c sock.Conn
		if err := l.Accept(&c); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := c.Register(); err != nil {
				t.Fatal(err)
			}
		}
		end := c.Close
		if i%3 == 0 {
			end = c.Abort
		}
		if err := end(); err != nil || c.FD() != -1 {
			t.Fatal(err, c.FD())
		}
		_ = peer.Close()
	}
	if n := testkit.Sockets(); n != before {
		t.Errorf("%d sockets before, %d after", before, n)
	}
}

func TestTheDeadTimeoutIsWhatTheKernelIsTold(t *testing.T) {
	for d, want := range map[time.Duration][4]int{
		15 * time.Second:       {15000, 3, 3, 3},
		2 * time.Second:        {2000, 1, 1, 3},
		500 * time.Millisecond: {500, 1, 1, 3},
		1000 * time.Hour:       {86400000, 21600, 21600, 3},
	} {
		c, _ := dialled(t)
		if err := c.SetDeadTimeout(d); err != nil {
			t.Errorf("%v: %v", d, err)
			continue
		}
		const userTimeout = 18
		for i, name := range []int{userTimeout, syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT} {
			if v, err := syscall.GetsockoptInt(c.FD(), syscall.IPPROTO_TCP, name); v != want[i] || err != nil {
				t.Errorf("%v: option %d is %d (%v), want %d", d, name, v, err, want[i])
			}
		}
		if v, err := syscall.GetsockoptInt(c.FD(), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); v != 1 || err != nil {
			t.Errorf("%v: keep-alive is %d, %v", d, v, err)
		}
	}
}

func TestADeadlineWorksOnASocketThatWasNeverUsed(t *testing.T) {
	c, _ := acceptedQuiet(t)
	if c.Registered() {
		t.Fatal("registered already")
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil || !c.Registered() {
		t.Fatalf("%v, registered %v", err, c.Registered())
	}
	if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
}
