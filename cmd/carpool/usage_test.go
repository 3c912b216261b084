package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

// output is what one run of carpool leaves.
type output struct {
	code           int
	stdout, stderr string
}

func command(t testing.TB, environ []string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), args, environ, &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

func TestExitCodesOfTheCommandLine(t *testing.T) {
	cases := map[string]struct {
		args   []string
		code   int
		stdout string // begins so
		stderr string // holds this
	}{
		"version":                 {[]string{"version"}, exitOK, "carpool ", ""},
		"help":                    {[]string{"help"}, exitOK, usage, ""},
		"-h":                      {[]string{"-h"}, exitOK, usage, ""},
		"--help":                  {[]string{"--help"}, exitOK, usage, ""},
		"config":                  {[]string{"config"}, exitOK, "CARPOOL_LISTEN=127.0.0.1:3128\n", ""},
		"table":                   {[]string{"config", "--table"}, exitOK, "| variable |", ""},
		"preload":                 {[]string{"preload"}, exitOK, "// carpool's script for Node.js", ""},
		"unknown command":         {[]string{"swim"}, exitUsage, "", `["swim"]`},
		"unknown flag":            {[]string{"--port=3128"}, exitUsage, "", `["--port=3128"]`},
		"config with a flag":      {[]string{"config", "--json"}, exitUsage, "", `["config" "--json"]`},
		"preload with more":       {[]string{"preload", "here"}, exitUsage, "", `["preload" "here"]`},
		"version with more":       {[]string{"version", "2"}, exitUsage, "", `["version" "2"]`},
		"serve with more":         {[]string{"serve", "now"}, exitUsage, "", `["serve" "now"]`},
		"ready for good bye":      {[]string{"ready", "now"}, exitUsage, "", `"now" is no option`},
		"ready, but when":         {[]string{"ready", "--wait", "soon"}, exitUsage, "", "carpool ready: "},
		"inject":                  {[]string{"inject", "-h"}, exitOK, "usage: carpool inject", ""},
		"inject, but what":        {[]string{"inject"}, exitUsage, "", "give a file by -f"},
		"uninject, but what":      {[]string{"uninject", "--https"}, exitUsage, "", "carpool uninject: "},
		"inject what is not":      {[]string{"inject", "-f", "no/such/file"}, exitFault, "", "no/such/file"},
		"flag of another command": {[]string{"--table"}, exitUsage, "", `["--table"]`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := command(t, nil, c.args...)
			if got.code != c.code {
				t.Errorf("exit code %d, want %d", got.code, c.code)
			}
			if !strings.HasPrefix(got.stdout, c.stdout) || c.stdout == "" && got.stdout != "" {
				t.Errorf("stdout is %q, want %q…", got.stdout, c.stdout)
			}
			if !strings.Contains(got.stderr, c.stderr) || c.stderr == "" && got.stderr != "" {
				t.Errorf("stderr is %q, want %q in it", got.stderr, c.stderr)
			}
			if c.code == exitUsage && !strings.Contains(strings.ToLower(got.stderr), "usage:") && !strings.Contains(got.stderr, " -h.") {
				t.Errorf("stderr does not show the usage: %q", got.stderr)
			}
		})
	}
}

// TestTheProgramTellsExitCodes is what the tests of run cannot see: that main
// hands over arguments, environment, output and code.
func TestTheProgramTellsExitCodes(t *testing.T) {
	t.Parallel()
	got := process(t, []string{"CARPOOL_IDLE_TIMEOUT=45s"}, "config")
	if got.code != exitOK || !strings.Contains(got.stdout, "CARPOOL_IDLE_TIMEOUT=45s  # default 50s\n") || got.stderr != "" {
		t.Errorf("config: %+v", got)
	}
	got = process(t, []string{"CARPOOL_IDLE_TIMEOUT=soon"})
	if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "CARPOOL_IDLE_TIMEOUT") {
		t.Errorf("a bad setting: %+v", got)
	}
	if got = process(t, nil, "swim"); got.code != exitUsage || got.stdout != "" {
		t.Errorf("a bad argument: %+v", got)
	}
	if got = process(t, nil, "version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "carpool ") {
		t.Errorf("version: %+v", got)
	}
}

