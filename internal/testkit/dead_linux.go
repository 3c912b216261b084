package testkit

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// Vanish makes a connection deaf and dumb without ending it, as the other end of
// one to a lost node is: its kernel drops whatever arrives, unacknowledged.
func Vanish(t testing.TB, c syscall.Conn) {
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

// Blackhole makes an IPv4 address answer nothing until the test ends: there
// listens a socket whose backlog is full, so that the kernel drops what comes.
func Blackhole(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Timeout: 100 * time.Millisecond}
	for {
		c, err := d.DialContext(t.Context(), "tcp", addr.String())
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}
