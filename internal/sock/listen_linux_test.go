package sock_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestAcceptedSocketsInheritTheirOptionsAndDoNotBlock(t *testing.T) {
	c, _ := accepted(t, "x")
	for name, o := range map[string]struct{ level, name, want int }{
		"TCP_NODELAY":   {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		"SO_KEEPALIVE":  {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":  {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 60},
		"TCP_KEEPINTVL": {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
		"TCP_KEEPCNT":   {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 4},
	} {
		if v, err := syscall.GetsockoptInt(c.FD(), o.level, o.name); v != o.want || err != nil {
			t.Errorf("%s is %d, %v, want %d", name, v, err, o.want)
		}
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(c.FD()), syscall.F_GETFL, 0)
	if errno != 0 || flags&syscall.O_NONBLOCK == 0 {
		t.Errorf("flags are %#x, %v", flags, errno)
	}
	flags, _, errno = syscall.Syscall(syscall.SYS_FCNTL, uintptr(c.FD()), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags are %#x, %v", flags, errno)
	}
}

func TestConnectionsAreAcceptedWhenTheirFirstBytesAreThere(t *testing.T) {
	t.Parallel()
	l := listen(t)
	silent := dial(t, l.Addr())
	start := time.Now()
	talking := dial(t, l.Addr())
	testkit.Write(t, talking, "hello")
	var first, second sock.Conn
	if err := l.Accept(&first); err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if time.Since(start) < time.Second/2 && first.RemoteAddr().String() != talking.LocalAddr().String() {
		t.Error("the one that says nothing was accepted first")
	}
	testkit.Read(t, &first, "hello")
	if first.Registered() {
		t.Error("the first read had to wait")
	}
	// One that waits for the other side to begin is accepted all the same.
	if err := l.Accept(&second); err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	testkit.Write(t, &second, "welcome")
	testkit.Read(t, silent, "welcome")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the silent one waited for %v", d)
	}
}

func TestAConnIsReusedForTheNextConnection(t *testing.T) {
	l := listen(t)
	var c sock.Conn
	for i := range 10 {
		peer := dial(t, l.Addr())
		testkit.Write(t, peer, "ping")
		if err := l.Accept(&c); err != nil {
			t.Fatal(err)
		}
		if c.Registered() || c.Parks() != 0 {
			t.Fatal("something is left of the last one")
		}
		testkit.Read(t, &c, "ping")
		if i%2 == 0 {
			if err := c.SetDeadline(past); err != nil {
				t.Fatal(err)
			}
		} else {
			testkit.Write(t, &c, "pong")
			testkit.Read(t, peer, "pong")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsAccept(t *testing.T) {
	l := listen(t)
	ended := testkit.In(func() error { var c sock.Conn; return l.Accept(&c) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := testkit.Await(t, "Accept ends", ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	var c sock.Conn
	if err := l.Accept(&c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
	var d net.Dialer
	if late, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = late.Close()
		t.Error("somebody still listens")
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	l := listen(t)
	if again, err := sock.Listen(t.Context(), l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, %v", again, err)
	}
}

// X16 of the catalogue: a lack of descriptors is told, and passes.
func TestAcceptTellsOfALackOfDescriptors(t *testing.T) {
	l := listen(t)
	peer := dial(t, l.Addr())
	testkit.Write(t, peer, "x")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	lowered := limit
	lowered.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lowered); err != nil {
		t.Skip(err)
	}
	var c sock.Conn
	err := l.Accept(&c)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !sock.Exhausted(err) {
		t.Errorf("got %v", err)
	}
	if err := l.Accept(&c); err != nil {
		t.Fatal(err)
	}
	testkit.Read(t, &c, "x")
	_ = c.Close()
}

func TestAnAcceptedConnectionKeepsPartOfAMessageForItsReader(t *testing.T) {
	c, peer := accepted(t, "one two")
	testkit.Read(t, c, "one")
	_ = peer.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != " two" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := c.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
