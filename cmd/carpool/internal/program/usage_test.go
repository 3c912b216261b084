package program_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
)

func command(t testing.TB, environ []string, args ...string) carpooltest.Output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := program.Run(context.Background(), args, environ, &stdout, &stderr)
	return carpooltest.Output{Code: code, Stdout: stdout.String(), Stderr: stderr.String()}
}

func TestExitCodesOfTheCommandLine(t *testing.T) {
	cases := map[string]struct {
		args   []string
		code   int
		stdout string // begins so
		stderr string // holds this
	}{
		"version":                 {[]string{"version"}, program.ExitOK, "carpool ", ""},
		"help":                    {[]string{"help"}, program.ExitOK, program.Usage, ""},
		"-h":                      {[]string{"-h"}, program.ExitOK, program.Usage, ""},
		"--help":                  {[]string{"--help"}, program.ExitOK, program.Usage, ""},
		"config":                  {[]string{"config"}, program.ExitOK, "CARPOOL_LISTEN=127.0.0.1:3128\n", ""},
		"table":                   {[]string{"config", "--table"}, program.ExitOK, "| variable |", ""},
		"preload":                 {[]string{"preload"}, program.ExitOK, "// carpool's script for Node.js", ""},
		"unknown command":         {[]string{"swim"}, program.ExitUsage, "", `["swim"]`},
		"unknown flag":            {[]string{"--port=3128"}, program.ExitUsage, "", `["--port=3128"]`},
		"config with a flag":      {[]string{"config", "--json"}, program.ExitUsage, "", `["config" "--json"]`},
		"preload with more":       {[]string{"preload", "here"}, program.ExitUsage, "", `["preload" "here"]`},
		"version with more":       {[]string{"version", "2"}, program.ExitUsage, "", `["version" "2"]`},
		"serve with more":         {[]string{"serve", "now"}, program.ExitUsage, "", `["serve" "now"]`},
		"ready for good bye":      {[]string{"ready", "now"}, program.ExitUsage, "", `"now" is no option`},
		"ready, but when":         {[]string{"ready", "--wait", "soon"}, program.ExitUsage, "", "carpool ready: "},
		"check":                   {[]string{"check", "-h"}, program.ExitOK, "Usage:\n  carpool check [-v] [--json] URL...", ""},
		"check, but what":         {[]string{"check"}, program.ExitUsage, "", "it is not said what to check"},
		"check something else":    {[]string{"check", "--seen", "here"}, program.ExitUsage, "", `"here" is no option`},
		"observe":                 {[]string{"observe", "-h"}, program.ExitOK, "Usage:\n  carpool observe", ""},
		"observe for no time":     {[]string{"observe", "--for", "0s"}, program.ExitUsage, "", "carpool observe: --for 0s: want a second or more"},
		"check what is no URL":    {[]string{"check", "orders"}, program.ExitUsage, "", `"orders" is neither`},
		"inject":                  {[]string{"inject", "-h"}, program.ExitOK, "usage: carpool inject", ""},
		"inject, but what":        {[]string{"inject"}, program.ExitUsage, "", "give a file by -f"},
		"uninject, but what":      {[]string{"uninject", "--https"}, program.ExitUsage, "", "carpool uninject: "},
		"injector":                {[]string{"injector", "-h"}, program.ExitOK, "usage: carpool injector", ""},
		"injector, but with what": {[]string{"injector"}, program.ExitUsage, "", "give a file by --config FILE"},
		"injector of no file":     {[]string{"injector", "--config", "no/such/file"}, program.ExitFault, "", "no/such/file"},
		"inject what is not":      {[]string{"inject", "-f", "no/such/file"}, program.ExitFault, "", "no/such/file"},
		"flag of another command": {[]string{"--table"}, program.ExitUsage, "", `["--table"]`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := command(t, nil, c.args...)
			if got.Code != c.code {
				t.Errorf("exit code %d, want %d", got.Code, c.code)
			}
			if !strings.HasPrefix(got.Stdout, c.stdout) || c.stdout == "" && got.Stdout != "" {
				t.Errorf("stdout is %q, want %q…", got.Stdout, c.stdout)
			}
			if !strings.Contains(got.Stderr, c.stderr) || c.stderr == "" && got.Stderr != "" {
				t.Errorf("stderr is %q, want %q in it", got.Stderr, c.stderr)
			}
			if c.code == program.ExitUsage && !strings.Contains(strings.ToLower(got.Stderr), "usage:") && !strings.Contains(got.Stderr, " -h.") {
				t.Errorf("stderr does not show the usage: %q", got.Stderr)
			}
		})
	}
}

