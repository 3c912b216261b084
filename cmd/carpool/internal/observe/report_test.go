package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The figures are those of docs/BALANCE.md and the README: one new connection for 32 requests at 10 a second, for 70 at
// 50, for 173 at 300.
func TestWhatCarpoolWouldOpen(t *testing.T) {
	m := defaultModel()
	for name, c := range map[string]struct {
		rate   float64 // a second
		atOnce int
		over   time.Duration
		want   float64
	}{
		"10 a second":                       {10, 1, time.Minute, 600.0 / 32},
		"50 a second":                       {50, 1, time.Minute, 3000.0 / 70},
		"300 a second":                      {300, 4, time.Minute, 18000.0 / 173},
		"one a second":                      {1, 1, time.Minute, 3}, // one that is replaced every 20 seconds
		"one a minute":                      {1.0 / 60, 1, time.Minute, 1},
		"many at once":                      {50, 100, time.Minute, 300},
		"many at once, for a moment":        {50, 100, 2 * time.Second, 100},
		"an app that keeps its connections": {0.5, 50, time.Minute, 30},
		"nothing":                           {0, 5, time.Minute, 0},
	} {
		if got := m.opens(c.rate*c.over.Seconds(), c.atOnce, c.over); !within(got, c.want, 0.03) {
			t.Errorf("%s: %.1f, want %.1f", name, got, c.want)
		}
	}
}

func TestPortsSayWhatIsPooled(t *testing.T) {
	for _, c := range []struct {
		addr  string
		ports []uint16
		want  string
	}{
		{"10.0.0.1:80", nil, protocolHTTP},
		{"10.0.0.1:3000", nil, protocolHTTP},
		{"10.0.0.1:443", nil, protocolTLS},
		{"10.0.0.1:5432", nil, protocolOther},
		{"169.254.169.254:80", nil, protocolRefused},
		{"10.0.0.1:80", []uint16{8080}, protocolOther},
		{"10.0.0.1:8443", []uint16{8443}, protocolHTTP},
		{"10.0.0.1:443", []uint16{8080}, protocolTLS},
	} {
		if got := protocolOf(netip.MustParseAddrPort(c.addr), c.ports, false); got != c.want {
			t.Errorf("%s with %v: %s, want %s", c.addr, c.ports, got, c.want)
		}
	}
}

// example has a destination of each kind.
func example() Report {
	r := Report{Seconds: 60, Counted: countedAll, Destinations: []Destination{
		{Address: netip.MustParseAddrPort("10.9.0.1:80"), Protocol: protocolHTTP, Opened: 12000, TimeWait: 11950, AtOnce: 12, WouldOpen: 85, Saved: 11915, RoundTrip: 0.5, Waiting: 5957.5},
		{Address: netip.MustParseAddrPort("10.9.0.2:5432"), Protocol: protocolOther, Opened: 0, AtOnce: 10, Kept: 10},
	}, Processes: []Process{{Runtime: "Node.js", PIDs: []int{7}, Annotation: `carpoolproxy.github.io/preload: "true"`}}}
	r.judge()
	return r
}

func TestTheReportSaysWhatThereIsToGain(t *testing.T) {
	kept := Report{Counted: countedAll, Destinations: []Destination{{Address: netip.MustParseAddrPort("10.9.0.1:80"), Protocol: protocolHTTP, AtOnce: 5, Kept: 5}}}
	kept.judge()
	quiet := Report{Counted: countedLooks, ProxyThere: true}
	quiet.judge()
	scaled := example()
	scaled.Counted, scaled.Unseen = countedScaled, 4321
	lost := Report{Counted: countedScaled, Unseen: 50, Unplaced: 50}
	lost.judge()
	for name, c := range map[string]struct {
		report Report
		holds  []string
	}{
		"gain": {example(), []string{"about 11,915 handshakes a minute, and about 6.0 s of waiting", "an estimate", "not HTTP, by its port",
			"0.5 ms", "Node.js runs here (process 7)", "NODE_OPTIONS=--require=", `annotation carpoolproxy.github.io/preload: "true" does it`}},
		"kept":   {kept, []string{"Nothing to gain: the app keeps its connections", "No process of a known runtime can be seen", "--target=CONTAINER"}},
		"quiet":  {quiet, []string{"Nothing is known", "Something listens on port 3128 already", "by the kernel's count none was missed"}},
		"scaled": {scaled, []string{"4,321 more were opened", "in proportion"}},
		"lost":   {lost, []string{"Where they led is not known", "Nothing to gain: as far as it is known"}},
	} {
		var b bytes.Buffer
		if err := c.report.write(&b); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.holds {
			if !strings.Contains(b.String(), s) {
				t.Errorf("%s: no %q in\n%s", name, s, &b)
			}
		}
	}
}

func TestTheReportIsJSON(t *testing.T) {
	text, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, example()) {
		t.Errorf("%s: %v", text, err)
	}
	if !strings.Contains(string(text), `"address":"10.9.0.1:80"`) || !strings.Contains(string(text), `"verdict":"gain"`) {
		t.Errorf("%s", text)
	}
}

func TestRuntimesAreFoundAmongProcesses(t *testing.T) {
	proc := t.TempDir()
	for pid, files := range map[string][2]string{
		"1":    {"/pause", ""},
		"7":    {"/usr/local/bin/node\x00server.js", "PATH=/bin\x00HTTP_PROXY=http://me:secret@proxy:3128\x00"},
		"12":   {"node\x00worker.js", ""},
		"15":   {"/usr/bin/python3.11\x00-m\x00app", "A=b"},
		"16":   {"puma 6.4.0 (tcp://0.0.0.0:3000) [shop]", ""},
		"17":   {"nodemon", ""},
		"self": {"node", ""},
	} {
		folder := filepath.Join(proc, pid)
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"cmdline", "environ"} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []Process{
		{Runtime: "Node.js", PIDs: []int{7, 12}, Proxy: "HTTP_PROXY=…@proxy:3128", Annotation: `carpoolproxy.github.io/preload: "true"`},
		{Runtime: "Python", PIDs: []int{15}},
		{Runtime: "Ruby", PIDs: []int{16}},
	}
	if got := processes(proc); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := processes(filepath.Join(proc, "none")); got == nil || len(got) > 0 {
		t.Errorf("without /proc: %+v", got)
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"now": `"now" is no option`, "--for soon": "", "--for 0": "want a second or more", "--for 10ms": "want a second or more", "--ports 80,http": "want ports from 1 to 65535",
	} {
		var stdout, stderr bytes.Buffer
		code := Run(context.Background(), strings.Fields(args), &stdout, &stderr)
		if code != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), want) || !strings.Contains(stderr.String(), usage) {
			t.Errorf("%s: %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
	var stdout bytes.Buffer
	if code := Run(context.Background(), []string{"-h"}, &stdout, nil); code != exitOK || stdout.String() != usage {
		t.Errorf("-h: %d, %q", code, &stdout)
	}
}
