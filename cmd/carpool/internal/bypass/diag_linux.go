package bypass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// What follows is the part of <linux/inet_diag.h> and <linux/sock_diag.h> that is needed: a request for the TCP sockets
// in some states that pass a filter, of both address families. It is how ss asks, and needs no privilege.

const (
	netlinkSockDiag = 4  // NETLINK_SOCK_DIAG
	tcpDiagGetSock  = 18 // TCPDIAG_GETSOCK: both families in one go, unlike SOCK_DIAG_BY_FAMILY
	reqBytecode     = 1  // INET_DIAG_REQ_BYTECODE

	// States, as bits.
	established = 1 << 1
	synSent     = 1 << 2
	timeWaiting = 1 << 6
	listening   = 1 << 10

	reqSize = 60 // struct inet_diag_req
	msgSize = 72 // struct inet_diag_msg

	diagTimeout = 2 // seconds, for an answer that the kernel gives at once
)

// conn is what is known of a socket.
type conn struct {
	src, dst netip.AddrPort // IPv4 as such, also on sockets of the other family
	uid      uint32         // who opened it
	inode    uint32         // what it is called in /proc/PID/fd; 0 if no process has it open
}

// dump returns the TCP sockets of this network namespace that are in one of these states and pass the filter.
func dump(states uint32, filter []byte) ([]conn, error) {
	var found []conn
	err := walk(states, filter, func(part []conn) { found = append(found, part...) })
	return found, err
}

// walk tells of what dump returns part by part, for there may be tens of thousands. each does not keep a part.
func walk(states uint32, filter []byte, each func(part []conn)) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	timeout := syscall.Timeval{Sec: diagTimeout}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Sendto(fd, request(states, filter), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	var part []conn
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

// request is a netlink message that asks for sockets.
func request(states uint32, filter []byte) []byte {
	ne := binary.NativeEndian
	b := make([]byte, syscall.NLMSG_HDRLEN+reqSize, syscall.NLMSG_HDRLEN+reqSize+4+len(filter))
	ne.PutUint16(b[4:], tcpDiagGetSock)
	ne.PutUint16(b[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	ne.PutUint32(b[syscall.NLMSG_HDRLEN+52:], states)
	if filter != nil {
		b = ne.AppendUint16(b, uint16(4+len(filter)))
		b = append(ne.AppendUint16(b, reqBytecode), filter...)
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

// portFilter is a program for the kernel that lets sockets pass whose remote port is one of these, which are in
// ascending order and at least one. A step compares and then goes yes bytes further, which fit one byte, or no bytes,
// which may be more; to arrive just at the end is to pass, to overshoot is not. So with ports in order:
//
//	port ≥ p0 ?   no: fail
//	port ≥ p0+1 ? no: pass
//	port ≥ p1 ?   no: fail
//	…
//	port ≤ pn ?   no: fail
func portFilter(ports []uint16) []byte {
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

// outsideFilter is a program for the kernel that lets sockets pass whose remote address is not on loopback. A step that
// says yes goes on to a jump, which leads beyond the end; one that says no skips that.
func outsideFilter() []byte {
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
func parse(found []conn, b []byte) (_ []conn, done bool, err error) {
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
		case kind == tcpDiagGetSock && len(body) >= msgSize:
			found = append(found, parseConn(body))
		default:
			return nil, false, errMessage
		}
	}
	return found, false, nil
}

// parseConn reads a struct inet_diag_msg.
func parseConn(m []byte) conn {
	addr := func(b []byte) netip.Addr {
		if m[0] == syscall.AF_INET {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b)).Unmap()
	}
	be, ne := binary.BigEndian, binary.NativeEndian
	return conn{
		src:   netip.AddrPortFrom(addr(m[8:24]), be.Uint16(m[4:])),
		dst:   netip.AddrPortFrom(addr(m[24:40]), be.Uint16(m[6:])),
		uid:   ne.Uint32(m[64:]),
		inode: ne.Uint32(m[68:]),
	}
}