// TestTheProgramTellsExitCodes is what the tests of run cannot see: that main
// hands over arguments, environment, output and code.
func TestTheProgramTellsExitCodes(t *testing.T) {
	t.Parallel()
	got := carpooltest.Process(t, []string{"CARPOOL_IDLE_TIMEOUT=45s"}, "config")
	if got.Code != program.ExitOK || !strings.Contains(got.Stdout, "CARPOOL_IDLE_TIMEOUT=45s  # default 50s\n") || got.Stderr != "" {
		t.Errorf("config: %+v", got)
	}
	got = carpooltest.Process(t, []string{"CARPOOL_IDLE_TIMEOUT=soon"})
	if got.Code != program.ExitUsage || got.Stdout != "" || !strings.Contains(got.Stderr, "CARPOOL_IDLE_TIMEOUT") {
		t.Errorf("a bad setting: %+v", got)
	}
	if got = carpooltest.Process(t, nil, "swim"); got.Code != program.ExitUsage || got.Stdout != "" {
		t.Errorf("a bad argument: %+v", got)
	}
	if got = carpooltest.Process(t, nil, "version"); got.Code != program.ExitOK || !strings.HasPrefix(got.Stdout, "carpool ") {
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
	"CARPOOL_BALANCE=even":                "spread reuse",
	"CARPOOL_MAX_CONNS_PER_HOST=-1":       "0 or more",
	"CARPOOL_DIAL_TIMEOUT=0":              "more than 0",
	"CARPOOL_MAX_HEADER_BYTES=64KB":       "64KiB",
	"CARPOOL_CONNECT_PORTS=https":         "443,8443",
	"CARPOOL_NO_REUSE_HOSTS=http://old":   ".old.example.com",
	"CARPOOL_WARM=orders":                 "orders:8080=4",
	"CARPOOL_CACHE_DIR=cache":             "/cache",
	"CARPOOL_ALLOW_HOSTS=*.example.com":   ".suffixes for all names below",
	"CARPOOL_DENY_HOSTS=a b":              ".suffixes for all names below",
	"CARPOOL_ALLOW_CIDRS=10.0.0.0/40":     "10.0.0.0/8",
	"CARPOOL_DENY_CIDRS=example.com":      "10.0.0.0/8",
	"CARPOOL_ALLOW_METADATA=please":       "true or false",
	"CARPOOL_POLICY=warn":                 "enforce report",
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
		if got.Code != program.ExitUsage || got.Stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q", args, got.Code, got.Stdout)
		}
		for setting, expected := range badSettings {
			name, value, _ := strings.Cut(setting, "=")
			if !hasLine(got.Stderr, name, value, expected) {
				t.Errorf("%q: no line of stderr has %q, %q and %q:\n%s", args, name, value, expected, got.Stderr)
			}
		}
		if !hasLine(got.Stderr, "CARPOOL_MAX_IDEL_PER_HOST", "did you mean CARPOOL_MAX_IDLE_PER_HOST?") {
			t.Errorf("%q: the unknown variable is not named:\n%s", args, got.Stderr)
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
		got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_CA_FILE=" + file}, carpooltest.Ports...))
		if got.Code != program.ExitUsage || !strings.Contains(got.Stderr, "CARPOOL_CA_FILE") || !strings.Contains(got.Stderr, file) {
			t.Errorf("CA file %s: %+v", file, got)
		}
	}
	for _, name := range []string{"CARPOOL_LISTEN", "CARPOOL_ADMIN_LISTEN"} {
		wrong := name + "=[fe80::1]:0" // a link-local address needs a zone
		got := command(t, append([]string{"GOMAXPROCS=as it is", wrong}, carpooltest.Ports[0], carpooltest.Ports[1]))
		if got.Code != program.ExitFault || !hasLine(got.Stderr, wrong, "invalid argument") {
			t.Errorf("%s: %+v", wrong, got)
		}
	}
	both := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_PRELOAD_DIR=" + empty, "CARPOOL_CA_FILE=" + empty}, carpooltest.Ports...))
	if both.Code != program.ExitUsage || !hasLine(both.Stderr, "CARPOOL_PRELOAD_DIR="+empty) || !hasLine(both.Stderr, "CARPOOL_CA_FILE") {
		t.Errorf("both: %+v", both)
	}
	if got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_PRELOAD_DIR=" + empty}, carpooltest.Ports...)); got.Code != program.ExitUsage ||
		!hasLine(got.Stderr, "CARPOOL_PRELOAD_DIR="+empty, "may write to", "not a directory") {
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
	if got.Code != program.ExitOK || !strings.Contains(got.Stdout, "CARPOOL_IDLE_TIMEOUT=50s\n") {
		t.Errorf("config: %+v", got)
	}
	if !hasLine(got.Stderr, "CARPOOL_IDLE_TIMEOUTS", "did you mean CARPOOL_IDLE_TIMEOUT?") ||
		!hasLine(got.Stderr, "CARPOOL_FROM_A_LATER_CHART") || strings.Count(got.Stderr, "\n") != 2 {
		t.Errorf("config warns: %q", got.Stderr)
	}
	c := carpooltest.Run(t, environ...)
	warnings := 0
	for _, line := range c.Log.Lines() {
		if line["level"] == "warn" {
			warnings++
		}
	}
	if warnings != 2 || !hasLine(c.Log.String(), "CARPOOL_IDLE_TIMEOUTS", "did you mean CARPOOL_IDLE_TIMEOUT?") {
		t.Errorf("%d warnings, want 2:\n%s", warnings, c.Log)
	}
}

func TestConfigShowsWhatIsInForce(t *testing.T) {
	got := command(t, []string{"CARPOOL_VIA=true", "CARPOOL_MAX_IDLE_PER_HOST=", "CARPOOL_CONNECT_PORTS=443, 8443", "LISTEN=:1"}, "config")
	if got.Code != program.ExitOK || got.Stderr != "" {
		t.Fatalf("%+v", got)
	}
	for _, line := range []string{
		"CARPOOL_VIA=true  # default false\n", "CARPOOL_CONNECT_PORTS=443,8443  # default empty\n",
		"CARPOOL_MAX_IDLE_PER_HOST=1024\n", "CARPOOL_LISTEN=127.0.0.1:3128\n",
	} {
		if !strings.Contains(got.Stdout, line) {
			t.Errorf("no %q in\n%s", line, got.Stdout)
		}
	}
	if n := strings.Count(got.Stdout, "\n"); n != len(config.Settings()) {
		t.Errorf("%d lines for %d settings", n, len(config.Settings()))
	}
	// What it prints can be given back to it.
	var environ []string
	for line := range strings.Lines(got.Stdout) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		environ = append(environ, line)
	}
	if again := command(t, environ, "config"); again != got {
		t.Errorf("given back:\n%s%s\nbefore:\n%s", again.Stdout, again.Stderr, got.Stdout)
	}
}

// TestREADMEHoldsTheTableOfSettings keeps the table up to date: what stands
// between the markers is the output of `carpool config --table`.
func TestREADMEHoldsTheTableOfSettings(t *testing.T) {
	const begin, end = "<!-- settings -->\n", "<!-- /settings -->"
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), begin)
	table, _, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q … %q", begin, end)
	}
	want := command(t, nil, "config", "--table").Stdout
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
