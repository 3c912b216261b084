// Package sockdiag asks Linux for the TCP sockets of a network namespace, by netlink: how ss does it, without a
// privilege. On other systems only its types are there.
package sockdiag

import (
	"net/netip"
	"time"
)

// State is what a TCP socket is in, as Linux numbers them.
type State uint8

// The states that are asked for.
const (
	Established State = 1
	SynSent     State = 2
	TimeWait    State = 6
	Closed      State = 7 // of a socket that has ended
	Listen      State = 10
)

// Any are all states that a socket can be found in.
const Any = 1<<12 - 1&^(1<<Closed)

// Bit is the state among others in [Query.States].
func Bit(s State) uint32 { return 1 << s }

// Socket is what is known of one.
type Socket struct {
	Src, Dst netip.AddrPort // IPv4 as such, also on sockets of the other family
	State    State
	// Waiting reports whether it was closed here and only its ends are kept, until the peer has closed too and then for a
	// minute. Most are in TIME_WAIT.
	Waiting bool
	UID     uint32 // who opened it; 0 if it is waiting
	Inode   uint32 // what it is called in /proc/PID/fd; 0 if no process has it open
	// Cookie is another one for each socket. One that is waiting has another than it had before.
	Cookie uint64

	// Informed reports whether the kernel has told what follows. It does not of sockets that are waiting.
	Informed bool
	// RTT is the shortest round trip that TCP has measured, or before Linux 4.9 an average of them: what a handshake takes.
	// 0: none was measured.
	RTT time.Duration
	// Connected reports whether the peer has acknowledged anything: an attempt that was refused has not come so far.
	Connected bool
}
