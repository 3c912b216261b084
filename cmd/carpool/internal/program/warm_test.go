package program_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/hot"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// logged returns the log lines with a message.
func logged(c *carpooltest.Carpool, message string) (lines []map[string]any) {
	for _, l := range c.Log.Lines() {
		if strings.Contains(l["msg"].(string), message) {
			lines = append(lines, l)
		}
	}
	return lines
}

func host(u *carpooltest.Upstream) string { return strings.TrimPrefix(u.URL, "http://") }

func TestWarmConnectionsAreOpenWhenCarpoolIsReady(t *testing.T) {
	t.Parallel()
	up, other := carpooltest.NewUpstream(t), carpooltest.NewUpstream(t)
	c := carpooltest.Start(t, "CARPOOL_WARM="+host(up)+"=4, http://"+host(other)+"=2")
	if c.Status("/readyz") != 200 {
		t.Error("not ready")
	}
	now := c.Scrape()
	for _, u := range []struct {
		*carpooltest.Upstream
		want float64
	}{{up, 4}, {other, 2}} {
		label := `origin="` + u.URL + `"`
		if idle, open, wanted := now.Sum("carpool_connections_idle", label), now.Sum("carpool_warm_connections_open", label),
			now.Sum("carpool_warm_connections_wanted", label); idle != u.want || open != u.want || wanted != u.want {
			t.Errorf("%s: %v idle, %v open, %v wanted", u.URL, idle, open, wanted)
		}
	}
	r, err := c.Dial().Ask("GET", up.URL)
	carpooltest.Want(t, http.StatusOK, r, err)
	if now := c.Scrape(); now.Sum("carpool_connections_reused_total")+now.Sum("carpool_connections_opened_total") != 6 {
		t.Error("the first request has opened a connection")
	}
	page, err := c.Probe("/")
	if err != nil || !strings.Contains(page.Body, "warm 4 of 4") || !strings.Contains(page.Body, "warm 2 of 2") {
		t.Errorf("the status page does not show it: %v", err)
	}
}

// Not ready while they are being opened, but alive, and at work for those who do
// not ask.
func TestCarpoolIsNotReadyBeforeWarmConnectionsAreVerified(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing in TLS
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	up := carpooltest.NewUpstream(t)
	probes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := probes.Addr().String()
	_ = probes.Close()
	log, code := &carpooltest.Journal{}, make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	environ := []string{"CARPOOL_WARM=https://" + silent.Addr().String() + "=1," + host(up) + "=1", "CARPOOL_ADMIN_LISTEN=" + admin, "CARPOOL_DIAL_TIMEOUT=1h"}
	go func() {
		code <- program.Run(ctx, nil, slices.Concat(environ, carpooltest.Ports[:1], []string{"GOMAXPROCS=as it is"}), log, log)
	}()
	status := func(path string) int {
		cl, err := carpooltest.Dial(admin)
		if err != nil {
			return 0
		}
		defer cl.Close()
		r, err := cl.Ask("GET", path, "Host: "+admin, "Connection: close")
		if err != nil {
			return 0
		}
		return r.StatusCode
	}
	testkit.Eventually(t, "it is alive", func() bool { return status("/healthz") == 200 })
	if got := status("/readyz"); got != 503 && log.Line("serving") == nil {
		t.Errorf("/readyz says %d before all is verified", got)
	}
	testkit.Eventually(t, "it does not wait for ever", func() bool { return status("/readyz") == 200 })
	testkit.Eventually(t, "it serves", func() bool { return log.Line("serving") != nil })
	cancel()
	if got := testkit.Await(t, "it ends", code); got != program.ExitOK {
		t.Errorf("exit code %d", got)
	}
}

func TestSIGTERMWhileWaitingForWarmConnectionsIsNoFailure(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log, code := &carpooltest.Journal{}, make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		code <- program.Run(ctx, nil, slices.Concat(
			[]string{"CARPOOL_WARM=https://" + silent.Addr().String() + "=1", "GOMAXPROCS=as it is"}, carpooltest.Ports), log, log)
	}()
	begun, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if got := testkit.Await(t, "it ends", code); got != program.ExitOK {
		t.Errorf("exit code %d, log %s", got, log)
	}
	_ = begun.Close()
	_ = silent.Close()
}

