package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of this package run carpool whole: by run, in the test's own
// process, or as the program that a pod would start. Clients and upstreams are
// in the test's process either way.

var (
	soakFor     = flag.Duration("soak", 3*time.Second, "how long TestSoak goes on")
	p12Idle     = flag.Duration("p12", 1200*time.Millisecond, "after how long TestP12's upstream closes idle connections")
	x17Requests = flag.Int("x17", 5000, "how many requests TestX17 makes, each on a connection of its own")
)

// workDir is gone when the tests are done.
var workDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain fails the package if a goroutine or a descriptor outlives the tests.
func testMain(m *testing.M) int {
	flag.Parse()
	var err error
	if workDir, err = os.MkdirTemp("", "carpool-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	warmUp()
	before := descriptors()
	if code := m.Run(); code != 0 {
		return code
	}
	if left := goroutinesOf("github.com/carpoolproxy/carpool/"); left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		return 1
	}
	if after := descriptors(); len(after) > len(before) {
		fmt.Fprintf(os.Stderr, "descriptors left behind: %d before, now %q\n", len(before), after)
		return 1
	}
	return 0
}

// warmUp makes the runtime open, and start, what it keeps.
func warmUp() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_ = r.SetDeadline(time.Now())
	_ = r.Close()
	_ = w.Close()
	_ = exec.Command("true").Run()
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	signal.Stop(ch)
}

// descriptors lists what the process has open; nil where the system does not
// tell.
func descriptors() []string {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var open []string
	for _, e := range dir {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+" "+name)
		}
	}
	return open
}

// goroutinesOf returns the stacks of goroutines that run code of a module,
// other than the caller's, and gives them a little time to go: the last steps
// of one come after its owner's wait.
func goroutinesOf(module string) string {
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		buffer := make([]byte, 8<<20)
		stacks := strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n")
		left := slices.DeleteFunc(stacks[1:], func(s string) bool { return !strings.Contains(s, module) })
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
	}
}

// program builds carpool, once, as it is shipped; under the race detector it
// has one of its own.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workDir, "carpool")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if raceEnabled {
		build = exec.Command("go", "build", "-race", "-o", path, ".")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building carpool: %w\n%s", err, out)
	}
	return path, nil
})
