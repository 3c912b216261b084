package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
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

func testMain(m *testing.M) int {
	flag.Parse()
	var err error
	if workDir, err = os.MkdirTemp("", "carpool-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	return testkit.Run(m)
}

// program builds carpool, once, as it is shipped; under the race detector it
// has one of its own.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workDir, "carpool")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if testkit.Race {
		build = exec.Command("go", "build", "-race", "-o", path, ".")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building carpool: %w\n%s", err, out)
	}
	return path, nil
})
