package carpooltest

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// Carpool is one at work, in the test's process or in one of its own. It has to
// exit with 0 at the end of the test, if not before.
type Carpool struct {
	t            testing.TB
	Proxy, Admin string // host:port
	Log          *Journal
	cmd          *exec.Cmd     // nil in the test's own process
	Terminate    func()        // sends SIGTERM, or does what it would
	scraped      time.Time     // when the metrics were last asked for
	exited       chan struct{} // closed at the end
	code         int           // the exit code; only after exited
}

// Ports lets carpool take any free ones.
var Ports = []string{"CARPOOL_LISTEN=127.0.0.1:0", "CARPOOL_ADMIN_LISTEN=127.0.0.1:0"}

// Run runs carpool in the test's process. Settings are NAME=value, of
// which the first counts.
func Run(t testing.TB, settings ...string) *Carpool {
	t.Helper()
	// Not one thread for the tests as well, which is what run would set.
	environ := slices.Concat(settings, Ports, []string{"GOMAXPROCS=as it is"})
	ctx, cancel := context.WithCancel(context.Background())
	c := &Carpool{t: t, Log: &Journal{}, Terminate: cancel, exited: make(chan struct{})}
	go func() {
		defer close(c.exited)
		c.code = program.Run(ctx, nil, environ, c.Log, c.Log)
	}()
	return c.Ready()
}

// Start starts carpool as a process, with no other environment than the
// settings.
func Start(t testing.TB, settings ...string) *Carpool {
	t.Helper()
	path, err := Program()
	if err != nil {
		t.Fatal(err)
	}
	return StartCommand(t, exec.Command(path), settings...)
}

// StartCommand starts a command that becomes carpool.
func StartCommand(t testing.TB, cmd *exec.Cmd, settings ...string) *Carpool {
	t.Helper()
	return Launch(t, cmd, settings...).Ready()
}

// Launch starts a command that becomes carpool, and does not wait until it has.
// What it writes goes to the journal, unless cmd says where else.
func Launch(t testing.TB, cmd *exec.Cmd, settings ...string) *Carpool {
	t.Helper()
	c := &Carpool{t: t, Log: &Journal{}, cmd: cmd, exited: make(chan struct{})}
	cmd.Env = firstOfEach(slices.Concat(settings, Ports))
	if cmd.Stderr == nil {
		cmd.Stdout, cmd.Stderr = c.Log, c.Log
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.Terminate = func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
	go func() {
		defer close(c.exited)
		if err := cmd.Wait(); err != nil {
			c.code = max(cmd.ProcessState.ExitCode(), 1)
		}
	}()
	return c
}

// firstOfEach drops later settings of a variable, of which exec would take the
// last.
func firstOfEach(environ []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); !seen[name] {
			seen[name] = true
			out = append(out, e)
		}
	}
	return out
}

// Ready waits until carpool serves.
func (c *Carpool) Ready() *Carpool {
	c.t.Helper()
	c.t.Cleanup(c.End)
	testkit.Eventually(c.t, "carpool serves", func() bool {
		if c.HasExited() {
			c.t.Fatalf("carpool exited with %d:\n%s", c.code, c.Log)
		}
		return c.Log.Line("serving") != nil
	})
	line := c.Log.Line("serving")
	c.Proxy, c.Admin = line["listen"].(string), line["admin"].(string)
	return c
}

// HasExited reports whether carpool is gone.
func (c *Carpool) HasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// End stops carpool, if it still runs, and checks that it exits with 0.
func (c *Carpool) End() {
	c.Terminate()
	select {
	case <-c.exited:
	case <-time.After(2 * testkit.Patience):
		c.t.Errorf("carpool did not exit")
		if c.cmd != nil {
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	}
	if c.code != 0 {
		c.t.Errorf("carpool exited with %d", c.code)
	}
	if c.t.Failed() {
		c.t.Logf("carpool's log:\n%s", c.Log)
	}
}

// Exit waits for carpool to exit, and checks that it does so with 0.
func (c *Carpool) Exit() {
	c.t.Helper()
	testkit.Eventually(c.t, "carpool has exited", c.HasExited)
	if c.code != 0 {
		c.t.Fatalf("exit code %d", c.code)
	}
}

// Dial connects to the proxy.
func (c *Carpool) Dial() *Client {
	c.t.Helper()
	cl, err := Dial(c.Proxy)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// Probe asks the admin listener.
func (c *Carpool) Probe(path string) (*Reply, error) {
	cl, err := Dial(c.Admin)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if path == "/metrics" {
		defer func() { c.scraped = time.Now() }()
	}
	return cl.Ask(http.MethodGet, path, "Host: "+c.Admin, "Connection: close")
}

// Status is what the admin listener answers with, 0 if it does not.
func (c *Carpool) Status(path string) int {
	r, err := c.Probe(path)
	if err != nil {
		return 0
	}
	return r.StatusCode
}

// Scrape returns the metrics as they are now. carpool gathers them once a
// second at most, so it lets that pass since it last asked.
func (c *Carpool) Scrape() Exposition {
	c.t.Helper()
	testkit.Eventually(c.t, "a second has passed since the last scrape", func() bool { return time.Since(c.scraped) > time.Second })
	r, err := c.Probe("/metrics")
	if err != nil || r.StatusCode != http.StatusOK {
		c.t.Fatalf("no metrics: %v, %v", r, err)
	}
	return Exposition{c.t, r.Body}
}

// Metric is one sum out of a scrape.
func (c *Carpool) Metric(name string, labels ...string) float64 {
	c.t.Helper()
	return c.Scrape().Sum(name, labels...)
}

// OtherAddress is an address of this machine that is not loopback, if it has
// one.
func OtherAddress(t testing.TB) string {
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
