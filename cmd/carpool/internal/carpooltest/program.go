package carpooltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// workDir is gone when the tests are done.
var workDir string

// RunTests runs a package's tests for its TestMain, and returns the exit code. It
// fails the package if a goroutine or a descriptor outlives the tests.
func RunTests(m *testing.M) int {
	var err error
	if workDir, err = os.MkdirTemp("", "carpool-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	// From the first of these on a goroutine of the runtime's waits for signals.
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	signal.Stop(ch)
	return testkit.Run(m)
}

// Program builds carpool, once, as it is shipped; under the race detector it
// has one of its own.
var Program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(workDir, "carpool")
	build := exec.Command("go", "build", "-o", path, "github.com/carpoolproxy/carpool/cmd/carpool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if testkit.Race {
		build = exec.Command("go", "build", "-race", "-o", path, "github.com/carpoolproxy/carpool/cmd/carpool")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building carpool: %w\n%s", err, out)
	}
	return path, nil
})

// Output is what one run of carpool leaves.
type Output struct {
	Code           int
	Stdout, Stderr string
}

// Process runs the program to its end.
func Process(t testing.TB, environ []string, args ...string) Output {
	t.Helper()
	path, err := Program()
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
	return Output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
