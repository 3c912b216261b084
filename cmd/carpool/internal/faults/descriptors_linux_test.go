package faults_test

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// startWithFiles starts carpool so that it may open only so many files.
func startWithFiles(t testing.TB, files int, settings ...string) *carpooltest.Carpool {
	t.Helper()
	path, err := carpooltest.Program()
	if err != nil {
		t.Fatal(err)
	}
	c := carpooltest.StartCommand(t, exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s", files, path)), settings...)
	if got := c.Limit(t); got != files {
		t.Fatalf("it may open %d files, not %d", got, files)
	}
	return c
}

// crossroads is an upstream that goes by many names: each address of
// 127.0.0.0/8 is an origin of its own. On /hold it answers when it is let go.
type crossroads struct {
	*carpooltest.Upstream
	port string
}

func newCrossroads(t testing.TB) *crossroads {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return &crossroads{carpooltest.ServeUpstream(t, l), port}
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
	one := c.Dial()
	for n := range origins {
		r, err := one.Ask("GET", x.url(n, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	if n := c.Metric("carpool_connections_closed_total", `reason="evicted"`); n < origins-files {
		t.Errorf("of %d upstream connections %v were evicted", origins, n)
	}
	// An idle client goes when another needs its place, the longest idle first;
	// the one that has just been served stays.
	var all []*carpooltest.Client
	for n := range clients {
		cl := c.Dial()
		all = append(all, cl)
		r, err := cl.Ask("GET", x.url(n%10, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	last := all[clients-1]
	r, err := last.Ask("GET", x.url(0, "/"))
	carpooltest.Want(t, http.StatusOK, r, err)
	all[0].Ended(t)
	if n := c.Open(t); n > files {
		t.Errorf("%d files are open", n)
	}
	if n := c.Metric("carpool_client_connections"); n > files || n < 16 {
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
		r, err := c.Dial().Ask("GET", x.url(n, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	// The metrics cannot be asked: their port, too, needs a descriptor.
	if n := c.Open(t); n < files-4 {
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
		cl := c.Dial()
		if err := cl.Send("GET", x.url(n, "/hold")); err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			if r, err := cl.Receive("GET"); err == nil {
				held[n] = r.StatusCode
			}
			_ = cl.Close()
		})
	}
	testkit.Await(t, "a request has arrived", x.Entered)
	testkit.Eventually(t, "files are short", func() bool { return c.Open(t) >= full })
	idlesCheaply(t, c)

	close(x.LetGo)
	work.Wait()
	counts := map[int]int{}
	for _, status := range held {
		counts[status]++
	}
	t.Logf("the answers: %v; log lines: %d", counts, len(c.Log.Lines()))
	if counts[200] == 0 || counts[200]+counts[503] != clients {
		t.Errorf("%d requests got these answers: %v", clients, counts)
	}
	for n := range clients { // as if nothing had been
		r, err := carpooltest.Once(c.Proxy, "GET", x.url(n, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
	}
}

// idlesCheaply measures that little of the processor is used for a while.
func idlesCheaply(t testing.TB, c *carpooltest.Carpool) {
	t.Helper()
	const period = 1500 * time.Millisecond
	before, begin := c.Cpu(t), time.Now()
	testkit.Eventually(t, "a while has passed", func() bool { return time.Since(begin) >= period })
	used := c.Cpu(t) - before
	t.Logf("%d files open, %v of processor time in %v", c.Open(t), used, period)
	if used > period/3 {
		t.Errorf("used %v of processor time in %v of waiting", used, period)
	}
}
