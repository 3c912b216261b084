package program_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// freePort returns a port of loopback that nothing listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// secureUpstream answers in TLS, counts its connections, and tells of requests.
type secureUpstream struct {
	*httptest.Server
	conns atomic.Int32
}

func newSecureUpstream(t testing.TB, a *carpooltest.Authority, handler http.HandlerFunc, change ...func(*tls.Config)) *secureUpstream {
	t.Helper()
	u := &secureUpstream{Server: httptest.NewUnstartedServer(handler)}
	u.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			u.conns.Add(1)
		}
	}
	u.TLS = &tls.Config{Certificates: []tls.Certificate{a.Issue(nil)}}
	for _, f := range change {
		f(u.TLS)
	}
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	u.StartTLS()
	t.Cleanup(u.Close)
	return u
}

// ask does a request in origin-form on a connection that was opened for it.
func ask(t testing.TB, addr, request string) (*carpooltest.Reply, error) {
	t.Helper()
	c, err := carpooltest.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	testkit.Write(t, c, request)
	return c.Receive("GET")
}

// A client that knows nothing of proxies or TLS gets pooled https by a base URL.
func TestALocalPortPoolsHTTPSForAnyClient(t *testing.T) {
	t.Parallel()
	a := carpooltest.NewAuthority(t)
	up := newSecureUpstream(t, a, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://"+r.Host+"/next")
		w.Header().Set("Set-Cookie", "a=b; Domain=partner.example; Secure")
		w.WriteHeader(http.StatusFound)
		fmt.Fprintf(w, "%s %s %s", r.Host, r.URL, r.Proto)
	})
	port := freePort(t)
	host := up.Listener.Addr().String()
	c := carpooltest.Run(t, "CARPOOL_LOCAL_PORTS="+port+"=https://"+host, "CARPOOL_CA_FILE="+a.File(), "CARPOOL_MAX_CONN_AGE=0", "CARPOOL_BALANCE=reuse")
	addrs := []string{"127.0.0.1:" + port}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		_ = l.Close()
		addrs = append(addrs, "[::1]:"+port)
	}
	sent := 0
	for range 10 {
		for _, addr := range addrs {
			for _, request := range []string{
				"GET /a?b=c HTTP/1.1\r\nHost: localhost:" + port + "\r\nConnection: close\r\n\r\n",
				"GET /a?b=c HTTP/1.0\r\n\r\n",
				"GET /a?b=c HTTP/1.0\r\nHost: else\r\nConnection: keep-alive\r\n\r\n",
			} {
				r, err := ask(t, addr, request)
				carpooltest.Want(t, http.StatusFound, r, err)
				sent++
				if r.Body != host+" /a?b=c HTTP/1.1" || r.Header.Get("Location") != "https://"+host+"/next" || r.Header.Get("Set-Cookie") != "a=b; Domain=partner.example; Secure" {
					t.Fatalf("%s: %q, %v", request, r.Body, r.Header)
				}
			}
		}
	}
	if n := up.conns.Load(); n > 2 {
		t.Errorf("%d requests took %d connections", sent, n)
	}
	if n := c.Metric("carpool_local_port_requests_total", `port="`+port+`"`); n != float64(sent) {
		t.Errorf("%v requests are counted", n)
	}
	if page, err := c.Probe("/"); err != nil || !strings.Contains(page.Body, "http://127.0.0.1:"+port) || !strings.Contains(page.Body, "https://"+host) {
		t.Errorf("the status page does not show it: %v", err)
	}
}

