package admin_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// loops is a pool, or a proxy, that lags as told.
type loops struct{ lag atomic.Int64 }

func (l *loops) Lag() time.Duration { return time.Duration(l.lag.Load()) }

type (
	fakePool   struct{ loops }
	fakeProxy  struct{ loops }
	fakeMemory struct{}
	fakeLog    struct{}
	fakeCerts  struct{}
)

func (*fakePool) Snapshot() pool.Snapshot { return pool.Snapshot{} }
func (*fakePool) Inspect(pool.Key) (pool.Inspection, bool) {
	return pool.Inspection{}, false
}
func (*fakeProxy) Stats() proxy.Stats     { return proxy.Stats{} }
func (fakeCerts) Stats() certs.Stats      { return certs.Stats{Renewed: 1} }
func (fakeLog) Dropped() (uint64, uint64) { return 3, 4 }
func (fakeMemory) Stats() memory.Stats {
	return memory.Stats{Limit: 64 << 20, Used: 60 << 20, Shedding: true, Refused: 7}
}

func TestProbesTellOfWhatIsStuckAndOfWhenItServesAndMetricsOfMemory(t *testing.T) {
	t.Parallel()
	s, err := admin.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var upstreams fakePool
	var clients fakeProxy
	s.Serve(admin.Sources{Pool: &upstreams, Proxy: &clients, Bypass: bypass.New(nil, nil), Memory: fakeMemory{}, Log: fakeLog{}, Certs: fakeCerts{}, MaxConns: admin.DefaultConnections, Quit: func() {}})
	get := func(path string) (int, string) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
		r, err := client.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	for _, l := range []*loops{&upstreams.loops, &clients.loops} {
		for lag, status := range map[time.Duration]int{0: 200, 14 * time.Second: 200, 16 * time.Second: 503} {
			l.lag.Store(int64(lag))
			if got, body := get("/healthz"); got != status || status == 503 && body != "stuck for 16s\n" {
				t.Errorf("with a lag of %v: %d, %q", lag, got, body)
			}
		}
		l.lag.Store(0)
	}
	for _, step := range []struct {
		change func()
		status int
		body   string
	}{
		{func() {}, 503, "starting\n"}, {s.Ready, 200, "ok\n"}, {s.NotReady, 503, "draining\n"}, {s.Ready, 503, "draining\n"},
	} {
		step.change()
		if got, body := get("/readyz"); got != step.status || body != step.body {
			t.Errorf("/readyz: %d, %q, want %d, %q", got, body, step.status, step.body)
		}
	}
	_, text := get("/metrics")
	for _, line := range []string{
		"carpool_memory_limit_bytes 6.7108864e+07", "carpool_memory_used_bytes 6.291456e+07", "carpool_shedding 1",
		"carpool_requests_shed_total 7", `carpool_log_lines_dropped_total{reason="unread"} 3`, `carpool_log_lines_dropped_total{reason="flood"} 4`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %q in the metrics", line)
		}
	}
}

// A page that somebody in the pod's network looks at, through a forwarded port say, must not be able to end carpool: not
// by a form, and not by a name of its own that leads to 127.0.0.1.
func TestQuitquitquitIsNoneOfABrowsersOtherPagesBusiness(t *testing.T) {
	t.Parallel()
	s, err := admin.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	quits := make(chan struct{}, 1)
	s.Serve(admin.Sources{
		Pool: &fakePool{}, Proxy: &fakeProxy{}, Bypass: bypass.New(nil, nil), Memory: fakeMemory{}, Log: fakeLog{}, Certs: fakeCerts{},
		MaxConns: admin.DefaultConnections, Quit: func() { quits <- struct{}{} },
	})
	for _, c := range []struct {
		host, origin, site string
		status             int
	}{
		{"127.0.0.1:9128", "", "", 200},
		{"127.0.0.1", "", "", 200},
		{"localhost:9128", "", "", 200},
		{"LOCALHOST", "", "", 200},
		{"[::1]:9128", "", "", 200},
		{"[::1]", "", "", 200},
		{"10.1.2.3:9128", "", "", 200},
		{"127.0.0.1:9128", "http://127.0.0.1:9128", "same-origin", 200},
		{"127.0.0.1:9128", "", "none", 200},
		{"evil.example:9128", "", "", 403},
		{"localhost.evil.example:9128", "", "", 403},
		{"127.0.0.1.evil.example", "", "", 403},
		{"evil.example:9128", "http://evil.example:9128", "same-origin", 403}, // the name leads to 127.0.0.1
		{"127.0.0.1:9128", "http://evil.example", "", 403},
		{"127.0.0.1:9128", "null", "", 403},
		{"127.0.0.1:9128", "http://127.0.0.1:8080", "", 403},
		{"127.0.0.1:9128", "https://127.0.0.1:9128", "", 403},
		{"127.0.0.1:9128", "", "cross-site", 403},
		{"127.0.0.1:9128", "", "same-site", 403},
	} {
		r, err := http.NewRequest(http.MethodPost, "http://"+s.Addr().String()+"/quitquitquit", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%+v: status %d", c, answer.StatusCode)
		}
		if answer.StatusCode == http.StatusOK {
			<-quits
		}
		select {
		case <-quits:
			t.Errorf("%+v: it quits", c)
		default:
		}
	}
}
