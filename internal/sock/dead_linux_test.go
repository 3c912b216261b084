package sock_test

import (
	"net"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// vanish makes a connection deaf and dumb without ending it: its kernel drops
// whatever arrives, unacknowledged.
func vanish(t testing.TB, c *net.TCPConn) {
	t.Helper()
	const soAttachFilter = 26
	drop := syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K} // return 0 bytes of the packet
	program := syscall.SockFprog{Len: 1, Filter: &drop}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_SETSOCKOPT, fd, syscall.SOL_SOCKET, soAttachFilter,
			uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0)
	}); err != nil {
		t.Fatal(err)
	}
	if errno != 0 {
		t.Fatal(errno)
	}
}

func TestAPeerThatAcknowledgesNothingIsTold(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	if err := c.SetUserTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	write(t, c, "heard")
	read(t, peer, "heard")
	eventually(t, "it is acknowledged", func() bool { return c.Unacknowledged() == 0 })
	vanish(t, peer)
	write(t, c, "unheard")
	start := time.Now()
	eventually(t, "the silence is seen", func() bool { return c.Unacknowledged() > 100*time.Millisecond })
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("after %v", took)
	}
}

// A stream that flows for a long time in one direction acknowledges nothing,
// for there is nothing to acknowledge; then the first packet the other way
// waits for its acknowledgement, as all do.
func TestAPeerThatHasJustSentSomethingIsNotSilent(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		<-tick.C
		write(t, peer, "news")
		read(t, c, "news")
	}
	vanish(t, peer)
	write(t, c, "a word at last")
	if d := c.Unacknowledged(); d > 200*time.Millisecond {
		t.Errorf("silent for %v, it says", d)
	}
}

// A closed window is probed, and the kernel at the other end answers only so
// many probes.
func TestAPeerThatOnlyDoesNotReadIsNotSilent(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	written := in(func() error { _, err := c.Write(make([]byte, 32<<20)); return err })
	eventually(t, "the write waits", func() bool { return c.Parks() > 0 })
	start := time.Now()
	eventually(t, "time passes", func() bool {
		if d := c.Unacknowledged(); d > 0 {
			t.Fatalf("silent for %v after %v", d, time.Since(start))
		}
		return time.Since(start) > 1200*time.Millisecond
	})
	_ = peer.Close()
	if await(t, "the write ends", written) == nil {
		t.Error("it succeeded")
	}
}

// probeSoon shortens the time between keep-alive probes, which it does not turn
// on: an accepted connection has them.
func probeSoon(t *testing.T, c *sock.Conn) {
	t.Helper()
	for _, o := range [...]int{syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT} {
		if err := syscall.SetsockoptInt(c.FD(), syscall.IPPROTO_TCP, o, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAClientThatHasVanishedIsFoundOut(t *testing.T) {
	t.Parallel()
	c, peer := acceptedQuiet(t)
	probeSoon(t, c)
	vanish(t, peer)
	read := in(func() error { _, err := c.Read(make([]byte, 1)); return err })
	if err := await(t, "the read ends", read); !sock.TimedOut(err) {
		t.Errorf("got %v", err)
	}
}

// C10: both clients have sent their end. One is there and waits; of the other
// its kernel has forgotten everything, and says so to a probe.
func TestAClientThatIsGoneIsToldFromOneThatHalfClosed(t *testing.T) {
	t.Parallel()
	there, waiting := acceptedQuiet(t)
	gone, closed := acceptedQuiet(t)
	raw, err := closed.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { // how long a closed socket waits for our end
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_LINGER2, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*sock.Conn{there, gone} {
		probeSoon(t, c)
	}
	if err := waiting.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	eventually(t, "both ends are seen", func() bool { return there.PeerGone() && gone.PeerGone() })
	eventually(t, "one is gone", gone.Broken)
	if there.Broken() {
		t.Error("the other is taken for gone")
	}
	write(t, there, "answer")
	read(t, waiting, "answer")
}
