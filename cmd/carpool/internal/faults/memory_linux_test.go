package faults_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// cage is a memory cgroup for one process.
type cage struct {
	dir              string
	limit, peak, oom string // file names
}

// newCage makes a memory cgroup with a limit, 0 for none.
func newCage(t testing.TB, limit int64) *cage {
	t.Helper()
	var c *cage
	name := fmt.Sprintf("carpool-test-%d-%d", os.Getpid(), limit)
	for _, try := range []cage{
		{"/sys/fs/cgroup/memory/" + name, "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"},
		{"/sys/fs/cgroup/" + name, "memory.max", "memory.peak", "memory.events"},
	} {
		if os.Mkdir(try.dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(try.dir, try.limit)); err != nil {
			_ = os.Remove(try.dir)
			continue
		}
		c = &try
		break
	}
	if c == nil {
		t.Skip("no memory cgroup can be made here: that takes root and a writable cgroup file system")
	}
	t.Cleanup(func() { // after the process' end, which the kernel may take a moment to see
		testkit.Eventually(t, "the cgroup is removed", func() bool { return os.Remove(c.dir) == nil })
	})
	if limit > 0 {
		if err := os.WriteFile(filepath.Join(c.dir, c.limit), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// read returns the first number in a file of the cgroup, after a word if there is one.
func (c *cage) read(t testing.TB, file, word string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut("\n"+string(text), "\n"+word)
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		t.Fatalf("no %q in %s: %s", word, file, text)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start starts carpool in the cgroup.
func (c *cage) start(t testing.TB, settings ...string) *carpooltest.Carpool {
	t.Helper()
	path, err := carpooltest.Program()
	if err != nil {
		t.Fatal(err)
	}
	shell := fmt.Sprintf("echo $$ > %s/cgroup.procs && exec %s", c.dir, path)
	return carpooltest.StartCommand(t, exec.Command("/bin/sh", "-c", shell), settings...)
}

// flood makes so many requests at once, each on a connection of its own, whose
// long answers nobody reads: each holds a buffer. It returns the clients, how
// many were answered 503, and what the last of these got.
func flood(t testing.TB, c *carpooltest.Carpool, url string, n int) (clients []*carpooltest.Client, refused int, refusal *http.Response) {
	t.Helper()
	for range n {
		cl, err := carpooltest.Dial(c.Proxy)
		if err != nil {
			t.Fatal(err)
		}
		_ = cl.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		clients = append(clients, cl)
		if err := cl.Send("GET", url); err != nil {
			t.Fatal(err)
		}
	}
	for _, cl := range clients {
		var begin [12]byte
		if _, err := io.ReadFull(cl, begin[:]); err != nil {
			t.Fatalf("neither an answer nor a refusal: %v", err)
		}
		switch string(begin[9:]) {
		case "503":
			refused++
			var err error
			if refusal, err = http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(begin[:]), cl)), nil); err != nil {
				t.Fatal(err)
			}
		case "200":
		default:
			t.Fatalf("answered %q", begin)
		}
	}
	return clients, refused, refusal
}

// longAnswers is an upstream that sends more than any buffer holds, until the
// client is gone.
func longAnswers(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			_, _ = io.WriteString(w, "short")
			return
		}
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// A load that takes more memory than carpool may have costs some requests, and
// not carpool.
func TestX18MemoryIsShedBeforeTheKernelKills(t *testing.T) {
	if testkit.Race {
		t.Skip("the race detector by itself takes more memory than the limit")
	}
	const limit, requests, more, most = 40 << 20, 1000, 500, 10000
	settings := []string{"CARPOOL_ACCESS_LOG=off", "CARPOOL_DIAL_TIMEOUT=1m", "CARPOOL_DRAIN_TIMEOUT=5s"}
	up := longAnswers(t)
	free := newCage(t, 0)
	c := free.start(t, settings...)
	clients, refused, _ := flood(t, c, up+"/long", requests)
	peak := free.read(t, free.peak, "")
	for _, cl := range clients {
		_ = cl.Close()
	}
	if refused != 0 || peak < limit*3/2 {
		t.Fatalf("without a limit %d requests were refused and %d MiB used: that proves nothing", refused, peak>>20)
	}
	t.Logf("without a limit: %d MiB", peak>>20)

	small := newCage(t, limit)
	c = small.start(t, settings...)
	if got := c.Metric("carpool_memory_limit_bytes"); got != limit {
		t.Errorf("it thinks it may use %v bytes", got)
	}
	idle := c.Dial()
	r, err := idle.Ask("GET", up+"/short")
	carpooltest.Want(t, http.StatusOK, r, err)
	for round := range 3 {
		clients, refused, refusal := flood(t, c, up+"/long", requests)
		for refused == 0 && len(clients) < most { // small buffers have sufficed so far
			var others []*carpooltest.Client
			others, refused, refusal = flood(t, c, up+"/long", more)
			clients = append(clients, others...)
		}
		if refused == 0 || refused == len(clients) {
			t.Fatalf("round %d: %d of %d requests were refused", round, refused, len(clients))
		}
		t.Logf("round %d: %d of %d requests refused, peak %d MiB", round, refused, len(clients), small.read(t, small.peak, "")>>20)
		checkRefusal(t, refusal)
		if c.Status("/healthz") != 200 || c.Status("/readyz") != 200 {
			t.Error("it says that it is not well, but a restart would not help")
		}
		if n := c.Metric("carpool_requests_shed_total"); n < float64(refused) {
			t.Errorf("the metrics show %v refusals, not %d", n, refused)
		}
		for _, cl := range clients {
			_ = cl.Close()
		}
		testkit.Eventually(t, "it takes requests again", func() bool {
			r, err := carpooltest.Once(c.Proxy, "GET", up+"/short")
			return err == nil && r.StatusCode == http.StatusOK
		})
	}
	idle.Ended(t) // it had to go, for it was idle when memory was short
	if kills := small.read(t, small.oom, "oom_kill "); kills != 0 {
		t.Errorf("the kernel killed %d times", kills)
	}
	begun, ended := 0, 0
	for _, line := range c.Log.Lines() {
		if msg, _ := line["msg"].(string); strings.HasPrefix(msg, "memory is short") {
			begun++
		} else if strings.HasPrefix(msg, "there is memory again") {
			ended++
		}
	}
	if begun < 3 || begun > 12 || ended != begun {
		t.Errorf("%d episodes begun and %d ended are in the log", begun, ended)
	}
}

// checkRefusal checks what a refused client is told.
func checkRefusal(t testing.TB, r *http.Response) {
	t.Helper()
	if got := r.Header.Get("Proxy-Status"); got != "carpool; error=proxy_internal_response" {
		t.Errorf("Proxy-Status is %q", got)
	}
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil || !strings.Contains(string(body), "raise the memory limit") {
		t.Errorf("the refusal does not say what to do: %q, %v", body, err)
	}
}
