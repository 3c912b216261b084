package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
)

// Load and upstreams are processes of this same program, so of the tests' here.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func noEnv(string) string { return "" }

// TestCarpoolAlone runs every workload for a moment, with carpool alone: each has to have right answers.
func TestCarpoolAlone(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Chdir("../..")
	var out, progress bytes.Buffer
	args := []string{"--quick", "--rounds", "1", "--seconds", "0.05", "--only", "carpool,direct", "--idle", "20,60",
		"--workload", "keepalive,close,one,rate,bodies,hosts-100,https,http2,connect,inside,idle,start"}
	if code := run(t.Context(), args, os.Getenv, &out, &progress); code != 0 {
		t.Fatalf("exit %d: %s", code, &progress)
	}
	said := progress.String()
	if strings.Contains(said, "ERRORS") {
		t.Errorf("wrong answers:\n%s", said)
	}
	for _, name := range []string{"keepalive", "close", "one-close", "rate-close", "down", "up", "hosts-100", "https-down",
		"connect-bulk", "connect-tls", "inside", "inside-close", "idle", "start"} {
		if !strings.Contains(said, "] "+name+" ") {
			t.Errorf("%s was not measured:\n%s", name, said)
		}
	}
	for _, want := range []string{"| 32 clients, 100 upstreams in turn |", "### CPU for each request", "### Added latency", "### Memory",
		"from exec to the first answered request", "carpool "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if children := proc.Tree(os.Getpid())[1:]; len(children) > 0 {
		t.Errorf("processes left over: %v", children)
	}
}

// TestItCleansUpWhenItIsInterrupted: the figures until then are printed, and nothing stays.
func TestItCleansUpWhenItIsInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Chdir("../..")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	progress := &watcher{for_: "] keepalive ", then: interrupt}
	var out bytes.Buffer
	args := []string{"--rounds", "100", "--seconds", "0.05", "--only", "carpool", "--workload", "keepalive"}
	if code := run(ctx, args, os.Getenv, &out, progress); code != 1 {
		t.Errorf("exit %d", code)
	}
	if !strings.Contains(progress.text, "interrupted") || !strings.Contains(out.String(), "32 clients, kept connections") {
		t.Errorf("%s\n%s", progress.text, &out)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if children := proc.Tree(os.Getpid())[1:]; len(children) > 0 {
		t.Errorf("processes left over: %v", children)
	}
}

// watcher calls then once what is written contains a text.
type watcher struct {
	text, for_ string
	then       func()
}

func (w *watcher) Write(b []byte) (int, error) {
	if w.text += string(b); strings.Contains(w.text, w.for_) {
		w.then()
	}
	return len(b), nil
}

func TestOptions(t *testing.T) {
	o, err := parse([]string{"--quick", "--rounds", "3", "--also", "old=/bin/old", "--workload", "close,one", "--only", "haproxy,Envoy",
		"--write", "a.md", "--write", "b.md"}, func(string) string { return "/bin/carpool" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 3 || o.seconds != 150*time.Millisecond || o.carpool != "/bin/carpool" || o.also[0] != (named{"old", "/bin/old"}) ||
		len(o.workloads) != 2 || o.workloads[1].name != "one" || !slices.Equal(o.only, []string{"haproxy", "envoy"}) || len(o.write) != 2 {
		t.Errorf("%+v", o)
	}
	if o, err := parse(nil, noEnv, io.Discard); err != nil || o.rounds != 7 || o.seconds != 2*time.Second || len(o.workloads) != len(workloads()) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--workload", "nothing"}, {"--only", "nothing"}, {"--also", "old"}, {"--rounds", "-1"}, {"--seconds", "-1"},
		{"--idle", "5"}, {"--idle", "9,5"}, {"--idle", "x"}, {"--proxy-cpus", "4000"}, {"--proxy-cpus", "x"}, {"rest"}, {"--unknown"}} {
		if _, err := parse(bad, noEnv, io.Discard); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestBadOptionsAndHelpHaveTheirExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{{[]string{"--help"}, 0, "hosts-10000"}, {[]string{"--workload", "x"}, 2, "--help lists them"}} {
		var said bytes.Buffer
		if code := run(t.Context(), c.args, noEnv, io.Discard, &said); code != c.code || !strings.Contains(said.String(), c.says) {
			t.Errorf("%q: exit %d, %s", c.args, code, &said)
		}
	}
}

func TestWorkloadsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range workloads() {
		for _, a := range w.asks {
			if seen[a.name] || a.title == "" || len(a.turns) == 0 {
				t.Errorf("%s: %q, %d turns, known: %t", a.name, a.title, len(a.turns), seen[a.name])
			}
			seen[a.name] = true
		}
	}
}

func TestEachConfigurationCanBeRendered(t *testing.T) {
	dir := t.TempDir()
	at := place{Dir: dir, Plain: "127.0.0.1:1", Secure: "127.0.0.1:2", Second: "127.0.0.1:3", PlainPort: 1, SecurePort: 2, SecondPort: 3,
		CA: "/ca.pem", Threads: 1, Files: 1000, Clients: 100, Connections: 200, Hosts: []string{"127.1.0.1:80", "127.1.0.2:80"}, User: "proxy"}
	for _, p := range others {
		path := filepath.Join(dir, p.config)
		if err := render(p.config, at, path); err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		text, _ := os.ReadFile(path)
		if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "/ca.pem") || strings.Contains(string(text), "<no value>") {
			t.Errorf("%s:\n%s", p.name, text)
		}
	}
}

func TestVersionsAreFoundInWhatProgramsSay(t *testing.T) {
	for said, want := range map[string]string{
		"HAProxy version 3.2.26-1 2026/10/14 - https://haproxy.org/":                      "3.2.26",
		"nginx version: nginx/1.30.6":                                                     "1.30.6",
		"Squid Cache: Version 5.7\nService Name: squid":                                   "5.7",
		"/opt/3.11.7/bin/envoy  version: 9e5580933739775e/1.40.0/Clean/RELEASE/BoringSSL": "1.40.0",
		"unknown flag -v": "",
	} {
		if got := versionIn(said); got != want {
			t.Errorf("%q in %q, not %q", got, said, want)
		}
	}
}

func TestWhatLimitedALoad(t *testing.T) {
	const second = time.Second
	for want, c := range map[string]struct {
		s       spell
		proxies int
		shared  bool
	}{
		"load and upstream": {spell{took: second, load: second / 2, upstream: second * 45 / 100, proxy: second / 2}, 1, true},
		"load":              {spell{took: second, load: second * 95 / 100, proxy: second}, 1, false},
		"upstream":          {spell{took: second, upstream: second * 95 / 100}, 1, false},
		"proxy":             {spell{took: second, load: second / 2, upstream: second * 45 / 100, proxy: second * 93 / 100}, 1, false},
		"hand-offs":         {spell{took: second, load: second / 2, upstream: second * 4 / 10, proxy: second * 93 / 100}, 2, true},
	} {
		if got := c.s.bound(c.proxies, c.shared); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

func TestWhatOthersTookIsTheRest(t *testing.T) {
	before := sight{machine: proc.Machine{Busy: 1000}}
	after := sight{at: before.at.Add(2 * time.Second), proxy: proc.Usage{CPU: time.Second}, load: 500 * time.Millisecond,
		upstream: 300 * time.Millisecond, self: 100 * time.Millisecond, machine: proc.Machine{Busy: 1250}}
	if got := after.since(before).others(); got < 29.99 || got > 30.01 {
		t.Errorf("%g %%", got)
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int]string{7: "7", 999: "999", 1000: "1,000", 6666: "6,666", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %s, not %s", n, got, want)
		}
	}
}