// badSettings are wrong each in its own way. The values are what must be
// expected instead, as far as the test goes.
var badSettings = map[string]string{
	"CARPOOL_LISTEN=example.com:3128":     "127.0.0.1:3128",
	"CARPOOL_ADMIN_LISTEN=9128":           ":9128",
	"CARPOOL_LOG_LEVEL=loud":              "debug, info, warn or error",
	"CARPOOL_ACCESS_LOG=some":             "errors",
	"CARPOOL_IDLE_TIMEOUT=50":             "50s",
	"CARPOOL_MAX_CONN_AGE_JITTER=2":       "from 0 to 1",
	"CARPOOL_MAX_CONNS_PER_HOST=-1":       "0 or more",
	"CARPOOL_DIAL_TIMEOUT=0":              "more than 0",
	"CARPOOL_MAX_HEADER_BYTES=64KB":       "64KiB",
	"CARPOOL_CONNECT_PORTS=https":         "443,8443",
	"CARPOOL_NO_REUSE_HOSTS=http://old":   ".old.example.com",
	"CARPOOL_VIA=perhaps":                 "true or false",
	"CARPOOL_DRAIN_DELAY=30s":             "at most CARPOOL_DRAIN_TIMEOUT",
	"CARPOOL_RETRY_IDEMPOTENCY_KEY=sure?": "true or false",
}

func TestO6BadSettingsAreAllNamedAtOnce(t *testing.T) {
	environ := []string{"CARPOOL_MAX_IDEL_PER_HOST=5"} // an unknown one beside them is named, too
	for setting := range badSettings {
		environ = append(environ, setting)
	}
	for _, args := range [][]string{nil, {"serve"}, {"config"}} {
		got := command(t, environ, args...)
		if got.code != exitUsage || got.stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q", args, got.code, got.stdout)
		}
		for setting, expected := range badSettings {
			name, value, _ := strings.Cut(setting, "=")
			if !hasLine(got.stderr, name, value, expected) {
				t.Errorf("%q: no line of stderr has %q, %q and %q:\n%s", args, name, value, expected, got.stderr)
			}
		}
		if !hasLine(got.stderr, "CARPOOL_MAX_IDEL_PER_HOST", "did you mean CARPOOL_MAX_IDLE_PER_HOST?") {
			t.Errorf("%q: the unknown variable is not named:\n%s", args, got.stderr)
		}
	}
}

// hasLine reports whether one line of a text holds all of these.
func hasLine(text string, all ...string) bool {
lines:
	for line := range strings.Lines(text) {
		for _, s := range all {
			if !strings.Contains(line, s) {
				continue lines
			}
		}
		return true
	}
	return false
}

func TestO6BadFilesAndAddressesAreNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("nothing here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".not"} {
		got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_CA_FILE=" + file}, ports...))
		if got.code != exitUsage || !strings.Contains(got.stderr, "CARPOOL_CA_FILE") || !strings.Contains(got.stderr, file) {
			t.Errorf("CA file %s: %+v", file, got)
		}
	}
	for _, name := range []string{"CARPOOL_LISTEN", "CARPOOL_ADMIN_LISTEN"} {
		wrong := name + "=[fe80::1]:0" // a link-local address needs a zone
		got := command(t, append([]string{"GOMAXPROCS=as it is", wrong}, ports[0], ports[1]))
		if got.code != exitFault || !hasLine(got.stderr, wrong, "invalid argument") {
			t.Errorf("%s: %+v", wrong, got)
		}
	}
	both := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_PRELOAD_DIR=" + empty, "CARPOOL_CA_FILE=" + empty}, ports...))
	if both.code != exitUsage || !hasLine(both.stderr, "CARPOOL_PRELOAD_DIR="+empty) || !hasLine(both.stderr, "CARPOOL_CA_FILE") {
		t.Errorf("both: %+v", both)
	}
	if got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_PRELOAD_DIR=" + empty}, ports...)); got.code != exitUsage ||
		!hasLine(got.stderr, "CARPOOL_PRELOAD_DIR="+empty, "may write to", "not a directory") {
		t.Errorf("preload directory: %+v", got)
	}
}

