package testkit

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

// leaked is what reportLeaks says now of the goroutines of one test, and of
// descriptors beyond before.
func leaked(before int) string {
	var b strings.Builder
	if reportLeaks(&b, before, []string{"TestLeaksAreToldByKind.func"}, 0) == 0 {
		return ""
	}
	return b.String()
}

func TestLeaksAreToldByKind(t *testing.T) {
	before := len(Descriptors())
	if got := leaked(before); got != "" {
		t.Fatalf("with nothing open: %s", got)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if got := leaked(before); !strings.Contains(got, "left behind: 0 goroutines, 1 descriptors") || !strings.Contains(got, "socket:") {
		t.Errorf("with a listener open: %q", got)
	}
	_ = l.Close()
	end := make(chan struct{})
	ended := In(func() bool { <-end; return true })
	Eventually(t, "the goroutine is seen", func() bool { return strings.Contains(leaked(before), "left behind: 1 goroutines") })
	close(end)
	Await(t, "the goroutine ends", ended)
	Eventually(t, "nothing is left", func() bool { return leaked(before) == "" })
}

func TestSocketsAreCountedApartFromFiles(t *testing.T) {
	before, open := Sockets(), len(Descriptors())
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if Sockets() != before || len(Descriptors()) != open+1 {
		t.Errorf("%d sockets of %d descriptors, before the file %d of %d", Sockets(), len(Descriptors()), before, open)
	}
}

func TestAVanishedPeerHearsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	Write(t, c, "heard")
	Read(t, peer, "heard")
	Vanish(t, peer.(*net.TCPConn))
	Write(t, c, "unheard")
	_ = peer.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := peer.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestABlackholeTakesNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close() // its port is free now
	Blackhole(t, addr)
	if c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond); err == nil {
		_ = c.Close()
		t.Error("it is taken")
	}
}
