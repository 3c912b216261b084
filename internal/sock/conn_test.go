package sock_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

var past = time.Unix(1, 0)

func TestFillAddsWhatOneReadGives(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		var b sock.Buffer
		testkit.Write(t, peer, "hello")
		if err := c.Fill(&b); err != nil || string(b.Bytes()) != "hello" {
			t.Fatalf("got %q, %v", b.Bytes(), err)
		}
		testkit.Write(t, peer, " world")
		if err := c.Fill(&b); err != nil || string(b.Bytes()) != "hello world" {
			t.Fatalf("got %q, %v", b.Bytes(), err)
		}
		_ = peer.Close()
		if err := c.Fill(&b); err != io.EOF || string(b.Bytes()) != "hello world" {
			t.Fatalf("at the end: %q, %v", b.Bytes(), err)
		}
		b.Release()
		if err := c.Fill(&b); err != io.EOF || b.HoldsMemory() {
			t.Fatalf("after the end: %v, memory %v", err, b.HoldsMemory())
		}
	})
}

func TestAResetIsAnErrorNotAnEnd(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		reset(t, peer)
		var b sock.Buffer
		if err := c.Fill(&b); !errors.Is(err, syscall.ECONNRESET) || b.HoldsMemory() {
			t.Errorf("got %v, memory %v", err, b.HoldsMemory())
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("writing: %v", err)
		}
	})
}

func TestAnEmptyReadOrWriteDoesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, _ *net.TCPConn) {
		if n, err := c.Read(nil); n != 0 || err != nil {
			t.Errorf("Read: %d, %v", n, err)
		}
		if n, err := c.Writev(nil, nil); n != 0 || err != nil {
			t.Errorf("Writev: %d, %v", n, err)
		}
	})
}

func TestADeadlineThatHasPassedFailsAtOnceAndLosesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		testkit.Write(t, peer, "kept")
		if err := c.SetReadDeadline(past); err != nil {
			t.Fatal(err)
		}
		var b sock.Buffer
		for range 2 {
			if err := c.Fill(&b); !errors.Is(err, os.ErrDeadlineExceeded) || b.HoldsMemory() {
				t.Fatalf("got %v, memory %v", err, b.HoldsMemory())
			}
		}
		testkit.Write(t, c, "a read deadline is not for writes")
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		testkit.Read(t, c, "kept")
	})
}

func TestADeadlineEndsAWait(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var b sock.Buffer
		if err := c.Fill(&b); !errors.Is(err, os.ErrDeadlineExceeded) || b.HoldsMemory() {
			t.Errorf("got %v, memory %v", err, b.HoldsMemory())
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		testkit.Write(t, peer, "later")
		testkit.Read(t, c, "later")
	})
}

func TestWritevCountsWhatWasAcceptedBeforeADeadline(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		head, body := noise(100), noise(32<<20)
		if err := c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Writev(head, body)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < len(head) || n >= len(head)+len(body) {
			t.Fatalf("accepted %d, %v", n, err)
		}
		_ = c.Close()
		got := newDigest()
		if _, err := io.Copy(got, peer); err != nil {
			t.Fatal(err)
		}
		if !got.same(digestOf(head, body[:n-len(head)])) {
			t.Errorf("%d bytes arrived, %d were accepted", got.n, n)
		}
	})
}

func TestInterruptEndsTheReadUnderWayAndLaterOnes(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		var b sock.Buffer
		failed := testkit.In(func() error { return c.Fill(&b) })
		if !c.Interrupt() {
			t.Fatal("Interrupt says that nobody can be waiting")
		}
		if err := testkit.Await(t, "the read fails", failed); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the read under way: %v", err)
		}
		testkit.Write(t, peer, "x")
		if err := c.Fill(&b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a later one: %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a later write: %v", err)
		}
	})
}

