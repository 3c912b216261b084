package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// Whoever may only use the proxy must not get at what only the kubelet and
// Prometheus are for.
func TestO1AdminListenerIsNotReachedThroughTheProxy(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{":0", "127.0.0.1:0"} {
		c := startCarpool(t, "CARPOOL_ADMIN_LISTEN="+listen)
		_, port, _ := net.SplitHostPort(c.admin)
		_, own, _ := net.SplitHostPort(c.proxy)
		c.admin = "127.0.0.1:" + port
		if c.status("/metrics") != 200 {
			t.Fatalf("the admin listener %s does not answer directly", listen)
		}
		hosts := []string{"127.0.0.1", "localhost"}
		if listen == ":0" {
			hosts = append(hosts, "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", otherAddress(t))
		}
		for _, host := range hosts {
			notThrough(t, c, host+":"+port)
		}
		notThrough(t, c, "127.0.0.1:"+own) // nor the proxy itself, in a loop
		if n := c.metric("carpool_connections_opened_total"); n != 0 {
			t.Errorf("%v upstream connections were opened", n)
		}
	}
}

// notThrough checks that carpool refuses to connect there, whichever way it is
// asked.
func notThrough(t testing.TB, c *carpool, authority string) {
	t.Helper()
	for _, request := range []string{
		head("GET", "http://"+authority+"/metrics"),
		head("CONNECT", authority, "Host: "+authority),
	} {
		cl := c.dial()
		if _, err := io.WriteString(cl, request); err != nil {
			t.Fatal(err)
		}
		r, err := cl.receive("GET")
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode < 400 || r.StatusCode == 404 || !strings.HasPrefix(r.Header.Get("Proxy-Status"), "carpool; error=") {
			t.Errorf("%.60q is answered %s, %q", request, r.Status, r.Header.Get("Proxy-Status"))
		}
	}
}

// A container as the restricted Pod Security Standard and a careful owner want
// it: no root, no capabilities, nothing to write to, and nothing but the
// program in it.
func TestO4RunsWithoutPrivilegesAndFiles(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can build the cage")
	}
	if testkit.Race {
		t.Skip("with the race detector the program needs the C library's files")
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cage := t.TempDir()
	if err := os.Link(path, filepath.Join(cage, "carpool")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cage, 0o555); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/carpool")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: cage, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	up := newUpstream(t)
	c := startCommand(t, cmd)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
		t.Fatalf("it has capabilities: %v, %s", err, status)
	}
	r, err := once(c.proxy, "GET", up.URL+"/")
	want(t, http.StatusOK, r, err)
	if got := [...]int{c.status("/readyz"), c.status("/healthz"), c.status("/metrics")}; got != [...]int{200, 200, 200} {
		t.Errorf("/readyz, /healthz and /metrics say %v", got)
	}
	c.terminate()
	c.exit()
	if left, err := os.ReadDir(cage); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
