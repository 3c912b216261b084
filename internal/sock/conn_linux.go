package sock

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Conn is a TCP connection. It implements Stream.
//
// An accepted Conn starts unregistered: the netpoller does not know it, and it
// costs no epoll_ctl unless it has to wait. While unregistered it belongs to
// one goroutine, which is the only one that may call any method. Whoever wants
// to use it from two goroutines calls Register first.
type Conn struct {
	fd   int // -1 when closed
	file interface {
		io.Closer
		SetDeadline(time.Time) error
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
	} // nil while unregistered
	raw syscall.RawConn
	// registered is set with file, for Interrupt, which comes from elsewhere.
	registered atomic.Bool
	// parks counts how often a read or a write found that it has to wait.
	parks atomic.Uint32

	in  reader
	out writer

	// Bound once per Conn and kept when it is reused: a method value allocates.
	onReadable, onWritable func(uintptr) bool
}

// reader is the state of the one read under way.
type reader struct {
	buf    *Buffer
	p      []byte // instead of buf
	n      int
	err    error
	credit credit
}

// writer is the state of the one write under way.
type writer struct {
	a, b   []byte
	n      int
	err    error
	credit credit
}

// FromTCP returns c as a Conn. c must not be used afterwards.
func FromTCP(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Conn{file: c, raw: raw}
	if err := raw.Control(func(fd uintptr) { s.fd = int(fd) }); err != nil {
		return nil, err
	}
	s.registered.Store(true)
	s.bind()
	return s, nil
}

func (c *Conn) bind() {
	if c.onReadable == nil {
		c.onReadable, c.onWritable = c.readable, c.writable
	}
}

// reset makes c the owner of fd, a fresh unregistered socket.
func (c *Conn) reset(fd int) {
	c.bind()
	*c = Conn{fd: fd, onReadable: c.onReadable, onWritable: c.onWritable}
}

// Register hands the socket to the netpoller, so that it can wait, have
// deadlines, and be used by a reader and a writer at once.
func (c *Conn) Register() error {
	if c.file != nil {
		return nil
	}
	if c.fd < 0 {
		return net.ErrClosed
	}
	f := os.NewFile(uintptr(c.fd), "")
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	c.file, c.raw = f, raw
	c.registered.Store(true)
	return nil
}

// Interrupt makes reads and writes fail, those under way as well as later
// ones, and reports true; or false while the connection is unregistered and so
// nobody can be waiting on it. It may be called from any goroutine as long as
// nobody closes c meanwhile.
func (c *Conn) Interrupt() bool {
	if !c.registered.Load() {
		return false
	}
	_ = c.file.SetDeadline(time.Unix(1, 0))
	return true
}

// Fill implements Stream.
func (c *Conn) Fill(b *Buffer) error {
	if b.Free() == 0 { // the kernel would answer 0, which is the end of the stream
		return ErrFull
	}
	c.in.buf = b
	err := c.read()
	c.in.buf = nil
	return err
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.p = p
	err := c.read()
	c.in.p = nil
	if err != nil {
		return 0, err
	}
	return c.in.n, nil
}

func (c *Conn) read() error {
	if c.in.credit.spent(c.parks.Load()) {
		c.takeTurn()
	}
	if c.file == nil {
		if c.fd < 0 {
			return net.ErrClosed
		}
		if c.readable(uintptr(c.fd)) {
			return c.in.err
		}
		if err := c.Register(); err != nil {
			return err
		}
	}
	if err := c.raw.Read(c.onReadable); err != nil {
		return err
	}
	return c.in.err
}

// readable is the netpoller's callback: it tries to read, and says false to be
// called again when there is something. Memory is taken here and not before,
// so that a parked connection holds none.
func (c *Conn) readable(fd uintptr) bool {
	in := &c.in
	p := in.p
	if in.buf != nil {
		p = in.buf.space()
	}
	n, errno := sysRead(fd, p)
	if errno == syscall.EAGAIN {
		if in.buf != nil {
			in.buf.idle()
		}
		c.parks.Add(1)
		return false
	}
	in.credit.use(n)
	in.n, in.err = n, nil
	switch {
	case errno != 0:
		in.err = os.NewSyscallError("read", errno)
	case n == 0:
		in.err = io.EOF
	case in.buf != nil:
		in.buf.w += n
	}
	if in.err != nil && in.buf != nil {
		in.buf.idle()
	}
	return true
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.Writev(p, nil) }

// Writev implements Stream.
func (c *Conn) Writev(a, b []byte) (int, error) {
	out := &c.out
	out.a, out.b, out.n, out.err = a, b, 0, nil
	err := c.write()
	out.a, out.b = nil, nil
	if err == nil {
		err = out.err
	}
	return out.n, err
}

// takeTurn parks when credit is used up.
func (c *Conn) takeTurn() {
	takeTurn()
	c.parks.Add(1)
}

func (c *Conn) write() error {
	if c.out.credit.spent(c.parks.Load()) {
		c.takeTurn()
	}
	if c.file == nil {
		if c.fd < 0 {
			return net.ErrClosed
		}
		if c.writable(uintptr(c.fd)) {
			return nil
		}
		if err := c.Register(); err != nil {
			return err
		}
	}
	return c.raw.Write(c.onWritable)
}