func TestO6UnknownNamesAreWarningsOnly(t *testing.T) {
	t.Parallel()
	environ := []string{
		"CARPOOL_IDLE_TIMEOUTS=9s", "CARPOOL_FROM_A_LATER_CHART=1",
		"CARPOOL_SERVICE_HOST=10.0.0.1", "CARPOOL_PORT=tcp://10.0.0.1:80", // of a Service named carpool
	}
	got := command(t, environ, "config")
	if got.code != exitOK || !strings.Contains(got.stdout, "CARPOOL_IDLE_TIMEOUT=50s\n") {
		t.Errorf("config: %+v", got)
	}
	if !hasLine(got.stderr, "CARPOOL_IDLE_TIMEOUTS", "did you mean CARPOOL_IDLE_TIMEOUT?") ||
		!hasLine(got.stderr, "CARPOOL_FROM_A_LATER_CHART") || strings.Count(got.stderr, "\n") != 2 {
		t.Errorf("config warns: %q", got.stderr)
	}
	c := runCarpool(t, environ...)
	warnings := 0
	for _, line := range c.log.lines() {
		if line["level"] == "warn" {
			warnings++
		}
	}
	if warnings != 2 || !hasLine(c.log.String(), "CARPOOL_IDLE_TIMEOUTS", "did you mean CARPOOL_IDLE_TIMEOUT?") {
		t.Errorf("%d warnings, want 2:\n%s", warnings, c.log)
	}
}

func TestConfigShowsWhatIsInForce(t *testing.T) {
	got := command(t, []string{"CARPOOL_VIA=true", "CARPOOL_MAX_IDLE_PER_HOST=", "CARPOOL_CONNECT_PORTS=443, 8443", "LISTEN=:1"}, "config")
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	for _, line := range []string{
		"CARPOOL_VIA=true  # default false\n", "CARPOOL_CONNECT_PORTS=443,8443  # default empty\n",
		"CARPOOL_MAX_IDLE_PER_HOST=1024\n", "CARPOOL_LISTEN=127.0.0.1:3128\n",
	} {
		if !strings.Contains(got.stdout, line) {
			t.Errorf("no %q in\n%s", line, got.stdout)
		}
	}
	if n := strings.Count(got.stdout, "\n"); n != len(config.Settings()) {
		t.Errorf("%d lines for %d settings", n, len(config.Settings()))
	}
	// What it prints can be given back to it.
	var environ []string
	for line := range strings.Lines(got.stdout) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		environ = append(environ, line)
	}
	if again := command(t, environ, "config"); again != got {
		t.Errorf("given back:\n%s%s\nbefore:\n%s", again.stdout, again.stderr, got.stdout)
	}
}

// TestREADMEHoldsTheTableOfSettings keeps the table up to date: what stands
// between the markers is the output of `carpool config --table`.
func TestREADMEHoldsTheTableOfSettings(t *testing.T) {
	const begin, end = "<!-- settings -->\n", "<!-- /settings -->"
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), begin)
	table, _, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q … %q", begin, end)
	}
	want := command(t, nil, "config", "--table").stdout
	if strings.TrimSpace(table) == strings.TrimSpace(want) {
		return
	}
	for line := range strings.Lines(want) {
		if !strings.Contains(table, line) {
			t.Errorf("not in README.md: %s", line)
		}
	}
	t.Error("README.md is out of date: put the output of `carpool config --table` between the markers")
}
