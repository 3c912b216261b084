package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// What follows is the part of <linux/inet_diag.h>, <linux/sock_diag.h> and <linux/tcp.h> that is needed.
const (
	netlinkSockDiag  = 4  // NETLINK_SOCK_DIAG
	tcpDiagGetSock   = 18 // TCPDIAG_GETSOCK: both families in one go, unlike SOCK_DIAG_BY_FAMILY
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY: the kind of message that tells of a socket's end
	reqBytecode      = 1  // INET_DIAG_REQ_BYTECODE
	attributeInfo    = 2  // INET_DIAG_INFO
	destroyedTCPv4   = 1  // SKNLGRP_INET_TCP_DESTROY
	destroyedTCPv6   = 3  // SKNLGRP_INET6_TCP_DESTROY

	reqSize       = 60 // struct inet_diag_req
	msgSize       = 72 // struct inet_diag_msg
	attributeHead = 4  // struct nlattr
	timerWaiting  = 3  // idiag_timer of what is kept in TIME_WAIT, and in FIN_WAIT2 when its program has closed it

	// Where fields are in struct tcp_info: tcpi_rtt, since Linux 4.1 tcpi_bytes_acked, since 4.9 tcpi_min_rtt.
	infoRTT    = 68
	infoAcked  = 120
	infoMinRTT = 148

	diagTimeout  = 2                      // seconds, for an answer that the kernel gives at once
	watchTimeout = 200 * time.Millisecond // for something to end
	watchBuffer  = 4 << 20                // bytes, as many of them as the system allows
)

// Query asks for the TCP sockets of this network namespace, those of IPv4 and of IPv6. It needs no privilege.
type Query struct {
	// States are those that count: Bit(Established)|Bit(TimeWait).
	States uint32
	// Filter is a program for the kernel, as [PortFilter] and [OutsideFilter] make them; nil lets all pass.
	Filter []byte
	// Info asks for what [Socket.Informed] is about, too. The answer is five times as long then.
	Info bool
}

// Dump returns the sockets.
func (q Query) Dump() ([]Socket, error) {
	var found []Socket
	err := q.Walk(func(part []Socket) { found = append(found, part...) })
	return found, err
}