func TestPendingTellsWhatWaits(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if some, err := c.Pending(); some || err != nil {
			t.Fatalf("nothing waits: %v, %v", some, err)
		}
		testkit.Write(t, peer, "x")
		testkit.Eventually(t, "bytes wait", func() bool { some, err := c.Pending(); return some && err == nil })
		_ = peer.CloseWrite()
		testkit.Eventually(t, "the peer is gone", c.PeerGone)
		if some, err := c.Pending(); !some || err != nil {
			t.Fatalf("bytes before an end: %v, %v", some, err)
		}
		testkit.Read(t, c, "x")
		if some, err := c.Pending(); some || err != io.EOF {
			t.Fatalf("the end: %v, %v", some, err)
		}
	})
}

func TestPendingTellsOfAReset(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		reset(t, peer)
		testkit.Eventually(t, "the reset arrives", c.PeerGone)
		if some, err := c.Pending(); some || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, %v", some, err)
		}
	})
}

func TestPeerGoneIsAskedWhileOthersReadAndWrite(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		received := testkit.In(func() int { n, _ := io.Copy(io.Discard, c); return int(n) })
		sent := testkit.In(func() error { _, err := c.Write(noise(1 << 20)); return err })
		go func() {
			_, _ = io.Copy(io.Discard, peer)
		}()
		for range 100 {
			testkit.Write(t, peer, "0123456789")
			if c.PeerGone() {
				t.Fatal("the peer is there")
			}
		}
		_ = peer.CloseWrite()
		testkit.Eventually(t, "the peer's end is seen", c.PeerGone)
		if n := testkit.Await(t, "all is read", received); n != 1000 {
			t.Errorf("read %d bytes", n)
		}
		if err := testkit.Await(t, "all is written", sent); err != nil {
			t.Error(err)
		}
	})
}

func TestAbortLooksLikeAResetAndCloseLikeAnEnd(t *testing.T) {
	for name, c := range map[string]struct {
		how  func(*sock.Conn) error
		want error
	}{
		"Close": {(*sock.Conn).Close, io.EOF},
		"Abort": {(*sock.Conn).Abort, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			bothKinds(t, func(t *testing.T, conn *sock.Conn, peer *net.TCPConn) {
				if err := c.how(conn); err != nil {
					t.Fatal(err)
				}
				if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, c.want) {
					t.Errorf("the peer saw %v", err)
				}
			})
		})
	}
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		testkit.Write(t, c, "last words")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(peer); string(b) != "last words" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

func TestCloseWriteEndsOneDirection(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		testkit.Write(t, c, "question")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(peer); string(b) != "question" || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
		testkit.Write(t, peer, "answer")
		testkit.Read(t, c, "answer")
	})
}

func TestCloseReadEndsTheWaitForMore(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		ended := testkit.In(func() error { _, err := c.Read(make([]byte, 1)); return err })
		if err := c.CloseRead(); err != nil {
			t.Fatal(err)
		}
		if err := testkit.Await(t, "the read ends", ended); err != io.EOF {
			t.Errorf("got %v", err)
		}
		testkit.Write(t, c, "still")
		testkit.Read(t, peer, "still")
	})
}

func TestAClosedConnectionFailsAtEverything(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, _ *net.TCPConn) {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		var b sock.Buffer
		for name, f := range map[string]func() error{
			"Close":       c.Close,
			"Abort":       c.Abort,
			"Fill":        func() error { return c.Fill(&b) },
			"Read":        func() error { _, err := c.Read(make([]byte, 1)); return err },
			"Write":       func() error { _, err := c.Write([]byte("x")); return err },
			"CloseWrite":  c.CloseWrite,
			"SetDeadline": func() error { return c.SetDeadline(past) },
		} {
			if f() == nil {
				t.Errorf("%s succeeds", name)
			}
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close again: %v", err)
		}
		if b.HoldsMemory() {
			t.Error("a failed Fill took memory")
		}
	})
}

func TestCloseEndsTheReadAndTheWriteUnderWay(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, _ *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		reading := testkit.In(func() error { _, err := c.Read(make([]byte, 1)); return err })
		writing := testkit.In(func() error { _, err := c.Write(make([]byte, 64<<20)); return err })
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if testkit.Await(t, "the read ends", reading) == nil || testkit.Await(t, "the write ends", writing) == nil {
			t.Error("they succeeded")
		}
	})
}

