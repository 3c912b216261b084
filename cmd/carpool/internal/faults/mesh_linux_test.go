package faults_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest/netns"
)

// A mesh stands for the proxy that a service mesh puts between a pod and the network. It takes what the kernel redirects
// to it, and answers each request with the address that the connection was for.
type mesh struct {
	port string

	mu    sync.Mutex // guards what follows
	meant []netip.AddrPort
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{}
	_, m.port, _ = net.SplitHostPort(l.Addr().String())
	meantBy := sync.Map{} // by the client's address
	server := &http.Server{
		ConnState: func(c net.Conn, s http.ConnState) {
			if s != http.StateNew {
				return
			}
			to, err := originalDestination(c.(*net.TCPConn))
			if err != nil {
				t.Errorf("SO_ORIGINAL_DST: %v", err)
			}
			meantBy.Store(c.RemoteAddr().String(), to)
			m.mu.Lock()
			defer m.mu.Unlock()
			m.meant = append(m.meant, to)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			to, _ := meantBy.Load(r.RemoteAddr)
			fmt.Fprintf(w, "%v for %s", to, r.Host)
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		done.Wait()
	})
	return m
}

// taken is where the connections that it took were meant to go.
func (m *mesh) taken() []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]netip.AddrPort{}, m.meant...)
}

const soOriginalDst = 80 // SO_ORIGINAL_DST of <linux/netfilter_ipv4.h>

// originalDestination is where a connection was meant to go before the kernel redirected it.
func originalDestination(c *net.TCPConn) (to netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return to, err
	}
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		// The kernel fills a sockaddr_in in; IPv6Mreq is as long as one.
		a, err := syscall.GetsockoptIPv6Mreq(int(fd), syscall.SOL_IP, soOriginalDst)
		if sockErr = err; err == nil {
			b := a.Multiaddr
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	})
	if err == nil {
		err = sockErr
	}
	return to, err
}

// TestBesideAMeshThatCapturesOutboundConnections has the kernel redirect what leaves the pod, by the rule that Istio's
// ambient mode and, by other words, its sidecar and Linkerd have: all TCP that is not for loopback. The app's connections
// to carpool are not for the mesh; those of carpool are, and they are few.
func TestBesideAMeshThatCapturesOutboundConnections(t *testing.T) {
	t.Parallel()
	iptables, err := exec.LookPath("iptables")
	if err != nil {
		t.Skip("iptables is not installed")
	}
	if !netns.Own(t) {
		return
	}
	m := newMesh(t)
	rule := exec.Command(iptables, "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "!", "-d", "127.0.0.1/32", "-j", "REDIRECT", "--to-ports", m.port)
	if out, err := rule.CombinedOutput(); err != nil {
		t.Skipf("no connection can be redirected here: %v: %s", err, out)
	}
	c := carpooltest.Run(t, "CARPOOL_BYPASS_PORTS=8080")
	const requests = 50
	for i := range requests {
		client := c.Dial()
		request := carpooltest.Head("GET", fmt.Sprintf("http://10.1.0.2:8080/%d", i), "Connection: close")
		if _, err := io.WriteString(client, request); err != nil {
			t.Fatal(err)
		}
		r, err := client.Receive("GET")
		if err != nil || r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Body, "10.1.0.2:8080 for 10.1.0.2:8080") {
			t.Fatalf("request %d: %+v, %v", i, r, err)
		}
		_ = client.Close()
	}
	taken := m.taken()
	if len(taken) == 0 || len(taken) > requests/10 {
		t.Errorf("the mesh took %d connections for %d requests", len(taken), requests)
	}
	for _, to := range taken {
		if to != netip.MustParseAddrPort("10.1.0.2:8080") {
			t.Errorf("the mesh took one for %v", to)
		}
	}
}
