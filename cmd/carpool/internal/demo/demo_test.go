package demo_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/demo"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// Run promises that everything it started has ended: the upstream's goroutines,
// too.
func TestMain(m *testing.M) { os.Exit(testkit.Run(m, "net/http.(*conn).serve")) }

// forwarder is a carpool of thirty lines: it pools by net/http.
type forwarder struct {
	// change, if set, may spoil the URL of the nth request, counted from 1.
	change func(n int64, r *http.Request)
	// reached, if set, is called with each request.
	reached func()

	requests atomic.Int64
}

// start is a demo.Starter.
func (f *forwarder) start(ctx context.Context, environ []string, stderr io.Writer) error {
	settings := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		settings[name] = value
	}
	fmt.Fprintln(stderr, "forwarder starts")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConnsPerHost = 100
	if file := settings["CARPOOL_CA_FILE"]; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in CARPOOL_CA_FILE")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	defer transport.CloseIdleConnections()
	proxy := func(w http.ResponseWriter, r *http.Request) { f.forward(w, r, transport) }
	admin := http.NewServeMux()
	admin.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	return serveBoth(ctx, map[string]http.Handler{
		settings["CARPOOL_LISTEN"]:       http.HandlerFunc(proxy),
		settings["CARPOOL_ADMIN_LISTEN"]: admin,
	})
}

func (f *forwarder) forward(w http.ResponseWriter, r *http.Request, transport *http.Transport) {
	if f.reached != nil {
		f.reached()
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.Close = "", false
	out.Header.Del("Connection")
	if f.change != nil {
		f.change(f.requests.Add(1), out)
	}
	response, err := transport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
}

// serveBoth serves each handler on its address until ctx is done.
func serveBoth(ctx context.Context, handlers map[string]http.Handler) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	for address, handler := range handlers {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler}
		defer server.Close()
		serving.Go(func() { _ = server.Serve(listener) })
	}
	<-ctx.Done()
	return ctx.Err()
}

// result is what a run of the demo left behind.
type result struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, ctx context.Context, start demo.Starter, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := demo.Run(ctx, args, &stdout, &stderr, start)
	for _, line := range strings.Split(stdout.String(), "\n") {
		// A path of the machine's own may be longer.
		if width := utf8.RuneCountInString(line); width > 80 && !filepath.IsAbs(strings.Fields(line)[0]) {
			t.Errorf("%d columns wide: %s", width, line)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("exit %d\nstdout:\n%s\nstderr:\n%s", code, stdout.String(), stderr.String())
	}
	return result{code, stdout.String(), stderr.String()}
}

// cells returns the last n cells of the row that begins with name, or fails.
func (r result) cells(t *testing.T, name string, n int) []string {
	t.Helper()
	for _, line := range strings.Split(r.stdout, "\n") {
		if rest, found := strings.CutPrefix(strings.TrimSpace(line), name); found {
			columns := regexp.MustCompile(`[0-9.,]+( m?s)?|-`).FindAllString(rest, -1)
			if len(columns) >= n {
				return columns[len(columns)-n:]
			}
		}
	}
	t.Fatalf("no row %q of %d cells in:\n%s\nstderr:\n%s", name, n, r.stdout, r.stderr)
	return nil
}

func noStart(context.Context, []string, io.Writer) error { return errors.New("must not be started") }

func TestTableSaysWhatEachWayCost(t *testing.T) {
	var pool forwarder
	got := run(t, t.Context(), pool.start, "--requests", "60", "--concurrency", "4", "--rtt", "1ms")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
	}
	connections := got.cells(t, "connections opened at the upstream", 2)
	if connections[0] != "60" {
		t.Errorf("connections directly: %s, want one a request", connections[0])
	}
	var pooled int
	if _, err := fmt.Sscan(connections[1], &pooled); err != nil || pooled < 1 || pooled > 30 {
		t.Errorf("connections through a pool: %s, want a few", connections[1])
	}
	if lookups := got.cells(t, "name look-ups", 2); lookups[0] != connections[0] || lookups[1] != connections[1] {
		t.Errorf("look-ups %v, connections %v: want one each", lookups, connections)
	}
	if saved := got.cells(t, "handshakes saved", 2); saved[0] != "-" || saved[1] != fmt.Sprint(60-pooled) {
		t.Errorf("handshakes saved: %v", saved)
	}
	if failed := got.cells(t, "requests failed", 2); failed[0] != "0" || failed[1] != "0" {
		t.Errorf("failed: %v", failed)
	}
	for _, want := range []string{"SIMULATED", "HTTP_PROXY=http://127.0.0.1:3128", "round trip (there and back) of 1 ms"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
}

