package faults_test

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

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// Whoever may only use the proxy must not get at what only the kubelet and
// Prometheus are for.
func TestO1AdminListenerIsNotReachedThroughTheProxy(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{":0", "127.0.0.1:0"} {
		c := carpooltest.Start(t, "CARPOOL_ADMIN_LISTEN="+listen)
		_, port, _ := net.SplitHostPort(c.Admin)
		_, own, _ := net.SplitHostPort(c.Proxy)
		c.Admin = "127.0.0.1:" + port
		if c.Status("/metrics") != 200 {
			t.Fatalf("the admin listener %s does not answer directly", listen)
		}
		hosts := []string{"127.0.0.1", "localhost"}
		if listen == ":0" {
			hosts = append(hosts, "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", carpooltest.OtherAddress(t))
		}
		for _, host := range hosts {
			notThrough(t, c, host+":"+port)
		}
		notThrough(t, c, "127.0.0.1:"+own) // nor the proxy itself, in a loop
		if n := c.Metric("carpool_connections_opened_total"); n != 0 {
			t.Errorf("%v upstream connections were opened", n)
		}
	}
}

// notThrough checks that carpool refuses to connect there, whichever way it is
// asked.
func notThrough(t testing.TB, c *carpooltest.Carpool, authority string) {
	t.Helper()
	for _, request := range []string{
		carpooltest.Head("GET", "http://"+authority+"/metrics"),
		carpooltest.Head("CONNECT", authority, "Host: "+authority),
	} {
		cl := c.Dial()
		if _, err := io.WriteString(cl, request); err != nil {
			t.Fatal(err)
		}
		r, err := cl.Receive("GET")
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
	path, err := carpooltest.Program()
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
	up := carpooltest.NewUpstream(t)
	c := carpooltest.StartCommand(t, cmd)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
		t.Fatalf("it has capabilities: %v, %s", err, status)
	}
	r, err := carpooltest.Once(c.Proxy, "GET", up.URL+"/")
	carpooltest.Want(t, http.StatusOK, r, err)
	if got := [...]int{c.Status("/readyz"), c.Status("/healthz"), c.Status("/metrics")}; got != [...]int{200, 200, 200} {
		t.Errorf("/readyz, /healthz and /metrics say %v", got)
	}
	c.Terminate()
	c.Exit()
	if left, err := os.ReadDir(cage); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
