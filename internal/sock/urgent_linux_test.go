package sock_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// An urgent byte is where splice(2) does not get past: what follows is copied.
func TestSpliceLeavesUrgentBytesToReads(t *testing.T) {
	dst, src, from, to := splicer(t)
	ended := splice(dst, src)
	testkit.Write(t, from, "before")
	testkit.Read(t, to, "before")
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	testkit.Write(t, from, "behind")
	if r := testkit.Await(t, "it ends", ended); r.err != nil || r.n != int64(len("before")) {
		t.Errorf("%d bytes, %v", r.n, r.err)
	}
	_ = src.SetReadDeadline(time.Now().Add(testkit.Patience))
	testkit.Read(t, src, "behind")
	noPipes(t)
}