func TestADeadWarmUpstreamDoesNotKeepCarpoolFromBeingReady(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Run(t, "CARPOOL_WARM="+address+"=2,nowhere.invalid=1,"+host(up)+"=2")
	if c.Status("/readyz") != 200 {
		t.Error("not ready")
	}
	const message = "cannot keep connections open"
	testkit.Eventually(t, "both are told of", func() bool { return len(logged(c, message)) == 2 })
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skipf("the address is taken: %v", err)
	}
	back := carpooltest.ServeUpstream(t, l)
	label := `origin="` + back.URL + `"`
	testkit.Eventually(t, "it is warm when the upstream is there", func() bool { return c.Metric("carpool_warm_connections_open", label) == 2 })
	if n := len(logged(c, message)); n != 2 {
		t.Errorf("told %d times", n)
	}
}

func TestWarmthBeyondOtherSettingsIsWarnedOf(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Run(t, "CARPOOL_WARM="+host(up)+"=4", "CARPOOL_MAX_IDLE_PER_HOST=3", "CARPOOL_MAX_CONNS_PER_HOST=2", "CARPOOL_NO_REUSE_HOSTS="+host(up))
	var settings []any
	for _, l := range logged(c, "asks for more connections") {
		settings = append(settings, l["setting"])
	}
	if want := []any{"CARPOOL_MAX_IDLE_PER_HOST", "CARPOOL_MAX_CONNS_PER_HOST", "CARPOOL_NO_REUSE_HOSTS"}; !slices.Equal(settings, want) {
		t.Errorf("warned of %v", settings)
	}
}

// What was hot is open again before a request is there.
func TestARestartedCarpoolWarmsItselfFromItsCache(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	dir := t.TempDir()
	first := carpooltest.Start(t, "CARPOOL_CACHE_DIR="+dir)
	cl, held := first.Dial(), first.Dial()
	if err := held.Send("GET", up.URL+"/hold?secret=1"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the request is at the upstream", up.Entered)
	for range 2 {
		r, err := cl.Ask("GET", up.URL+"/private")
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	close(up.LetGo)
	r, err := held.Receive("GET")
	carpooltest.Want(t, http.StatusOK, r, err)
	first.End()
	text, err := os.ReadFile(filepath.Join(dir, hot.Name))
	if want := `{"version":1,"origins":[{"origin":"` + up.URL + `","conns":2}]}`; err != nil || string(text) != want {
		t.Fatalf("remembered %s, %v, want %s", text, err, want)
	}
	second := carpooltest.Start(t, "CARPOOL_CACHE_DIR="+dir)
	if second.Status("/readyz") != 200 {
		t.Error("not ready")
	}
	label := `origin="` + up.URL + `"`
	testkit.Eventually(t, "it is warm", func() bool { return second.Metric("carpool_connections_idle", label) == 2 })
}

// Policy looks at what comes out of the file as at any other address.
func TestACacheWithAForbiddenAddressOpensNothingThere(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	dir := t.TempDir()
	text := `{"version":1,"origins":[{"origin":"http://169.254.169.254:80","conns":4},{"origin":"` + up.URL + `","conns":1}]}`
	if err := os.WriteFile(filepath.Join(dir, hot.Name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := carpooltest.Run(t, "CARPOOL_CACHE_DIR="+dir)
	testkit.Eventually(t, "the other is warm", func() bool { return c.Metric("carpool_connections_idle", `origin="`+up.URL+`"`) == 1 })
	now := c.Scrape()
	if label := `origin="http://169.254.169.254:80"`; now.Sum("carpool_connections_opened_total", label) != 0 || now.Sum("carpool_dial_errors_total", label) == 0 {
		t.Error("it was not refused")
	}
}

func TestACorruptCacheCostsALogLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, hot.Name), []byte("\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := carpooltest.Run(t, "CARPOOL_CACHE_DIR="+dir)
	if c.Status("/readyz") != 200 {
		t.Error("not ready")
	}
	testkit.Eventually(t, "it says so", func() bool { return len(logged(c, "carpool starts without it")) == 1 })
}
