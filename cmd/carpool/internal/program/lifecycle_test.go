package program_test

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

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/preload"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// askAt sends a request without a body to the admin listener, at one of the
// addresses it has.
func askAt(c *carpooltest.Carpool, host, method, path string) (*carpooltest.Reply, error) {
	_, port, _ := net.SplitHostPort(c.Admin)
	cl, err := carpooltest.Dial(net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.Ask(method, path, "Host: "+net.JoinHostPort(host, port), "Connection: close", "Content-Length: 0")
}

// A Job on a cluster without native sidecars ends when its main container has
// said that carpool can go.
func TestQuitquitquitDrainsAndExitsWithZero(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Start(t, "CARPOOL_ADMIN_LISTEN=:0")
	held := c.Dial()
	if err := held.Send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the request is at the upstream", up.Entered)
	r, err := askAt(c, "127.0.0.1", "GET", "/quitquitquit")
	carpooltest.Want(t, http.StatusMethodNotAllowed, r, err)
	r, err = askAt(c, carpooltest.OtherAddress(t), "POST", "/quitquitquit")
	if !strings.HasPrefix(carpooltest.OtherAddress(t), "127.") {
		carpooltest.Want(t, http.StatusForbidden, r, err)
	}
	if c.HasExited() || c.Status("/readyz") != 200 {
		t.Fatal("it drains although nobody may ask for it")
	}
	r, err = askAt(c, "127.0.0.1", "POST", "/quitquitquit")
	carpooltest.Want(t, http.StatusOK, r, err)
	testkit.Eventually(t, "it drains", func() bool { return c.Status("/readyz") == 503 })
	close(up.LetGo)
	r, err = held.Receive("GET")
	carpooltest.Want(t, http.StatusOK, r, err)
	c.Exit()
}

func TestQuitquitquitIsAnsweredWhenNothingIsOpen(t *testing.T) {
	t.Parallel()
	c := carpooltest.Run(t, "CARPOOL_ADMIN_LISTEN=[::1]:0")
	r, err := askAt(c, "::1", "POST", "/quitquitquit")
	carpooltest.Want(t, http.StatusOK, r, err)
	c.Exit()
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
		log, code := &carpooltest.Journal{}, make(chan int, 1)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			code <- program.Run(ctx, nil, slices.Concat([]string{taken, "GOMAXPROCS=as it is"}, carpooltest.Ports), log, log)
		}()
		testkit.Eventually(t, "it waits", func() bool { return log.Line("cannot listen yet") != nil })
		if line := log.Line("cannot listen yet"); line["on"] != taken || !strings.Contains(line["error"].(string), "in use") {
			t.Errorf("it says %v", line)
		}
		_ = before.Close()
		testkit.Eventually(t, "it serves", func() bool { return log.Line("serving") != nil })
		cancel()
		if got := <-code; got != program.ExitOK {
			t.Errorf("exit code %d", got)
		}
	}
}

func TestSIGTERMWhileWaitingForAPortIsNoFailure(t *testing.T) {
	t.Parallel()
	other := carpooltest.Run(t)
	log, code := &carpooltest.Journal{}, make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		code <- program.Run(ctx, nil, slices.Concat([]string{"CARPOOL_LISTEN=" + other.Proxy, "GOMAXPROCS=as it is"}, carpooltest.Ports), log, log)
	}()
	testkit.Eventually(t, "it waits", func() bool { return log.Line("cannot listen yet") != nil })
	cancel()
	select {
	case got := <-code:
		if got != program.ExitOK || log.Line("stopped before it served") == nil {
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
	c := carpooltest.Run(t, "CARPOOL_PRELOAD_DIR="+dir)
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
	if c.Status("/readyz") != 200 {
		t.Error("not ready")
	}
}

func TestTheFiguresOnThePodAreInTheMetrics(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/net/sockstat"); err != nil {
		t.Skip("this system does not tell")
	}
	c := carpooltest.Run(t, "CARPOOL_BYPASS_PORTS=9,10")
	now := c.Scrape()
	if now.Sum("carpool_pod_tcp_sockets") < 2 || now.Sum("carpool_pod_ephemeral_ports") < 1 || now.Sum("carpool_pod_time_wait_sockets") < 0 {
		t.Error("impossible figures")
	}
	if now.Sum("carpool_bypass_connections", `port="9"`)+now.Sum("carpool_bypass_connections", `port="10"`) != 0 {
		t.Error("somebody is said to connect to the discard port")
	}
	r, err := c.Probe("/metrics")
	if err != nil || strings.Count(r.Body, "\ncarpool_bypass_connections{") != 2 {
		t.Errorf("not one sample for each port: %v", err)
	}
	c = carpooltest.Run(t, "CARPOOL_BYPASS_PORTS=off")
	r, err = c.Probe("/metrics")
	if err != nil || strings.Contains(r.Body, "carpool_bypass_connections") || !strings.Contains(r.Body, "carpool_pod_tcp_sockets") {
		t.Errorf("off does not take away just the connections: %v", err)
	}
}
