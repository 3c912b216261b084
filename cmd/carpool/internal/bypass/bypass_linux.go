package bypass

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

func (d *Detector) look() Snapshot {
	s := Snapshot{Taken: time.Now(), Sockets: sockets()}
	if len(d.ports) == 0 {
		return s
	}
	found, err := d.foreign()
	if err != nil {
		s.Err = err
		return s
	}
	ended, outside, err := d.ended()
	if err != nil {
		s.Err = err
		return s
	}
	s.Sockets.Outside = outside
	own := d.own.lately(time.Now()) // behind the look: what was closed meanwhile counts
	s.Ports, s.Destinations = d.report(found, ended, own)
	return s
}

// sockets reads the figures that the kernel keeps for the network namespace: one number each, however many sockets
// there are.
func sockets() Sockets {
	v4, ok := sockstat("/proc/net/sockstat", "TCP:")
	low, high, ok2 := portRange()
	if !ok || !ok2 {
		return Sockets{Outside: -1}
	}
	v6, _ := sockstat("/proc/net/sockstat6", "TCP6:") // there is none without IPv6
	return Sockets{Known: true, InUse: v4["inuse"] + v6["inuse"], TimeWait: v4["tw"], Outside: -1, EphemeralPorts: high - low + 1}
}

// sockstat reads one line of a file of the form "TCP: inuse 7 orphan 0 tw 12".
func sockstat(file, line string) (map[string]int, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, false
	}
	for l := range strings.Lines(string(text)) {
		fields := strings.Fields(l)
		if len(fields) == 0 || fields[0] != line {
			continue
		}
		values := map[string]int{}
		for pair := range slices.Chunk(fields[1:], 2) {
			n, err := strconv.Atoi(pair[len(pair)-1])
			if err != nil {
				return nil, false
			}
			values[pair[0]] = n
		}
		return values, true
	}
	return nil, false
}

func portRange() (low, high int, ok bool) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0, 0, false
	}
	low, err = strconv.Atoi(fields[0])
	if err != nil {
		return 0, 0, false
	}
	high, err = strconv.Atoi(fields[1])
	return low, high, err == nil && low <= high
}

// foreign returns where connections lead that carpool could have carried and did not open.
func (d *Detector) foreign() ([]netip.AddrPort, error) {
	found, err := d.candidates()
	if err == nil {
		found, err = d.withoutOwn(found)
	}
	if err == nil {
		found, err = withoutInbound(found)
	}
	to := make([]netip.AddrPort, len(found))
	for i, c := range found {
		to[i] = c.Dst
	}
	return to, err
}

// candidates are the connections to the ports, carpool's own included, other than those that are none of its business:
// to the pod itself, and to what it would refuse to connect to.
func (d *Detector) candidates() ([]sockdiag.Socket, error) {
	all, err := sockdiag.Query{States: sockdiag.Bit(sockdiag.Established) | sockdiag.Bit(sockdiag.SynSent), Filter: sockdiag.PortFilter(d.ports)}.Dump()
	return slices.DeleteFunc(all, func(c sockdiag.Socket) bool {
		// Without an inode it is nobody's: given up, or not accepted yet and so inbound.
		return c.Inode == 0 || c.Src.Addr() == c.Dst.Addr() || policy.Addr(c.Dst.Addr(), false) != nil ||
			!slices.Contains(d.ports, c.Dst.Port())
	}), err
}

// ended counts the connections in TIME_WAIT that the pod had opened to other hosts: those to the ports by where they led,
// carpool's own included, and all of them.
func (d *Detector) ended() (to map[netip.AddrPort]int, all int, err error) {
	served, err := servedPorts()
	if err != nil {
		return nil, 0, err
	}
	to = map[netip.AddrPort]int{}
	err = sockdiag.Query{States: sockdiag.Bit(sockdiag.TimeWait), Filter: sockdiag.OutsideFilter()}.Walk(func(part []sockdiag.Socket) {
		for _, c := range part {
			if served[c.Src.Port()] || c.Src.Addr() == c.Dst.Addr() {
				continue
			}
			all++
			if slices.Contains(d.ports, c.Dst.Port()) && policy.Addr(c.Dst.Addr(), false) == nil {
				to[c.Dst]++
			}
		}
	})
	return to, all, err
}

// withoutOwn drops carpool's own connections. A socket of another user is not carpool's. One of the same user, which an
// app may well have, is compared with the sockets that this process has open. What is neither among them nor there any
// more a moment later may have been closed by carpool just between the two looks, and is dropped too.
func (d *Detector) withoutOwn(found []sockdiag.Socket) ([]sockdiag.Socket, error) {
	uid := uint32(os.Geteuid())
	mayBeOwn := func(c sockdiag.Socket) bool { return c.UID == uid }
	if !slices.ContainsFunc(found, mayBeOwn) {
		return found, nil
	}
	own, err := openSockets()
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(c sockdiag.Socket) bool { return mayBeOwn(c) && own[c.Inode] })
	if !slices.ContainsFunc(found, mayBeOwn) {
		return found, nil
	}
	later, err := d.candidates()
	there := map[uint32]bool{}
	for _, c := range later {
		there[c.Inode] = true
	}
	return slices.DeleteFunc(found, func(c sockdiag.Socket) bool { return mayBeOwn(c) && !there[c.Inode] }), err
}

// withoutInbound drops connections that a server in the pod has accepted from a peer whose own port happens to be one
// of those looked at.
func withoutInbound(found []sockdiag.Socket) ([]sockdiag.Socket, error) {
	if len(found) == 0 {
		return nil, nil
	}
	served, err := servedPorts()
	return slices.DeleteFunc(found, func(c sockdiag.Socket) bool { return served[c.Src.Port()] }), err
}

// servedPorts are the ports that somebody in the pod listens on.
func servedPorts() (map[uint16]bool, error) {
	listeners, err := sockdiag.Query{States: sockdiag.Bit(sockdiag.Listen)}.Dump()
	served := map[uint16]bool{}
	for _, l := range listeners {
		served[l.Src.Port()] = true
	}
	return served, err
}

// openSockets are the inodes of the sockets this process has open, cut off as sock_diag cuts them off. To ask for each
// number that may be a descriptor costs a fraction of listing /proc/self/fd, where the kernel makes up a file for each.
func openSockets() (map[uint32]bool, error) {
	numbers, err := descriptorNumbers()
	if err != nil {
		return nil, err
	}
	inodes := map[uint32]bool{}
	var st syscall.Stat_t
	for fd := range numbers {
		if syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
			inodes[uint32(st.Ino)] = true
		}
	}
	return inodes, nil
}

// descriptorNumbers is a number that all descriptors of this process are below: the size of the kernel's table of them.
func descriptorNumbers() (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nFDSize:")
	size, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(strings.TrimSpace(size))
}
