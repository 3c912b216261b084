package testkit

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Module marks the goroutines that run code of this module.
const Module = "carpoolproxy/carpool/"

// Run runs a package's tests for its TestMain and returns the exit code. Tests
// that pass fail after all if a goroutine or a descriptor outlives them: one that
// runs code of this module, or whose stack contains one of the marks.
//
//	func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }
func Run(m *testing.M, marks ...string) int {
	warmUp()
	before := len(Descriptors())
	if code := m.Run(); code != 0 {
		return code
	}
	return reportLeaks(os.Stderr, before, append(marks, Module), Patience)
}

// reportLeaks waits until nothing is left behind, for the last steps of a
// goroutine come after its owner's wait. It writes what is left if that takes
// longer than patience.
func reportLeaks(w io.Writer, before int, marks []string, patience time.Duration) int {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		goroutines, open := Goroutines(marks...), Descriptors()
		switch {
		case len(goroutines) == 0 && len(open) <= before:
			return 0
		case time.Now().After(deadline):
			fmt.Fprintf(w, "left behind: %d goroutines, %d descriptors\n", len(goroutines), max(len(open)-before, 0))
			if len(open) > before {
				fmt.Fprintf(w, "%d descriptors before, now %q\n", before, open)
			}
			fmt.Fprintln(w, strings.Join(goroutines, "\n\n"))
			return 1
		}
	}
}

// Goroutines returns the stacks of the goroutines, other than the caller's, that
// contain one of the marks; without marks, of all of them.
func Goroutines(marks ...string) []string {
	buffer := make([]byte, 8<<20)
	stacks := strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n")
	return slices.DeleteFunc(stacks[1:], func(s string) bool {
		return len(marks) > 0 && !slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(s, m) })
	})
}

// Descriptors lists what the process has open, each as its number and what it
// is, such as "7 socket:[4711]"; nil where the system does not tell.
func Descriptors() []string {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var open []string
	for _, e := range dir {
		// The descriptor that the folder was read by is closed by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+" "+to)
		}
	}
	return open
}

// Sockets returns how many sockets the process has open; 0 where the system
// does not tell.
func Sockets() int {
	n := 0
	for _, d := range Descriptors() {
		if strings.Contains(d, " socket:") {
			n++
		}
	}
	return n
}

// warmUp makes the runtime open what it keeps.
func warmUp() {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
	if r, w, err := os.Pipe(); err == nil {
		_ = r.SetDeadline(time.Now())
		_, _ = r.Close(), w.Close()
	}
	_ = exec.Command("true").Run()
}