func (c *Conn) writable(fd uintptr) bool {
	out := &c.out
	for len(out.a)+len(out.b) > 0 {
		n, errno := sysWrite(fd, out.a, out.b)
		if errno == syscall.EAGAIN {
			c.parks.Add(1)
			return false
		}
		if errno != 0 {
			out.err = os.NewSyscallError("write", errno)
			return true
		}
		out.credit.use(n)
		out.n += n
		k := min(n, len(out.a))
		out.a, out.b = out.a[k:], out.b[n-k:]
	}
	return true
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	fd := c.fd
	c.fd = -1
	if c.file != nil {
		return c.file.Close()
	}
	return sysClose(fd)
}

// Abort closes the connection so that the peer sees a reset, not an end.
func (c *Conn) Abort() error {
	if c.fd >= 0 {
		_ = syscall.SetsockoptLinger(c.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	}
	return c.Close()
}

// CloseWrite implements Stream.
func (c *Conn) CloseWrite() error { return c.shutdown(syscall.SHUT_WR) }

// CloseRead implements Stream.
func (c *Conn) CloseRead() error { return c.shutdown(syscall.SHUT_RD) }

func (c *Conn) shutdown(how int) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", syscall.Shutdown(c.fd, how))
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.Register(); err != nil {
		return err
	}
	return c.file.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if err := c.Register(); err != nil {
		return err
	}
	return c.file.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if err := c.Register(); err != nil {
		return err
	}
	return c.file.SetWriteDeadline(t)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return tcpAddr(syscall.Getsockname(c.fd)) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return tcpAddr(syscall.Getpeername(c.fd)) }

func tcpAddr(sa syscall.Sockaddr, err error) net.Addr {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)))
	case *syscall.SockaddrInet6:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)))
	}
	return &net.TCPAddr{}
}

// Pending reports what waits to be read without reading it and without
// waiting: nothing (false, nil), bytes (true, nil), or the end: io.EOF or the
// socket's error. The caller owns c: nobody reads or closes it meanwhile.
func (c *Conn) Pending() (bool, error) {
	var b [1]byte
	n, errno := sysPeek(c.fd, &b)
	switch {
	case errno == syscall.EAGAIN:
		return false, nil
	case errno != 0:
		return false, os.NewSyscallError("recv", errno)
	case n == 0:
		return false, io.EOF
	}
	return true, nil
}

// ReadNow is Read that does not wait: the error is os.ErrDeadlineExceeded if nothing
// is there. The caller owns c, as with Pending, but for writes.
func (c *Conn) ReadNow(p []byte) (int, error) {
	n, errno := sysRead(uintptr(c.fd), p)
	switch {
	case errno == syscall.EAGAIN:
		return 0, os.ErrDeadlineExceeded
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	c.in.credit.use(n)
	return n, nil
}

// PeerGone reports whether the peer has closed or reset the connection, even
// if bytes it sent before are still unread. The caller sees to it that nobody
// closes c meanwhile; reading and writing may go on.
func (c *Conn) PeerGone() bool {
	p := pollFd{fd: int32(c.fd), events: pollRDHUP}
	return sysPoll(&p) == 1 && p.revents&(pollRDHUP|pollHUP|pollERR) != 0
}

// Broken reports whether the connection has ended before its time: reset by the peer, or
// given up by the kernel. One that both sides have ended is not broken: what has come
// may still have to be read. The caller sees to it that nobody closes c meanwhile;
// reading and writing may go on.
func (c *Conn) Broken() bool {
	p := pollFd{fd: int32(c.fd)} // errors are told unasked, and hang-ups, which ends on both sides are too
	return sysPoll(&p) == 1 && p.revents&pollERR != 0
}

// SetDeadTimeout bounds how long the connection outlives a peer that no
// longer answers at all: unacknowledged data (TCP_USER_TIMEOUT) and, on an
// idle connection, keep-alive probes.
func (c *Conn) SetDeadTimeout(d time.Duration) error {
	const probes = 3
	d = min(d, 24*time.Hour) // TCP_KEEPIDLE takes no more than 9 hours
	interval := max(int(d.Seconds())/(probes+1), 1)
	for _, o := range [...]struct{ level, name, value int }{
		{syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds())},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, interval},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, interval},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, probes},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	} {
		if err := syscall.SetsockoptInt(c.fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// SetUserTimeout bounds how long sent data may stay unacknowledged, or, and this
// is not told apart, unaccepted because the peer's window is closed
// (TCP_USER_TIMEOUT). 0 is the system's limit.
func (c *Conn) SetUserTimeout(d time.Duration) error {
	return os.NewSyscallError("setsockopt",
		syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds())))
}

// Unacknowledged returns for how long the peer has acknowledged nothing, although
// data was sent again or its closed window was probed more than once since; 0
// otherwise. A peer that is only slow to read answers each probe, however far
// apart they are. The caller sees to it that nobody closes c meanwhile.
func (c *Conn) Unacknowledged() time.Duration {
	var info syscall.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(c.fd), syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	// One packet without an answer means nothing: it may be lost or still on its
	// way, and kernels answer only so many probes of a closed window.
	if errno != 0 || int(info.Retransmits)+int(info.Probes) < 2 {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}

const (
	tcpUserTimeout = 18
	pollERR        = 0x8
	pollHUP        = 0x10
	pollRDHUP      = 0x2000
)

type pollFd struct {
	fd              int32
	events, revents int16
}

var noWait syscall.Timespec

// sysPoll asks about one descriptor without waiting.
func sysPoll(p *pollFd) int {
	// The kernel writes the rest of the time back, so it gets a copy.
	t := noWait
	n, _, _ := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	return int(n)
}

func sysPeek(fd int, b *[1]byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(b)), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
