package sock_test

import (
	"net"
	"syscall"
	"testing"
	"time"
	"unsafe"
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
