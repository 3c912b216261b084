// Package sock has the system calls of load and upstream, which run beside the proxy under test and must not be what
// limits it.
//
// Calls on non-blocking sockets return at once, and the wait for events is each process's only business, so all of them
// are raw: the runtime is not told, and its monitor thread stays asleep. A process that uses this package runs one
// goroutine while it measures.
package sock

import (
	"net/netip"
	"syscall"
	"unsafe"
)

const (
	sysEpollPwait2 = 441 // the same on every architecture; Linux 5.11
	edgeTriggered  = 1 << 31

	// In, Out and Ended are the events of a socket: bytes to read, room to write, the peer has ended its side or the
	// connection has failed.
	In    = syscall.EPOLLIN
	Out   = syscall.EPOLLOUT
	Ended = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
)

// Listen returns a non-blocking socket that listens at the address.
func Listen(at netip.AddrPort, backlog int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, option := range [][2]int{{syscall.SOL_SOCKET, syscall.SO_REUSEADDR}, {syscall.IPPROTO_TCP, syscall.TCP_NODELAY}} {
		if err := syscall.SetsockoptInt(fd, option[0], option[1], 1); err != nil {
			return -1, err
		}
	}
	if err := syscall.Bind(fd, address(at)); err != nil {
		return -1, err
	}
	return fd, syscall.Listen(fd, backlog)
}

func address(at netip.AddrPort) *syscall.SockaddrInet4 {
	return &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
}

// Accept takes a connection, which has its listener's TCP_NODELAY. The error is EAGAIN when there is none.
func Accept(listener int) (int, syscall.Errno) {
	fd, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(listener), 0, 0,
		syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	return int(fd), e
}

// Connect begins a connection; writes fail with EAGAIN until it stands. from is the source address; the zero one
// leaves it to the kernel.
func Connect(to netip.AddrPort, from netip.Addr) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err == nil && from.IsValid() {
		const bindAddressNoPort = 24 // the port is chosen by connect, when the other end is known
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1)
		err = syscall.Bind(fd, address(netip.AddrPortFrom(from, 0)))
	}
	if err == nil {
		err = syscall.Connect(fd, address(to))
	}
	if err != nil && err != syscall.EINPROGRESS {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

// Read reads what is there; 0 bytes without an error are the end.
func Read(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// Write writes the beginning of first and second, of which first is not empty, in one go.
func Write(fd int, first, second []byte) (int, syscall.Errno) {
	var parts [2]syscall.Iovec
	parts[0].Base = &first[0]
	parts[0].SetLen(len(first))
	count := 1
	if len(second) > 0 {
		parts[1].Base = &second[0]
		parts[1].SetLen(len(second))
		count = 2
	}
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&parts[0])), uintptr(count))
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// Close closes a socket.
func Close(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// A Poll waits for events of sockets.
type Poll struct {
	fd     int
	events [512]syscall.EpollEvent
}

// NewPoll returns a Poll of no sockets.
func NewPoll() (*Poll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	return &Poll{fd: fd}, err
}

// Add watches a socket until it is closed. Each event is told once, so its reader reads until nothing is left.
func (p *Poll) Add(fd int) error {
	event := syscall.EpollEvent{Events: In | Out | syscall.EPOLLRDHUP | edgeTriggered, Fd: int32(fd)}
	_, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), syscall.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// Wait returns the next events, none after so many nanoseconds; less than 0 waits for ever. The slice is good until
// the next call.
func (p *Poll) Wait(nanoseconds int64) ([]syscall.EpollEvent, error) {
	var timeout *syscall.Timespec
	if nanoseconds >= 0 {
		t := syscall.NsecToTimespec(nanoseconds)
		timeout = &t
	}
	n, _, e := syscall.RawSyscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	switch e {
	case 0:
		return p.events[:n], nil
	case syscall.EINTR:
		return nil, nil
	}
	return nil, e
}
