package program

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/proxy"
)

// accessLines returns what is written about records, with these settings.
func accessLines(t *testing.T, environ []string, records ...proxy.Record) string {
	t.Helper()
	cfg, _, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log := logs.New(cfg, &out)
	if write := accessLog(cfg, log.Logger); write != nil {
		for i := range records {
			write(&records[i])
		}
	}
	log.Close()
	return out.String()
}

var logFormats = []string{"json", "console"}

// O3: whatever bytes a client chose, one exchange is one line of text.
func TestHostileBytesAreOneEscapedLine(t *testing.T) {
	t.Parallel()
	hostile := "/a\r\nb\n{\"level\":\"error\"}\x1b[31m\x00\xff\xc3\"\\\t\u0085\u009b31m\u2028\u2029\u202e\u2066\u200b\ufeff\x7f"
	for _, format := range logFormats {
		for _, access := range []string{"errors", "all"} {
			out := accessLines(t, []string{"CARPOOL_LOG_FORMAT=" + format, "CARPOOL_ACCESS_LOG=" + access}, proxy.Record{
				Method: "GET\r\nX", Path: hostile, Origin: "http://h\x1b:80", Status: 502, Error: "e\nf", Detail: "d\x1b\r\n",
			})
			if strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
				t.Errorf("%s: not one line: %q", format, out)
			}
			for _, r := range strings.TrimSuffix(out, "\n") {
				if !unicode.IsPrint(r) && (r != '\t' || format == "json") {
					t.Errorf("%s: what cannot be printed, %q, is in %q", format, r, out)
				}
			}
			if format == "json" && !json.Valid([]byte(out)) {
				t.Errorf("not JSON: %q", out)
			}
		}
	}
}

// O2: a line has these fields and no others, so nothing else can be in it.
func TestAccessLogFields(t *testing.T) {
	t.Parallel()
	out := accessLines(t, []string{"CARPOOL_ACCESS_LOG=all"}, proxy.Record{
		Method: "PUT", Path: "/a/b", Origin: "http://orders:8080", Status: 502, Error: "connection_terminated", Detail: "why",
		Sent: 5, Received: 7, Duration: 1500 * time.Millisecond, Retried: true,
		Phases: proxy.Phases{
			proxy.PhaseWait: 10 * time.Millisecond, proxy.PhaseDNS: 20 * time.Millisecond, proxy.PhaseConnect: 30 * time.Millisecond,
			proxy.PhaseTLS: 40 * time.Millisecond, proxy.PhaseFirstByte: 400 * time.Millisecond, proxy.PhaseRest: time.Second,
		},
	})
	var line map[string]any
	if err := json.Unmarshal([]byte(out), &line); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if _, err := time.Parse(time.RFC3339Nano, line["ts"].(string)); err != nil {
		t.Error(err)
	}
	delete(line, "ts")
	want := map[string]any{
		"level": "warn", "msg": "request", "method": "PUT", "path": "/a/b", "origin": "http://orders:8080", "status": 502.0,
		"error": "connection_terminated", "detail": "why", "sent": 5.0, "received": 7.0, "duration": 1.5, "retried": true,
		"wait": 0.01, "dns": 0.02, "connect": 0.03, "tls": 0.04, "first_byte": 0.4, "rest": 1.0,
	}
	if !maps.Equal(line, want) {
		t.Errorf("got  %v\nwant %v", line, want)
	}
}

func TestAccessLogLeavesOutPhasesOfNoLength(t *testing.T) {
	t.Parallel()
	out := accessLines(t, []string{"CARPOOL_ACCESS_LOG=debug"}, proxy.Record{
		Status: 200, Duration: 3 * time.Second, Phases: proxy.Phases{proxy.PhaseFirstByte: 2 * time.Second, proxy.PhaseRest: time.Second},
	})
	if !strings.Contains(out, `"duration":3,"sent":0,"received":0,"first_byte":2,"rest":1}`) {
		t.Errorf("%q", out)
	}
}

func TestAccessLogLevels(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		record proxy.Record
		want   string
	}{
		"went well":          {proxy.Record{Status: 200}, "info"},
		"upstream's 404":     {proxy.Record{Status: 404}, "info"},
		"upstream's 500":     {proxy.Record{Status: 500}, "warn"},
		"client left":        {proxy.Record{Status: 499, Error: "client_gone"}, "info"},
		"client's fault":     {proxy.Record{Status: 400, Error: "http_request_error"}, "warn"},
		"broken off":         {proxy.Record{Status: 200, Error: "http_response_incomplete"}, "warn"},
		"refused connection": {proxy.Record{Status: 502, Error: "connection_refused"}, "warn"},
	} {
		out := accessLines(t, []string{"CARPOOL_ACCESS_LOG=all"}, c.record)
		if !strings.Contains(out, `"level":"`+c.want+`"`) {
			t.Errorf("%s: want %s: %q", name, c.want, out)
		}
	}
}

func TestAccessLogOff(t *testing.T) {
	t.Parallel()
	if out := accessLines(t, []string{"CARPOOL_ACCESS_LOG=off"}, proxy.Record{Status: 502}); out != "" {
		t.Errorf("%q is written", out)
	}
	if out := accessLines(t, []string{"CARPOOL_LOG_LEVEL=error", "CARPOOL_ACCESS_LOG=all"}, proxy.Record{Status: 502}); out != "" {
		t.Errorf("%q is written", out)
	}
}
