package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// startWithFiles starts carpool so that it may open only so many files.
func startWithFiles(t testing.TB, files int, settings ...string) *carpool {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := startCommand(t, exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s", files, path)), settings...)
	if got := c.limit(t); got != files {
		t.Fatalf("it may open %d files, not %d", got, files)
	}
	return c
}

// limit is how many files the process may open.
func (c *carpool) limit(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "Max open files")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// open is how many files the process has open. Those it was born with beyond
// the limit on their numbers, from whatever runs the tests, do not count.
func (c *carpool) open(t testing.TB) int {
	t.Helper()
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	limit, n := c.limit(t), 0
	for _, e := range dir {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd < limit {
			n++
		}
	}
	return n
}

// cpu is the processor time that the process has used.
func (c *carpool) cpu(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
	sum := time.Duration(0)
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// crossroads is an upstream that goes by many names: each address of
// 127.0.0.0/8 is an origin of its own. On /hold it answers when it is let go.
type crossroads struct {
	*upstream
	port string
}

func newCrossroads(t testing.TB) *crossroads {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return &crossroads{serveUpstream(t, l), port}
}

// url leads to the n-th of the origins.
func (x *crossroads) url(n int, path string) string {
	return fmt.Sprintf("http://127.0.%d.%d:%s%s", n/250, n%250+1, x.port, path)
}

func TestX16IdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	const files, origins, clients = 128, 150, 150
	x := newCrossroads(t)
	c := startWithFiles(t, files)
	one := c.dial()
	for n := range origins {
		r, err := one.ask("GET", x.url(n, "/"))
		want(t, http.StatusOK, r, err)
	}
	if n := c.metric("carpool_connections_closed_total", `reason="evicted"`); n < origins-files {
		t.Errorf("of %d upstream connections %v were evicted", origins, n)
	}
	// An idle client goes when another needs its place, the longest idle first;
	// the one that has just been served stays.
	var all []*client
	for n := range clients {
		cl := c.dial()
		all = append(all, cl)
		r, err := cl.ask("GET", x.url(n%10, "/"))
		want(t, http.StatusOK, r, err)
	}
	last := all[clients-1]
	r, err := last.ask("GET", x.url(0, "/"))
	want(t, http.StatusOK, r, err)
	all[0].ended(t)
	if n := c.open(t); n > files {
		t.Errorf("%d files are open", n)
	}
	if n := c.metric("carpool_client_connections"); n > files || n < 16 {
		t.Errorf("%v client connections are open", n)
	}
}

// Here carpool's own bounds do not keep it away from the limit, so that the
// system refuses: what is idle has to go then, upstream connections first.
func TestX16RefusedDescriptorsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	const files, clients = 24, 40
	x := newCrossroads(t)
	c := startWithFiles(t, files)
	for n := range clients { // each leaves an idle client and an idle upstream connection
		r, err := c.dial().ask("GET", x.url(n, "/"))
		want(t, http.StatusOK, r, err)
	}
	// The metrics cannot be asked: their port, too, needs a descriptor.
	if n := c.open(t); n < files-4 {
		t.Errorf("only %d files are open: the system had no reason to refuse", n)
	}
}

// With everything in use there is nothing to evict: carpool has to wait without
// burning the processor, and to go on when something comes free. The small
// limit is one that carpool's own bounds do not keep it away from, so that the
// system calls really fail.
func TestX16ExhaustionPassesWithoutASpin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ files, full int }{{128, 70}, {20, 19}} {
		t.Run(strconv.Itoa(c.files), func(t *testing.T) {
			t.Parallel()
			exhaust(t, c.files, c.full)
		})
	}
}

// exhaust has more clients ask for more than a carpool with so many files can
// do at a time, which is when it has full of them open.
func exhaust(t *testing.T, files, full int) {
	const clients = 150
	x := newCrossroads(t)
	c := startWithFiles(t, files, "CARPOOL_PENDING_TIMEOUT=1m")
	var work sync.WaitGroup
	defer work.Wait()
	var held [clients]int // statuses
	for n := range clients {
		cl := c.dial()
		if err := cl.send("GET", x.url(n, "/hold")); err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			if r, err := cl.receive("GET"); err == nil {
				held[n] = r.StatusCode
			}
			_ = cl.Close()
		})
	}
	wait(t, "a request has arrived", x.entered)
	testkit.Eventually(t, "files are short", func() bool { return c.open(t) >= full })
	idlesCheaply(t, c)

	close(x.letGo)
	work.Wait()
	counts := map[int]int{}
	for _, status := range held {
		counts[status]++
	}
	t.Logf("the answers: %v; log lines: %d", counts, len(c.log.lines()))
	if counts[200] == 0 || counts[200]+counts[503] != clients {
		t.Errorf("%d requests got these answers: %v", clients, counts)
	}
	for n := range clients { // as if nothing had been
		r, err := once(c.proxy, "GET", x.url(n, "/"))
		want(t, http.StatusOK, r, err)
	}
}

// idlesCheaply measures that little of the processor is used for a while.
func idlesCheaply(t testing.TB, c *carpool) {
	t.Helper()
	const period = 1500 * time.Millisecond
	before, begin := c.cpu(t), time.Now()
	testkit.Eventually(t, "a while has passed", func() bool { return time.Since(begin) >= period })
	used := c.cpu(t) - before
	t.Logf("%d files open, %v of processor time in %v", c.open(t), used, period)
	if used > period/3 {
		t.Errorf("used %v of processor time in %v of waiting", used, period)
	}
}
