package sock

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// Listener accepts connections on a TCP address. Accept is for one goroutine;
// Close may come from another.
type Listener struct {
	file   *os.File
	raw    syscall.RawConn
	addr   net.Addr
	closed atomic.Bool

	accepted int
	errno    syscall.Errno
	try      func(uintptr) bool
}

// Listen announces a TCP address such as 127.0.0.1:3128; port 0 picks one.
func Listen(ctx context.Context, address string) (*Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		return setListenOptions(c)
	}}
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	// The net package gives no raw Accept, so the listening socket lives on
	// under a descriptor of our own.
	l := &Listener{addr: ln.Addr()}
	sc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := sc.Control(func(s uintptr) { fd, dupErr = dup(int(s)) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("dup", dupErr)
	}
	l.file = os.NewFile(uintptr(fd), "listener")
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, err
	}
	l.try = l.tryAccept
	return l, nil
}

func dup(fd int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// setListenOptions sets what accepted sockets inherit, so that it costs them no
// call, or what spares them a wait: TCP_NODELAY; keep-alive probes, which find
// out clients that have vanished or that are gone altogether behind their end;
// and TCP_DEFER_ACCEPT, by which a connection is accepted when its first bytes
// are there, so that the first read succeeds at once.
func setListenOptions(c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		for _, o := range [...]struct{ level, name, value int }{
			{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			{syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(probeAfter.Seconds())},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(probeEvery.Seconds())},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, probes},
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		} {
			if err = syscall.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
				return
			}
		}
	})
	if control != nil {
		return control
	}
	return os.NewSyscallError("setsockopt", err)
}

// Accept waits for the next connection and makes c its owner. c may be one
// that was closed before. The error is net.ErrClosed after Close; others, such
// as a lack of descriptors, may pass (see Exhausted).
func (l *Listener) Accept(c *Conn) error {
	if err := l.raw.Read(l.try); err != nil {
		if l.closed.Load() {
			return net.ErrClosed // os has no name for its own
		}
		return err
	}
	if l.errno != 0 {
		return os.NewSyscallError("accept4", l.errno)
	}
	c.reset(l.accepted)
	return nil
}

func (l *Listener) tryAccept(fd uintptr) bool {
	for {
		l.accepted, l.errno = sysAccept(fd)
		switch l.errno {
		case syscall.EAGAIN:
			return false
		case syscall.EINTR, syscall.ECONNABORTED: // that one is gone: the next
		default:
			return true
		}
	}
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close stops listening; connections not yet accepted are reset.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}
