package pool_test

import (
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// An origin with one idle connection takes little memory, and no goroutine.
func TestX28AnOriginWithOneIdleConnectionIsSmall(t *testing.T) {
	if testing.Short() || testkit.Race {
		t.Skip("the race detector has memory of its own")
	}
	const origins, most = 4000, 4 << 10
	port := acceptAll(t, origins)
	p := newPool(t)
	before := memory()
	for i := range origins {
		host := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
		o := p.Origin(pool.Lookup{Host: []byte(host.String()), Port: port})
		acquire(t, o, pool.Ticket{Replayable: true}).Release()
	}
	goroutines := func() bool { return runtime.NumGoroutine() < 50 }
	testkit.Eventually(t, "goroutines that dialled are gone", goroutines)
	each := (memory() - before) / origins
	t.Logf("%d bytes for an origin with an idle connection", each)
	if n := p.Snapshot().Total.Idle; n != origins {
		t.Fatalf("%d are idle, want %d", n, origins)
	}
	if each > most {
		t.Errorf("want at most %d", most)
	}
}

// memory is what the heap and the stacks take.
func memory() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// acceptAll accepts so many connections to any local address, with no memory of
// this process. It returns the port.
func acceptAll(t *testing.T, conns int) uint16 {
	t.Helper()
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(l, &unix.SockaddrInet4{})
	}
	if err == nil {
		err = unix.Listen(l, 4096)
	}
	at, err2 := unix.Getsockname(l)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	fds := make([]int, 0, conns)
	done := testkit.In(func() []int {
		for len(fds) < conns {
			fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			fds = append(fds, fd)
		}
		return fds
	})
	t.Cleanup(func() {
		_ = unix.Shutdown(l, unix.SHUT_RDWR)
		for _, fd := range testkit.Await(t, "the server ends", done) {
			_ = unix.Close(fd)
		}
		_ = unix.Close(l)
	})
	return uint16(at.(*unix.SockaddrInet4).Port)
}
