package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// carpool is one at work, in the test's process or in one of its own. It has to
// exit with 0 at the end of the test, if not before.
type carpool struct {
	t            testing.TB
	proxy, admin string // host:port
	log          *journal
	cmd          *exec.Cmd     // nil in the test's own process
	terminate    func()        // sends SIGTERM, or does what it would
	scraped      time.Time     // when the metrics were last asked for
	exited       chan struct{} // closed at the end
	code         int           // the exit code; only after exited
}

// ports lets carpool take any free ones.
var ports = []string{"CARPOOL_LISTEN=127.0.0.1:0", "CARPOOL_ADMIN_LISTEN=127.0.0.1:0"}

// runCarpool runs carpool in the test's process. Settings are NAME=value, of
// which the first counts.
func runCarpool(t testing.TB, settings ...string) *carpool {
	t.Helper()
	// Not one thread for the tests as well, which is what run would set.
	environ := slices.Concat(settings, ports, []string{"GOMAXPROCS=as it is"})
	ctx, cancel := context.WithCancel(context.Background())
	c := &carpool{t: t, log: &journal{}, terminate: cancel, exited: make(chan struct{})}
	go func() {
		defer close(c.exited)
		c.code = run(ctx, nil, environ, c.log, c.log)
	}()
	return c.ready()
}

// startCarpool starts carpool as a process, with no other environment than the
// settings.
func startCarpool(t testing.TB, settings ...string) *carpool {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, exec.Command(path), settings...)
}

// startCommand starts a command that becomes carpool.
func startCommand(t testing.TB, cmd *exec.Cmd, settings ...string) *carpool {
	t.Helper()
	return launch(t, cmd, settings...).ready()
}

// launch starts a command that becomes carpool, and does not wait until it has.
// What it writes goes to the journal, unless cmd says where else.
func launch(t testing.TB, cmd *exec.Cmd, settings ...string) *carpool {
	t.Helper()
	c := &carpool{t: t, log: &journal{}, cmd: cmd, exited: make(chan struct{})}
	cmd.Env = firstOfEach(slices.Concat(settings, ports))
	if cmd.Stderr == nil {
		cmd.Stdout, cmd.Stderr = c.log, c.log
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.terminate = func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
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

// ready waits until carpool serves.
func (c *carpool) ready() *carpool {
	c.t.Helper()
	c.t.Cleanup(c.end)
	testkit.Eventually(c.t, "carpool serves", func() bool {
		if c.hasExited() {
			c.t.Fatalf("carpool exited with %d:\n%s", c.code, c.log)
		}
		return c.log.line("serving") != nil
	})
	line := c.log.line("serving")
	c.proxy, c.admin = line["listen"].(string), line["admin"].(string)
	return c
}

func (c *carpool) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// end stops carpool, if it still runs, and checks that it exits with 0.
func (c *carpool) end() {
	c.terminate()
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
		c.t.Logf("carpool's log:\n%s", c.log)
	}
}

// exit waits for carpool to exit, and checks that it does so with 0.
func (c *carpool) exit() {
	c.t.Helper()
	testkit.Eventually(c.t, "carpool has exited", c.hasExited)
	if c.code != 0 {
		c.t.Fatalf("exit code %d", c.code)
	}
}

// dial connects to the proxy.
func (c *carpool) dial() *client {
	c.t.Helper()
	cl, err := dial(c.proxy)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// probe asks the admin listener.
func (c *carpool) probe(path string) (*reply, error) {
	cl, err := dial(c.admin)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if path == "/metrics" {
		defer func() { c.scraped = time.Now() }()
	}
	return cl.ask(http.MethodGet, path, "Host: "+c.admin, "Connection: close")
}

// status is what the admin listener answers with, 0 if it does not.
func (c *carpool) status(path string) int {
	r, err := c.probe(path)
	if err != nil {
		return 0
	}
	return r.StatusCode
}

// scrape returns the metrics as they are now. carpool gathers them once a
// second at most, so it lets that pass since it last asked.
func (c *carpool) scrape() exposition {
	c.t.Helper()
	testkit.Eventually(c.t, "a second has passed since the last scrape", func() bool { return time.Since(c.scraped) > time.Second })
	r, err := c.probe("/metrics")
	if err != nil || r.StatusCode != http.StatusOK {
		c.t.Fatalf("no metrics: %v, %v", r, err)
	}
	return exposition{c.t, r.body}
}

// metric is one sum out of a scrape.
func (c *carpool) metric(name string, labels ...string) float64 {
	c.t.Helper()
	return c.scrape().sum(name, labels...)
}

// exposition is what a scrape has brought.
type exposition struct {
	t    testing.TB
	text string
}

// sum adds up the samples of a metric whose labels, as they are written,
// include all of these.
func (e exposition) sum(name string, labels ...string) float64 {
	e.t.Helper()
	sum, found := 0.0, false
samples:
	for line := range strings.Lines(e.text) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.Index(line, "} "); at >= 0 {
			sample, value = line[:at], strings.TrimSpace(line[at+2:])
		}
		family, set, _ := strings.Cut(sample, "{")
		if family != name {
			continue
		}
		found = true
		for _, l := range labels {
			if !strings.Contains(set, l) {
				continue samples
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			e.t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	if !found && len(labels) == 0 {
		e.t.Fatalf("no metric %s", name)
	}
	return sum
}

// journal collects what carpool writes.
type journal struct {
	mu   sync.Mutex
	text []byte
}

func (l *journal) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// line returns the first log line with this message, nil if there is none.
func (l *journal) line(message string) map[string]any {
	for _, fields := range l.lines() {
		if fields["msg"] == message {
			return fields
		}
	}
	return nil
}

func (l *journal) lines() []map[string]any {
	var all []map[string]any
	for line := range bytes.Lines([]byte(l.String())) {
		fields := map[string]any{}
		if json.Unmarshal(line, &fields) == nil {
			all = append(all, fields)
		}
	}
	return all
}

// client is a connection to speak HTTP on.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dial(addr string) (*client, error) {
	c, err := net.DialTimeout("tcp", addr, testkit.Patience)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

// reply is an answer that came whole.
type reply struct {
	*http.Response
	body string
}

// ask sends a request without a body and reads the answer.
func (c *client) ask(method, target string, fields ...string) (*reply, error) {
	if err := c.send(method, target, fields...); err != nil {
		return nil, err
	}
	return c.receive(method)
}

// send sends the head of a request.
func (c *client) send(method, target string, fields ...string) error {
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	_, err := io.WriteString(c, head(method, target, fields...))
	return err
}

// head writes a request's head. An absolute-form target brings its Host along.
func head(method, target string, fields ...string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		fields = append([]string{"Host: " + host}, fields...)
	}
	return method + " " + target + " HTTP/1.1\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// receive reads an answer.
func (c *client) receive(method string) (*reply, error) {
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	return &reply{r, string(body)}, err
}

// ended reads until the connection ends and checks that nothing comes before.
func (c *client) ended(t testing.TB) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if b, err := c.in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v, want the end of the connection", b, err)
	}
}

// once does a request on a connection of its own.
func once(proxy, method, url string) (*reply, error) {
	c, err := dial(proxy)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ask(method, url, "Connection: close")
}

// want checks an answer.
func want(t testing.TB, status int, r *reply, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", r.StatusCode, status, fmt.Sprintf("%.200q", r.body))
	}
}

// process runs the program to its end.
func process(t testing.TB, environ []string, args ...string) output {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{}, environ...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
