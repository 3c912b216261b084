package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// startUnread starts carpool with a pipe for stderr that is read until carpool
// serves, and then no more.
func startUnread(t *testing.T, settings ...string) (*carpool, *os.File) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	unread, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unread.Close() })
	cmd := exec.Command(path)
	cmd.Stderr = stderr
	c := launch(t, cmd, settings...)
	_ = stderr.Close()
	b := make([]byte, 4096)
	for c.log.line("serving") == nil {
		n, err := unread.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.log.Write(b[:n])
	}
	return c.ready(), unread
}

// X23: a log that nobody reads is nobody's problem. More is logged here than
// pipe and queue can hold.
func TestX23NothingWaitsForALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	c, unread := startUnread(t, "CARPOOL_ACCESS_LOG=all")
	path := "/" + strings.Repeat("x", 500)
	one := c.dial()
	for range 3000 {
		r, err := one.ask("GET", up.URL+path)
		want(t, 200, r, err)
	}
	r, err := once(c.proxy, "GET", up.URL+path) // the accept loop goes on
	want(t, 200, r, err)
	if got := c.status("/healthz"); got != 200 {
		t.Errorf("/healthz says %d", got)
	}
	if c.metric("carpool_log_lines_dropped_total", `reason="unread"`) == 0 {
		t.Error("no line is said to be dropped")
	}
	c.terminate()
	c.exit()
	_ = unread.Close()
}

// Whoever read the log has gone: writing to it is an error, no signal to die of.
func TestX23AReaderOfTheLogThatHasGoneIsNoReasonToDie(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	c, unread := startUnread(t, "CARPOOL_ACCESS_LOG=all")
	_ = unread.Close()
	one := c.dial()
	ask := func() {
		r, err := one.ask("GET", up.URL+"/")
		want(t, 200, r, err)
	}
	ask()
	testkit.Eventually(t, "the lines count as dropped", func() bool {
		ask()
		return c.metric("carpool_log_lines_dropped_total", `reason="unread"`) > 0
	})
	ask()
}

// A flood of one kind is cut to a few lines a second and a count, and hides no
// other kind.
func TestX23AFloodOfFailuresIsAFewLinesAndACount(t *testing.T) {
	t.Parallel()
	const refused = 1000
	c := startCarpool(t)
	begin := time.Now()
	for range refused {
		r, err := once(c.proxy, "GET", "http://169.254.169.254/")
		want(t, 403, r, err)
	}
	r, err := once(c.proxy, "GET", "http://127.0.0.1:1/")
	want(t, 502, r, err)
	c.terminate()
	c.exit()
	lines, left := 0, 0.0
	for _, line := range c.log.lines() {
		switch {
		case line["msg"] == "request" && line["status"] == 403.0:
			lines++
		case line["msg"] == "more lines like this were left out":
			if line["of"] != "request" || line["error"] != "destination_ip_prohibited" {
				t.Errorf("what is left out: %v", line)
			}
			left += line["count"].(float64)
		}
	}
	if lines+int(left) != refused {
		t.Errorf("%d lines, %v left out, of %d", lines, left, refused)
	}
	if lines > 5*int(time.Since(begin)/time.Second+1) {
		t.Errorf("%d lines of %d requests", lines, refused)
	}
	if !strings.Contains(c.log.String(), "connection_refused") {
		t.Error("the flood hides another failure")
	}
}
