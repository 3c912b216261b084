package preload_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/preload"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// caseTimeout is reached only by cases that hang.
const caseTimeout = 3 * time.Minute

// node finds Node.js: CARPOOL_NODE, or the machine's.
func node(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CARPOOL_NODE"); path != "" {
		return path
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node on this machine: the cases of testdata/cases.js are left out; .ci/clients has them for all versions")
	}
	return path
}

// runNode returns what a program printed, and an error with its stderr.
func runNode(ctx context.Context, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("still running after %v", caseTimeout)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return string(out), err
}

// minCases guards against a file of cases that ends early.
const minCases = 90

func TestHardCases(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs("preload.js")
	if err != nil {
		t.Fatal(err)
	}
	out, err := runNode(t.Context(), nil, node(t), filepath.Join("testdata", "cases.js"), script)
	if err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines {
		var result struct{ Name, Error string }
		if err := json.Unmarshal([]byte(line), &result); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		t.Run(result.Name, func(t *testing.T) {
			if result.Error != "" {
				t.Error(result.Error)
			}
		})
	}
	if len(lines) < minCases {
		t.Errorf("%d cases were run, want at least %d", len(lines), minCases)
	}
}

var refused = regexp.MustCompile(`(?s)const REFUSED = (.*?);`)

// TestS1TheScriptLeavesAloneWhatThePolicyRefuses keeps the script to the
// policy's list.
func TestS1TheScriptLeavesAloneWhatThePolicyRefuses(t *testing.T) {
	var want []string
	e := policy.Exemptions()
	for _, r := range e.Ranges {
		if r.IsSingleIP() {
			want = append(want, r.Addr().String())
		} else {
			want = append(want, r.String())
		}
	}
	want = append(want, e.Names...)
	var got []string
	if m := refused.FindSubmatch(preload.Script); m != nil {
		for piece := range strings.SplitSeq(string(m[1]), "+") {
			got = append(got, strings.Split(strings.Trim(piece, " \n,'"), ",")...)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("REFUSED has\n%q\nwrite\n%q", got, want)
	}
}

// TestScriptIsLoadedByNODE_OPTIONS is the way it is meant to be used: the bytes
// of Script, in a file, before the program.
func TestScriptIsLoadedByNODE_OPTIONS(t *testing.T) {
	t.Parallel()
	binary := node(t)
	file := filepath.Join(t.TempDir(), "preload.js")
	if err := os.WriteFile(file, preload.Script, 0o600); err != nil {
		t.Fatal(err)
	}
	const program = `console.log(Symbol.for('carpool.preload') in require('http').Agent.prototype)`
	for proxy, want := range map[string]string{"http://127.0.0.1:3128": "true\n", "": "false\n"} {
		out, err := runNode(t.Context(), []string{"NODE_OPTIONS=--require=" + file, "HTTP_PROXY=" + proxy}, binary, "-e", program)
		if err != nil || out != want {
			t.Errorf("HTTP_PROXY=%q: printed %q (%v), want %q", proxy, out, err, want)
		}
	}
}
