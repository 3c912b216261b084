//go:build unix && !linux

package sock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Conn is a TCP connection. It implements Stream. Here it is a plain
// net.TCPConn: the raw system calls of conn_linux.go save what only Linux
// costs.
type Conn struct{ *net.TCPConn }

// FromTCP returns c as a Conn.
func FromTCP(c *net.TCPConn) (*Conn, error) { return &Conn{c}, nil }

// Register does nothing here.
func (c *Conn) Register() error { return nil }

// Interrupt makes reads and writes fail, those under way as well as later ones.
func (c *Conn) Interrupt() bool { return c.SetDeadline(time.Unix(1, 0)) == nil }

// Fill implements Stream.
func (c *Conn) Fill(b *Buffer) error {
	p := b.space()
	if len(p) == 0 {
		return ErrFull
	}
	n, err := c.Read(p)
	b.w += n
	if n > 0 {
		return nil
	}
	b.idle()
	return err
}

// Writev implements Stream.
func (c *Conn) Writev(a, b []byte) (int, error) { return writeBoth(c.TCPConn, a, b) }

// Abort closes the connection so that the peer sees a reset, not an end.
func (c *Conn) Abort() error {
	_ = c.SetLinger(0)
	return c.Close()
}

// Pending reports what waits to be read without reading it and without
// waiting: nothing (false, nil), bytes (true, nil), or the end: io.EOF or the
// socket's error.
func (c *Conn) Pending() (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var n int
	var peekErr error
	if err := raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}); err != nil {
		return false, err
	}
	switch {
	case errors.Is(peekErr, syscall.EAGAIN):
		return false, nil
	case peekErr != nil:
		return false, os.NewSyscallError("recv", peekErr)
	case n == 0:
		return false, io.EOF
	}
	return true, nil
}

// ReadNow is Read that does not wait: the error is os.ErrDeadlineExceeded if nothing
// is there.
func (c *Conn) ReadNow(p []byte) (int, error) {
	if pending, err := c.Pending(); err == nil && !pending {
		return 0, os.ErrDeadlineExceeded
	}
	return c.Read(p)
}

// PeerGone reports whether the peer has closed or reset the connection and
// nothing is left to read.
func (c *Conn) PeerGone() bool {
	_, err := c.Pending()
	return err != nil
}

// Broken is not known here.
func (c *Conn) Broken() bool { return false }

// SetDeadTimeout bounds how long an idle connection outlives a peer that no
// longer answers.
func (c *Conn) SetDeadTimeout(d time.Duration) error {
	const probes = 3
	interval := max(d/(probes+1), time.Second)
	return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: interval, Interval: interval, Count: probes})
}

// SetUserTimeout does nothing here.
func (c *Conn) SetUserTimeout(d time.Duration) error { return nil }

// Unacknowledged is not known here.
func (c *Conn) Unacknowledged() time.Duration { return 0 }

// Splice is not to be had here.
func Splice(dst, src *Conn, moved func()) (n int64, err error) { return 0, ErrNoSplice }

// SpliceDescriptors is how many descriptors Splice takes.
const SpliceDescriptors = 0

// Listener accepts connections on a TCP address.
type Listener struct{ *net.TCPListener }

// Listen announces a TCP address such as 127.0.0.1:3128; port 0 picks one.
func Listen(ctx context.Context, address string) (*Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes}}
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Listener{ln.(*net.TCPListener)}, nil
}

// Accept waits for the next connection and makes c its owner.
func (l *Listener) Accept(c *Conn) error {
	t, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	c.TCPConn = t
	return nil
}

// Watcher notices what happens on connections that nobody reads; not here.
type Watcher struct{}

// CanWatch says whether Watcher works here; where it does not, hang-ups are
// found by Conn.Pending.
const CanWatch = false

// NewWatcher returns a Watcher that never calls wake.
func NewWatcher(wake func(id uint64)) (*Watcher, error) { return &Watcher{}, nil }

// Add does nothing here.
func (w *Watcher) Add(c *Conn, id uint64) error { return nil }

// Arm is not to be used here.
func (w *Watcher) Arm(c *Conn, id uint64) error { return errors.ErrUnsupported }

// Close does nothing here.
func (w *Watcher) Close() error { return nil }

var _ io.Closer = (*Watcher)(nil)