// Walk tells of what Dump returns part by part, for there may be tens of thousands. each does not keep a part.
func (q Query) Walk(each func(part []Socket)) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	timeout := syscall.Timeval{Sec: diagTimeout}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Sendto(fd, q.request(), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	var part []Socket
	buffer := make([]byte, 32<<10) // what the kernel fills at a time
	for {
		n, _, err := syscall.Recvfrom(fd, buffer, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		var done bool
		if part, done, err = parse(part[:0], buffer[:n]); err != nil {
			return err
		}
		each(part)
		if done {
			return nil
		}
	}
}

// request is the netlink message.
func (q Query) request() []byte {
	ne := binary.NativeEndian
	b := make([]byte, syscall.NLMSG_HDRLEN+reqSize, syscall.NLMSG_HDRLEN+reqSize+attributeHead+len(q.Filter))
	ne.PutUint16(b[4:], tcpDiagGetSock)
	ne.PutUint16(b[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	if q.Info {
		b[syscall.NLMSG_HDRLEN+3] = 1 << (attributeInfo - 1)
	}
	ne.PutUint32(b[syscall.NLMSG_HDRLEN+52:], q.States)
	if q.Filter != nil {
		b = ne.AppendUint16(b, uint16(attributeHead+len(q.Filter)))
		b = append(ne.AppendUint16(b, reqBytecode), q.Filter...)
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

// PortFilter is a program for the kernel that lets sockets pass whose remote port is one of these, which are in
// ascending order and at least one. A step compares and then goes yes bytes further, which fit one byte, or no bytes,
// which may be more; to arrive just at the end is to pass, to overshoot is not. So with ports in order:
//
//	port ≥ p0 ?   no: fail
//	port ≥ p0+1 ? no: pass
//	port ≥ p1 ?   no: fail
//	…
//	port ≤ pn ?   no: fail
func PortFilter(ports []uint16) []byte {
	const (
		remoteAtLeast = 4 // INET_DIAG_BC_D_GE
		remoteAtMost  = 5 // INET_DIAG_BC_D_LE
		step          = 8 // a struct inet_diag_bc_op with the comparison, and one with the port
	)
	size := 2 * step * len(ports)
	b := make([]byte, 0, size)
	add := func(code byte, port uint16, pass bool) {
		no := size - len(b)
		if !pass {
			no += 4
		}
		b = append(b, code, step)
		b = binary.NativeEndian.AppendUint16(b, uint16(no))
		b = append(b, 0, 0)
		b = binary.NativeEndian.AppendUint16(b, port)
	}
	for i, p := range ports {
		add(remoteAtLeast, p, false)
		if i < len(ports)-1 {
			add(remoteAtLeast, p+1, true)
		} else {
			add(remoteAtMost, p, false)
		}
	}
	return b
}

// OutsideFilter is a program for the kernel that lets sockets pass whose remote address is not on loopback. A step that
// says yes goes on to a jump, which leads beyond the end; one that says no skips that.
func OutsideFilter() []byte {
	const (
		jump        = 1 // INET_DIAG_BC_JMP
		remoteMatch = 8 // INET_DIAG_BC_D_COND
		op          = 4 // the size of a struct inet_diag_bc_op
		condition   = 8 // of a struct inet_diag_hostcond without the address
		anyPort     = ^uint32(0)
	)
	var b []byte
	loopbacks := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	rest := len(loopbacks)*(2*op+condition) + 4 + 16
	for _, p := range loopbacks {
		addr, family := p.Addr().AsSlice(), byte(syscall.AF_INET)
		if p.Addr().Is6() {
			family = syscall.AF_INET6
		}
		size := op + condition + len(addr)
		b = append(b, remoteMatch, byte(size))
		b = binary.NativeEndian.AppendUint16(b, uint16(size+op))
		b = append(b, family, byte(p.Bits()), 0, 0)
		b = binary.NativeEndian.AppendUint32(b, anyPort)
		b = append(b, addr...)
		rest -= size
		b = append(b, jump, op)
		b = binary.NativeEndian.AppendUint16(b, uint16(rest+op))
		rest -= op
	}
	return b
}

var errMessage = errors.New("sock_diag: a message that makes no sense")

// parse appends the sockets in a part of an answer to found, and reports whether it was the last part.
func parse(found []Socket, b []byte) (_ []Socket, done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= syscall.NLMSG_HDRLEN {
		size, kind := int(ne.Uint32(b)), ne.Uint16(b[4:])
		if size < syscall.NLMSG_HDRLEN || size > len(b) {
			return nil, false, errMessage
		}
		body := b[syscall.NLMSG_HDRLEN:size]
		b = b[min((size+3)&^3, len(b)):]
		switch {
		case kind == syscall.NLMSG_DONE:
			return found, true, nil
		case kind == syscall.NLMSG_ERROR && len(body) >= 4:
			return nil, false, fmt.Errorf("sock_diag: %w", syscall.Errno(-int32(ne.Uint32(body))))
		case (kind == tcpDiagGetSock || kind == sockDiagByFamily) && len(body) >= msgSize:
			found = append(found, parseSocket(body[:msgSize]))
			found[len(found)-1].inform(body[msgSize:])
		default:
			return nil, false, errMessage
		}
	}
	return found, false, nil
}

// parseSocket reads a struct inet_diag_msg.
func parseSocket(m []byte) Socket {
	addr := func(b []byte) netip.Addr {
		if m[0] == syscall.AF_INET {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b)).Unmap()
	}
	be, ne := binary.BigEndian, binary.NativeEndian
	return Socket{
		State: State(m[1]), Waiting: m[2] == timerWaiting,
		Src:    netip.AddrPortFrom(addr(m[8:24]), be.Uint16(m[4:])),
		Dst:    netip.AddrPortFrom(addr(m[24:40]), be.Uint16(m[6:])),
		Cookie: ne.Uint64(m[44:]),
		UID:    ne.Uint32(m[64:]),
		Inode:  ne.Uint32(m[68:]),
	}
}

// inform reads the attributes behind it, of which a struct tcp_info may be one. Older kernels have shorter ones.
func (s *Socket) inform(attributes []byte) {
	ne := binary.NativeEndian
	for len(attributes) >= attributeHead {
		size, kind := int(ne.Uint16(attributes)), ne.Uint16(attributes[2:])
		if size < attributeHead || size > len(attributes) {
			return
		}
		info := attributes[attributeHead:size]
		if kind == attributeInfo && len(info) >= infoAcked+8 {
			s.Informed = true
			s.Connected = ne.Uint64(info[infoAcked:]) > 0 // the SYN, at least
			s.RTT = time.Duration(ne.Uint32(info[infoRTT:])) * time.Microsecond
			if len(info) >= infoMinRTT+4 && s.RTT > 0 {
				s.RTT = time.Duration(ne.Uint32(info[infoMinRTT:])) * time.Microsecond
			}
		}
		attributes = attributes[min((size+3)&^3, len(attributes)):]
	}
}

// Watch hears of the sockets of this network namespace that end. The kernel tells of each, so that none is too short to
// be seen. It is for one goroutine.
type Watch struct {
	fd     int
	buffer []byte
}

// NewWatch begins to listen. It needs no privilege. The caller closes it when it has stopped reading.
func NewWatch() (*Watch, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, watchBuffer)
	timeout := syscall.NsecToTimeval(int64(watchTimeout))
	err = errors.Join(
		os.NewSyscallError("setsockopt", syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout)),
		os.NewSyscallError("bind", syscall.Bind(fd, &syscall.SockaddrNetlink{
			Family: syscall.AF_NETLINK, Groups: 1<<(destroyedTCPv4-1) | 1<<(destroyedTCPv6-1)})))
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	return &Watch{fd: fd, buffer: make([]byte, 32<<10)}, nil
}

// Next appends the sockets that have ended to found, after a fifth of a second at most, even if there were none. lost
// reports that there were more than the kernel could keep for it.
func (w *Watch) Next(found []Socket) (_ []Socket, lost bool, err error) {
	n, _, err := syscall.Recvfrom(w.fd, w.buffer, 0)
	switch err {
	case nil:
		found, _, err = parse(found, w.buffer[:n])
		return found, false, err
	case syscall.ENOBUFS:
		return found, true, nil
	case syscall.EAGAIN, syscall.EINTR:
		return found, false, nil
	}
	return found, false, os.NewSyscallError("recvfrom", err)
}

// Close ends it. Next must not be running, nor be called again.
func (w *Watch) Close() { _ = syscall.Close(w.fd) }
