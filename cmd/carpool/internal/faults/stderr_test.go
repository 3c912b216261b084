package faults_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// startUnread starts carpool with a pipe for stderr that is read until carpool
// serves, and then no more.
func startUnread(t *testing.T, settings ...string) (*carpooltest.Carpool, *os.File) {
	t.Helper()
	path, err := carpooltest.Program()
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
	c := carpooltest.Launch(t, cmd, settings...)
	_ = stderr.Close()
	b := make([]byte, 4096)
	for c.Log.Line("serving") == nil {
		n, err := unread.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Log.Write(b[:n])
	}
	return c.Ready(), unread
}

// X23: a log that nobody reads is nobody's problem. More is logged here than
// pipe and queue can hold.
func TestX23NothingWaitsForALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	c, unread := startUnread(t, "CARPOOL_ACCESS_LOG=all")
	path := "/" + strings.Repeat("x", 500)
	one := c.Dial()
	for range 3000 {
		r, err := one.Ask("GET", up.URL+path)
		carpooltest.Want(t, 200, r, err)
	}
	r, err := carpooltest.Once(c.Proxy, "GET", up.URL+path) // the accept loop goes on
	carpooltest.Want(t, 200, r, err)
	if got := c.Status("/healthz"); got != 200 {
		t.Errorf("/healthz says %d", got)
	}
	if c.Metric("carpool_log_lines_dropped_total", `reason="unread"`) == 0 {
		t.Error("no line is said to be dropped")
	}
	c.Terminate()
	c.Exit()
	_ = unread.Close()
}

// Whoever read the log has gone: writing to it is an error, no signal to die of.
func TestX23AReaderOfTheLogThatHasGoneIsNoReasonToDie(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	c, unread := startUnread(t, "CARPOOL_ACCESS_LOG=all")
	_ = unread.Close()
	one := c.Dial()
	ask := func() {
		r, err := one.Ask("GET", up.URL+"/")
		carpooltest.Want(t, 200, r, err)
	}
	ask()
	testkit.Eventually(t, "the lines count as dropped", func() bool {
		ask()
		return c.Metric("carpool_log_lines_dropped_total", `reason="unread"`) > 0
	})
	ask()
}

// A flood of one kind is cut to a few lines a second and a count, and hides no
// other kind.
func TestX23AFloodOfFailuresIsAFewLinesAndACount(t *testing.T) {
	t.Parallel()
	const refused = 1000
	c := carpooltest.Start(t)
	begin := time.Now()
	for range refused {
		r, err := carpooltest.Once(c.Proxy, "GET", "http://169.254.169.254/")
		carpooltest.Want(t, 403, r, err)
	}
	r, err := carpooltest.Once(c.Proxy, "GET", "http://127.0.0.1:1/")
	carpooltest.Want(t, 502, r, err)
	c.Terminate()
	c.Exit()
	lines, left := 0, 0.0
	for _, line := range c.Log.Lines() {
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
	if !strings.Contains(c.Log.String(), "connection_refused") {
		t.Error("the flood hides another failure")
	}
}