func TestAReaderAndAWriterAtOnce(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if err := c.Register(); err != nil {
			t.Fatal(err)
		}
		payload := noise(8 << 20)
		echoed := testkit.In(func() error {
			_, err := io.Copy(peer, peer)
			_ = peer.CloseWrite()
			return err
		})
		sent := testkit.In(func() error {
			for p := payload; len(p) > 0; {
				k := min(len(p), 100_003)
				if _, err := c.Writev(p[:k/3], p[k/3:k]); err != nil {
					return err
				}
				p = p[k:]
			}
			return c.CloseWrite()
		})
		got := newDigest()
		var b sock.Buffer
		for c.Fill(&b) == nil {
			_, _ = got.Write(b.Bytes())
			b.Consume(b.Len())
		}
		if err := errors.Join(testkit.Await(t, "all is sent", sent), testkit.Await(t, "all is echoed", echoed)); err != nil {
			t.Fatal(err)
		}
		if !got.same(digestOf(payload)) {
			t.Errorf("%d bytes came back, not the %d sent", got.n, len(payload))
		}
	})
}

func TestAddressesAreThoseOfTheConnection(t *testing.T) {
	bothKinds(t, func(t *testing.T, c *sock.Conn, peer *net.TCPConn) {
		if c.LocalAddr().String() != peer.RemoteAddr().String() || c.RemoteAddr().String() != peer.LocalAddr().String() {
			t.Errorf("%v to %v, the peer says %v to %v", c.LocalAddr(), c.RemoteAddr(), peer.RemoteAddr(), peer.LocalAddr())
		}
	})
}

func TestErrorsAreTold(t *testing.T) {
	wrapped := func(e syscall.Errno) error { return &net.OpError{Op: "read", Err: os.NewSyscallError("read", e)} }
	for name, c := range map[string]struct {
		err                 error
		exhausted, timedOut bool
	}{
		"no descriptor for the process": {wrapped(syscall.EMFILE), true, false},
		"no descriptor for the system":  {wrapped(syscall.ENFILE), true, false},
		"no memory":                     {wrapped(syscall.ENOBUFS), true, false},
		"the kernel gave up":            {wrapped(syscall.ETIMEDOUT), false, true},
		"the kernel gave up, no ARP":    {wrapped(syscall.EHOSTUNREACH), false, true},
		"a deadline of ours":            {os.ErrDeadlineExceeded, false, false},
		"a reset":                       {wrapped(syscall.ECONNRESET), false, false},
		"an end":                        {io.EOF, false, false},
		"none":                          {nil, false, false},
	} {
		if sock.Exhausted(c.err) != c.exhausted || sock.TimedOut(c.err) != c.timedOut {
			t.Errorf("%s: exhausted %v, timed out %v", name, sock.Exhausted(c.err), sock.TimedOut(c.err))
		}
	}
}

// A read into no room would look like the end of the stream, or like nothing
// at all for ever.
func TestFillingAFullBufferIsAnError(t *testing.T) {
	conn, peer := acceptedQuiet(t)
	testkit.Write(t, peer, "more")
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	for name, s := range map[string]sock.Stream{"a connection": conn, "a layer": sock.Over(&piped{ours})} {
		t.Run(name, func(t *testing.T) {
			var b sock.Buffer
			defer b.Release()
			b.Add(make([]byte, sock.BufferSize))
			if err := s.Fill(&b); err != sock.ErrFull || b.Len() != sock.BufferSize {
				t.Errorf("got %v, %d bytes", err, b.Len())
			}
		})
	}
	var b sock.Buffer
	defer b.Release()
	b.Add(make([]byte, sock.BufferSize))
	b.Consume(sock.BufferSize - 1)
	if err := conn.Fill(&b); err != nil || string(b.Bytes()) != "\x00more" {
		t.Errorf("with room in front: %q, %v", b.Bytes(), err)
	}
}
