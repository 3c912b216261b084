package sock_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// An urgent byte is where splice(2) does not get past: what follows is left to reads,
// also where the end has come behind it.
func TestSpliceLeavesUrgentBytesToReads(t *testing.T) {
	for name, end := range map[string]bool{"more may come": false, "the end has come": true} {
		t.Run(name, func(t *testing.T) {
			dst, src, from, to := splicer(t)
			urgent := func() { send(t, from, "!", syscall.MSG_OOB) }
			if end {
				urgent()
				testkit.Write(t, from, "behind")
				if err := from.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				testkit.Eventually(t, "the end has come", src.PeerGone)
			}
			ended := splice(dst, src)
			if !end {
				testkit.Write(t, from, "before")
				testkit.Read(t, to, "before")
				urgent()
				testkit.Write(t, from, "behind")
			}
			if r := testkit.Await(t, "it ends", ended); r.err != nil {
				t.Errorf("%d bytes, %v", r.n, r.err)
			}
			_ = src.SetReadDeadline(time.Now().Add(testkit.Patience))
			testkit.Read(t, src, "behind")
			noPipes(t)
		})
	}
}

// send sends with flags.
func send(t *testing.T, c *net.TCPConn, s string, flags int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte(s), flags, nil) }); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
}