func TestTheLegacyClientAsksInAbsoluteFormAndSaysClose(t *testing.T) {
	var wrong atomic.Int64
	pool := forwarder{change: func(_ int64, r *http.Request) {
		if r.URL.Scheme != "http" || r.URL.Host == "" {
			wrong.Add(1)
		}
	}}
	if got := run(t, t.Context(), pool.start, "--requests", "5", "--concurrency", "1", "--rtt", "0"); got.code != 0 {
		t.Errorf("exit %d", got.code)
	}
	if wrong.Load() != 0 || pool.requests.Load() != 5 {
		t.Errorf("%d requests, %d not in absolute-form", pool.requests.Load(), wrong.Load())
	}
}

func TestAFailedRequestIsCountedAndExits1(t *testing.T) {
	for name, test := range map[string]struct {
		change func(n int64, r *http.Request)
		want   string
	}{
		"an answer to another request": {
			change: func(n int64, r *http.Request) {
				if n == 3 {
					r.URL.Path = "/another"
				}
			},
			want: "answer to another request",
		},
		"an error of the proxy": {
			change: func(n int64, r *http.Request) {
				if n == 3 {
					r.URL.Scheme = "gopher"
				}
			},
			want: "502 Bad Gateway",
		},
		"a lost answer": {
			change: func(n int64, _ *http.Request) {
				if n == 3 {
					panic(http.ErrAbortHandler)
				}
			},
			want: "no answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			pool := forwarder{change: test.change}
			got := run(t, t.Context(), pool.start, "--requests", "10", "--concurrency", "2", "--rtt", "0s")
			if got.code != 1 || !strings.Contains(got.stderr, "1 request failed") || !strings.Contains(got.stderr, test.want) {
				t.Errorf("exit %d, stderr %q", got.code, got.stderr)
			}
			if !strings.Contains(got.stderr, "forwarder starts") {
				t.Error("the end of carpool's log is not shown")
			}
			if failed := got.cells(t, "requests failed", 2); failed[0] != "0" || failed[1] != "1" {
				t.Errorf("failed: %v", failed)
			}
			if strings.Contains(got.stdout, "What happened") {
				t.Error("a failed demo explains a success")
			}
		})
	}
}

func TestBadUsageExits2AndStartsNothing(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":              {"--speed", "9"},
		"an argument":               {"fast"},
		"not a number":              {"--requests", "many"},
		"no requests":               {"--requests", "0"},
		"too many requests":         {"--requests", "100001"},
		"no concurrency":            {"--concurrency", "0"},
		"too much concurrency":      {"--concurrency", "501"},
		"negative round trip":       {"--rtt", "-1ms"},
		"endless round trip":        {"--rtt", "1h"},
		"round trip without a unit": {"--rtt", "5"},
		"keep with node":            {"--keep", "--node"},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, t.Context(), noStart, args...)
			if got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, "usage: carpool demo") {
				t.Errorf("exit %d, stdout %q, stderr %q", got.code, got.stdout, got.stderr)
			}
		})
	}
}

func TestHelpGoesToStdout(t *testing.T) {
	got := run(t, t.Context(), noStart, "--help")
	if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "usage: carpool demo") {
		t.Errorf("exit %d, stdout %q, stderr %q", got.code, got.stdout, got.stderr)
	}
}

func TestACarpoolThatDoesNotStartIsReportedWithItsLog(t *testing.T) {
	for name, err := range map[string]error{"error": errors.New("no such port"), "no error": nil} {
		t.Run(name, func(t *testing.T) {
			got := run(t, t.Context(), func(_ context.Context, _ []string, stderr io.Writer) error {
				fmt.Fprintln(stderr, "the reason, in the log")
				return err
			})
			if got.code != 1 || !strings.Contains(got.stderr, "carpool did not start") ||
				!strings.Contains(got.stderr, "the reason, in the log") {
				t.Errorf("exit %d, stderr %q", got.code, got.stderr)
			}
		})
	}
}

