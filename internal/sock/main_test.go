package sock_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	before := sockets()
	code := m.Run()
	if code == 0 {
		code = reportLeaks(before)
	}
	os.Exit(code)
}

// reportLeaks waits until nothing of ours is left behind, and says what is if
// that takes too long.
func reportLeaks(before int) int {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 5000 {
		if ourGoroutines() == "" && sockets() <= before {
			return 0
		}
		<-tick.C
	}
	fmt.Fprintf(os.Stderr, "leaked: %d sockets, goroutines:\n%s\n", sockets()-before, ourGoroutines())
	return 1
}

// ourGoroutines returns the stacks of the goroutines, other than the caller's,
// that run code of this module.
func ourGoroutines() string {
	b := make([]byte, 1<<20)
	stacks := strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n")
	var ours []string
	for _, s := range stacks[1:] {
		if strings.Contains(s, "carpoolproxy/carpool") {
			ours = append(ours, s)
		}
	}
	return strings.Join(ours, "\n\n")
}

// sockets counts the process's open sockets and epoll descriptors, where the
// system tells; the runtime's own epoll descriptor is left out.
func sockets() int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n, polls := 0, 0
	for _, fd := range fds {
		switch to, _ := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); {
		case strings.HasPrefix(to, "socket:"):
			n++
		case strings.Contains(to, "[eventpoll]"):
			polls++
		}
	}
	return n + max(polls-1, 0)
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatalf("not within ten seconds: %s", what)
}