func TestAnUpgradeOnALocalPortIsATunnelToItsUpstream(t *testing.T) {
	t.Parallel()
	a := carpooltest.NewAuthority(t)
	up := newSecureUpstream(t, a, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, rw)
	})
	port := freePort(t)
	carpooltest.Run(t, "CARPOOL_LOCAL_PORTS="+port+"="+up.URL, "CARPOOL_CA_FILE="+a.File())
	c, err := carpooltest.Dial("127.0.0.1:" + port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	testkit.Write(t, c, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	r, err := http.ReadResponse(c.In, nil)
	if err != nil || r.StatusCode != 101 {
		t.Fatalf("%v, %v", r, err)
	}
	testkit.Write(t, c, "hello")
	testkit.Read(t, c.In, "hello")
}

// X15: the same certificates as ever, in every way that leads to TLS.
func TestC5CertificatesThatDoNotHoldOnALocalPort(t *testing.T) {
	t.Parallel()
	a, other := carpooltest.NewAuthority(t), carpooltest.NewAuthority(t)
	up := newSecureUpstream(t, other, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	port := freePort(t)
	carpooltest.Run(t, "CARPOOL_LOCAL_PORTS="+port+"="+up.URL, "CARPOOL_CA_FILE="+a.File())
	r, err := ask(t, "127.0.0.1:"+port, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: secret\r\n\r\n")
	carpooltest.Want(t, http.StatusBadGateway, r, err)
	if !strings.Contains(r.Header.Get("Proxy-Status"), "tls_certificate_error") {
		t.Errorf("%v", r.Header)
	}
}

// S1, S9: a local port is no way around the rules.
func TestRulesHoldOnLocalPorts(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	denied, metadata, loop := freePort(t), freePort(t), freePort(t)
	c := carpooltest.Run(t, "CARPOOL_LOCAL_PORTS="+denied+"="+up.URL+","+metadata+"=169.254.169.254,"+loop+"=127.0.0.1:"+loop,
		"CARPOOL_DENY_HOSTS="+host(up))
	for port, want := range map[string]int{denied: 403, metadata: 403, loop: 508} {
		r, err := ask(t, "127.0.0.1:"+port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		carpooltest.Want(t, want, r, err)
		r, err = ask(t, "127.0.0.1:"+port, "CONNECT "+host(up)+" HTTP/1.1\r\nHost: x\r\n\r\n")
		carpooltest.Want(t, 400, r, err)
	}
	r, err := carpooltest.Once(c.Proxy, "GET", "http://127.0.0.1:"+denied+"/")
	carpooltest.Want(t, 508, r, err)
	if lines := logged(c, "CARPOOL_LOCAL_PORTS leads to an upstream that another setting refuses"); len(lines) != 1 {
		t.Errorf("warned %d times", len(lines))
	}
}

func TestAStartWaitsForItsLocalPorts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := carpooltest.NewUpstream(t)
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	path, err := carpooltest.Program()
	if err != nil {
		t.Fatal(err)
	}
	c := carpooltest.Launch(t, exec.Command(path), "CARPOOL_LOCAL_PORTS="+port+"="+up.URL)
	testkit.Eventually(t, "it says what it waits for", func() bool { return c.Log.Line("cannot listen yet") != nil })
	if on, _ := c.Log.Line("cannot listen yet")["on"].(string); on != "CARPOOL_LOCAL_PORTS="+port+"="+up.URL {
		t.Errorf("it waits for %q", on)
	}
	_ = taken.Close()
	c.Ready()
	r, err := ask(t, "127.0.0.1:"+port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	carpooltest.Want(t, 200, r, err)
}

func TestLocalPortsServeOnWhileCarpoolDrains(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	port := freePort(t)
	c := carpooltest.Run(t, "CARPOOL_LOCAL_PORTS="+port+"="+up.URL)
	held, err := carpooltest.Dial("127.0.0.1:" + port)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	testkit.Write(t, held, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
	testkit.Await(t, "the request is at the upstream", up.Entered)
	c.Terminate()
	testkit.Eventually(t, "it drains", func() bool { return c.Log.Line("draining") != nil })
	r, err := ask(t, "127.0.0.1:"+port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	carpooltest.Want(t, 200, r, err)
	if !r.Close {
		t.Errorf("not the last answer of its connection: %v", r.Header)
	}
	close(up.LetGo)
	r, err = held.Receive("GET")
	carpooltest.Want(t, 200, r, err)
	c.Exit()
}