func TestCancellingStopsTheDemo(t *testing.T) {
	t.Run("before carpool is ready", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		got := run(t, ctx, func(ctx context.Context, _ []string, _ io.Writer) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
		if got.code != 1 || !strings.Contains(got.stderr, "stopped before it was finished") {
			t.Errorf("exit %d, stderr %q", got.code, got.stderr)
		}
	})
	t.Run("amid the requests", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		pool := forwarder{reached: cancel}
		got := run(t, ctx, pool.start, "--requests", "5", "--concurrency", "2", "--rtt", "0")
		if got.code != 1 || !strings.Contains(got.stderr, "stopped before it was finished") {
			t.Errorf("exit %d, stderr %q", got.code, got.stderr)
		}
		if strings.Contains(got.stdout, "requests failed") {
			t.Error("half a run is shown as a whole one")
		}
	})
}

// keepOutput cancels once the demo says that it keeps running.
type keepOutput struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (o *keepOutput) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("still running")) {
		defer o.cancel()
	}
	return o.Buffer.Write(p)
}

func TestKeepRunsUntilItIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pool forwarder
	var stderr bytes.Buffer
	stdout := &keepOutput{cancel: cancel}
	code := demo.Run(ctx, []string{"--keep", "--requests", "5", "--rtt", "0"}, stdout, &stderr, pool.start)
	if code != 0 || !strings.Contains(stdout.String(), "curl -x http://127.0.0.1:") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
}

// stubAxios is what of axios the script uses, with its way of asking a proxy.
const stubAxios = `
var http = require('http'), https = require('https'), url = require('url');
exports.get = function (target, config) {
  return new Promise(function (resolve, reject) {
    var to = url.parse(target), secure = to.protocol === 'https:';
    var proxy = secure ? process.env.HTTPS_PROXY : process.env.HTTP_PROXY;
    var options = { hostname: to.hostname, port: to.port, path: to.path,
      agent: (secure ? config.httpsAgent : config.httpAgent) };
    if (proxy) {
      var via = url.parse(proxy);
      options = { hostname: via.hostname, port: via.port, path: target, headers: { host: to.host } };
    }
    (secure && !proxy ? https : http).get(options, function (response) {
      var body = '';
      response.on('data', function (chunk) { body += chunk; });
      response.on('end', function () { resolve({ data: JSON.parse(body) }); });
    }).on('error', reject);
  });
};`

func TestNodeTableHasSixRows(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("no node here")
	}
	dir := t.TempDir()
	module := filepath.Join(dir, "node_modules", "axios")
	if err := os.MkdirAll(module, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"index.js": stubAxios, "package.json": `{"version":"0.0.0-stub"}`} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:9") // the user's own must not count
	var pool forwarder
	got := run(t, t.Context(), pool.start, "--node", "--requests", "30", "--concurrency", "3", "--rtt", "1ms")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
	}
	if !strings.Contains(got.stdout, "0.0.0-stub") {
		t.Error("the report does not say which axios it used")
	}
	for _, scheme := range []string{"http", "https"} {
		for way, few := range map[string]bool{
			"no keep-alive, directly": false, "keep-alive, directly": true, "no keep-alive, via carpool": true,
		} {
			name := scheme + ", " + way
			cells := got.cells(t, name, 2)
			var connections int
			if _, err := fmt.Sscan(cells[0], &connections); err != nil || few && connections > 15 || !few && connections != 30 {
				t.Errorf("%s: %s connections", name, cells[0])
			}
			if cells[1] != "0" {
				t.Errorf("%s: %s failed", name, cells[1])
			}
		}
	}
}

func TestNodeSaysWhatIsMissing(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Run("node", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		got := run(t, t.Context(), noStart, "--node")
		if got.code != 1 || !strings.Contains(got.stderr, "no `node` on the PATH") {
			t.Errorf("exit %d, stderr %q", got.code, got.stderr)
		}
	})
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node here")
	}
	for name, test := range map[string]struct{ npm, want string }{
		"npm":                       {want: "no `npm` on the PATH"},
		"a network":                 {npm: "#!/bin/sh\necho no network; exit 1\n", want: "no network"},
		"axios in spite of all npm": {npm: "#!/bin/sh\n", want: "Node does not find it"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.Symlink(node, filepath.Join(path, "node")); err != nil {
				t.Fatal(err)
			}
			if test.npm != "" {
				if err := os.WriteFile(filepath.Join(path, "npm"), []byte(test.npm), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", path)
			got := run(t, t.Context(), noStart, "--node")
			if got.code != 1 || !strings.Contains(got.stderr, "needs axios") || !strings.Contains(got.stderr, test.want) {
				t.Errorf("exit %d, stderr %q", got.code, got.stderr)
			}
		})
	}
}
