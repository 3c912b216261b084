package sockdiag

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
)

// ParseProc reads /proc/net/tcp or /proc/net/tcp6: what there is to know where netlink is refused. Cookie is then the
// inode, which a socket has until its program closes it; nothing is informed.
func ParseProc(text []byte) ([]Socket, error) {
	var found []Socket
	number := 0
	for line := range bytes.Lines(text) {
		number++
		fields := bytes.Fields(line)
		if number == 1 || len(fields) == 0 {
			continue // the headings
		}
		s, ok := parseProcLine(fields)
		if !ok {
			return nil, fmt.Errorf("line %d of /proc/net/tcp makes no sense: %q", number, bytes.TrimSpace(line))
		}
		found = append(found, s)
	}
	return found, nil
}

// parseProcLine reads "0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 UID 0 INODE …".
func parseProcLine(fields [][]byte) (s Socket, ok bool) {
	if len(fields) < 10 {
		return s, false
	}
	src, ok1 := parseProcAddr(fields[1])
	dst, ok2 := parseProcAddr(fields[2])
	state, err1 := strconv.ParseUint(string(fields[3]), 16, 8)
	uid, err2 := strconv.ParseUint(string(fields[7]), 10, 32)
	inode, err3 := strconv.ParseUint(string(fields[9]), 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil {
		return s, false
	}
	waiting := bytes.HasPrefix(fields[5], []byte("03:"))
	return Socket{Src: src, Dst: dst, State: State(state), Waiting: waiting, UID: uint32(uid), Inode: uint32(inode), Cookie: inode}, true
}

// parseProcAddr reads an address, which is written as numbers of 32 bits in the machine's own order, and a port.
func parseProcAddr(text []byte) (netip.AddrPort, bool) {
	host, port, ok := bytes.Cut(text, []byte(":"))
	var raw [16]byte
	n := hex.DecodedLen(len(host))
	if !ok || n != 4 && n != 16 {
		return netip.AddrPort{}, false
	}
	if _, err := hex.Decode(raw[:], host); err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < n; i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw[:n])
	p, err := strconv.ParseUint(string(port), 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), err == nil
}
