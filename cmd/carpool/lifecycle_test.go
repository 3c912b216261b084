package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/preload"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// ask sends a request without a body to the admin listener, at one of the
// addresses it has.
func (c *carpool) ask(host, method, path string) (*reply, error) {
	_, port, _ := net.SplitHostPort(c.admin)
	cl, err := dial(net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.ask(method, path, "Host: "+net.JoinHostPort(host, port), "Connection: close", "Content-Length: 0")
}

// otherAddress is an address of this machine that is not loopback, if it has
// one.
func otherAddress(t testing.TB) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "127.0.0.3"
}

// A Job on a cluster without native sidecars ends when its main container has
// said that carpool can go.
func TestQuitquitquitDrainsAndExitsWithZero(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	c := startCarpool(t, "CARPOOL_ADMIN_LISTEN=:0")
	held := c.dial()
	if err := held.send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the request is at the upstream", up.entered)
	r, err := c.ask("127.0.0.1", "GET", "/quitquitquit")
	want(t, http.StatusMethodNotAllowed, r, err)
	r, err = c.ask(otherAddress(t), "POST", "/quitquitquit")
	if !strings.HasPrefix(otherAddress(t), "127.") {
		want(t, http.StatusForbidden, r, err)
	}
	if c.hasExited() || c.status("/readyz") != 200 {
		t.Fatal("it drains although nobody may ask for it")
	}
	r, err = c.ask("127.0.0.1", "POST", "/quitquitquit")
	want(t, http.StatusOK, r, err)
	testkit.Eventually(t, "it drains", func() bool { return c.status("/readyz") == 503 })
	close(up.letGo)
	r, err = held.receive("GET")
	want(t, http.StatusOK, r, err)
	c.exit()
}

func TestQuitquitquitIsAnsweredWhenNothingIsOpen(t *testing.T) {
	t.Parallel()
	c := runCarpool(t, "CARPOOL_ADMIN_LISTEN=[::1]:0")
	r, err := c.ask("::1", "POST", "/quitquitquit")
	want(t, http.StatusOK, r, err)
	c.exit()
}

// Between two containers of a pod that is restarted, the port may be in use for
// a moment.
func TestAStartWaitsForItsPorts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CARPOOL_LISTEN", "CARPOOL_ADMIN_LISTEN"} {
		before, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		taken := name + "=" + before.Addr().String()
		log, code := &journal{}, make(chan int, 1)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			code <- run(ctx, nil, slices.Concat([]string{taken, "GOMAXPROCS=as it is"}, ports), log, log)
		}()
		testkit.Eventually(t, "it waits", func() bool { return log.line("cannot listen yet") != nil })
		if line := log.line("cannot listen yet"); line["on"] != taken || !strings.Contains(line["error"].(string), "in use") {
			t.Errorf("it says %v", line)
		}
		_ = before.Close()
		testkit.Eventually(t, "it serves", func() bool { return log.line("serving") != nil })
		cancel()
		if got := <-code; got != exitOK {
			t.Errorf("exit code %d", got)
		}
	}
}

func TestSIGTERMWhileWaitingForAPortIsNoFailure(t *testing.T) {
	t.Parallel()
	other := runCarpool(t)
	log, code := &journal{}, make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		code <- run(ctx, nil, slices.Concat([]string{"CARPOOL_LISTEN=" + other.proxy, "GOMAXPROCS=as it is"}, ports), log, log)
	}()
	testkit.Eventually(t, "it waits", func() bool { return log.line("cannot listen yet") != nil })
	cancel()
	select {
	case got := <-code:
		if got != exitOK || log.line("stopped before it served") == nil {
			t.Errorf("exit code %d, log %s", got, log)
		}
	case <-time.After(testkit.Patience):
		t.Error("it did not stop")
	}
}

func TestThePreloadScriptIsThereBeforeCarpoolIsReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, preload.Name)
	if err := os.WriteFile(file, []byte("of an older version"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := runCarpool(t, "CARPOOL_PRELOAD_DIR="+dir)
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, preload.Script) {
		t.Errorf("%d bytes, %v, want the script's %d", len(got), err, len(preload.Script))
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o644 {
		t.Errorf("%v, %v, want a file that all can read", st.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("in the directory: %v, %v", left, err)
	}
	if c.status("/readyz") != 200 {
		t.Error("not ready")
	}
}

func TestTheFiguresOnThePodAreInTheMetrics(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/net/sockstat"); err != nil {
		t.Skip("this system does not tell")
	}
	c := runCarpool(t, "CARPOOL_BYPASS_PORTS=9,10")
	now := c.scrape()
	if now.sum("carpool_pod_tcp_sockets") < 2 || now.sum("carpool_pod_ephemeral_ports") < 1 || now.sum("carpool_pod_time_wait_sockets") < 0 {
		t.Error("impossible figures")
	}
	if now.sum("carpool_bypass_connections", `port="9"`)+now.sum("carpool_bypass_connections", `port="10"`) != 0 {
		t.Error("somebody is said to connect to the discard port")
	}
	r, err := c.probe("/metrics")
	if err != nil || strings.Count(r.body, "\ncarpool_bypass_connections{") != 2 {
		t.Errorf("not one sample for each port: %v", err)
	}
	c = runCarpool(t, "CARPOOL_BYPASS_PORTS=off")
	r, err = c.probe("/metrics")
	if err != nil || strings.Contains(r.body, "carpool_bypass_connections") || !strings.Contains(r.body, "carpool_pod_tcp_sockets") {
		t.Errorf("off does not take away just the connections: %v", err)
	}
}
