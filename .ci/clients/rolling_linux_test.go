package clients

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
)

const (
	// rollingRate is how many requests come a second.
	rollingRate = 1000
	// rollingRounds is how often each server is restarted.
	rollingRounds = 2
	// returned is how many answers of a restarted server show that it has its
	// share again.
	returned = 200
	// workTime is how long the application takes for an answer: what is under way
	// as a server ends is more than one request.
	workTime = 5 * time.Millisecond
)

// An ending is a way in which a server is restarted.
type ending struct {
	signal syscall.Signal
	// single has nginx be one process, so that a signal ends it at once. Otherwise
	// its end is that of all its workers.
	single bool
	// moves has its address leave the name before it stops, and come back when it
	// serves again. The name has no address of a server that ends, so no request is
	// to fail.
	moves bool
}

// Row X14.
func TestX14FiveNginxAreRestartedUnderLoad(t *testing.T) {
	for _, e := range []struct {
		name string
		ending
	}{
		{"they drain", ending{signal: syscall.SIGQUIT}},
		{"they are killed", ending{signal: syscall.SIGKILL, single: true}},
		{"their addresses leave the name first", ending{signal: syscall.SIGQUIT, moves: true}},
	} {
		t.Run(e.name, func(t *testing.T) { restartAll(t, e.ending) })
	}
}

func restartAll(t *testing.T, e ending) {
	dns := nameserver.New(t)
	f := startFleet(t, e.single)
	dns.Set("orders.test.", time.Second, f.addresses()...)
	proxy := startCarpool(t, "CARPOOL_RESOLV_CONF="+dns.ResolvConf(), "CARPOOL_DNS_MIN_TTL=1s")
	l := startLoad(t, address(proxy.port), fmt.Sprintf("orders.test:%d", f.port))
	for _, s := range f.servers {
		l.awaitAnswers(t, s, returned)
	}
	for range rollingRounds {
		for _, s := range f.servers {
			r := restart{server: s}
			if e.moves {
				dns.Set("orders.test.", time.Second, f.addresses(s)...)
				s.awaitUnused(t)
			}
			r.signalled = time.Now()
			s.end(t, e.signal)
			r.ended = time.Now()
			if !e.moves { // requests come while it is away
				l.awaitMore(t, returned)
			}
			s.start(t)
			dns.Set("orders.test.", time.Second, f.addresses()...)
			l.awaitAnswers(t, s, returned)
			r.back = time.Now()
			l.restarts = append(l.restarts, r)
		}
	}
	l.end()
	l.report(t, proxy)
	for _, o := range l.failed() {
		if e.moves || !l.mayFail(o) {
			t.Errorf("request %d, %s: %s, %v after the last restart began", o.id, o.method, o.failure, l.sinceRestart(o))
		}
	}
	f.app.check(t, l)
}

// A fleet is five nginx on five addresses with one name, and the application that
// is behind all of them.
type fleet struct {
	port    int
	servers []*nginxServer
	app     *countingApp
}

func startFleet(t *testing.T, single bool) *fleet {
	t.Helper()
	nginx, err := nginxBinary()
	need(t, err)
	dir := tempDir(t)
	f := &fleet{port: freePort(t), app: startCountingApp(t, filepath.Join(dir, "app.sock"))}
	for i := range 5 {
		s := &nginxServer{
			nginx: nginx, address: fmt.Sprintf("127.0.0.%d", 11+i),
			dir: filepath.Join(dir, fmt.Sprint(i)), config: filepath.Join(dir, fmt.Sprint(i, ".conf")),
		}
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeTemplate(t, s.config, fleetConfig, map[string]any{
			"Dir": s.dir, "Single": single, "Root": os.Getuid() == 0,
			"Address": fmt.Sprintf("%s:%d", s.address, f.port), "App": filepath.Join(dir, "app.sock"),
		})
		f.servers = append(f.servers, s)
		s.start(t)
	}
	return f
}

// addresses are those of all servers but some.
func (f *fleet) addresses(but ...*nginxServer) (all []string) {
	for _, s := range f.servers {
		if len(but) == 0 || s != but[0] {
			all = append(all, s.address)
		}
	}
	return all
}

var fleetConfig = template.Must(template.New("nginx.conf").Parse(`
daemon off;
{{if .Single}}master_process off;{{end}}
worker_processes 1;
{{if .Root}}user root;{{end}}
pid {{.Dir}}/nginx.pid;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	upstream app {
		server unix:{{.App}};
		keepalive 64;
	}
	server {
		listen {{.Address}};
		location / {
			proxy_pass http://app;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			add_header Server-Address $server_addr;
		}
	}
	server {
		listen unix:{{.Dir}}/status.sock;
		location / { stub_status; }
	}
}
`))

// An nginxServer is one of a fleet, which is started again and again.
type nginxServer struct {
	nginx, config, dir string
	address            string
	*process           // the last
}

func (s *nginxServer) statusSocket() string { return filepath.Join(s.dir, "status.sock") }

// start returns when the server serves.
func (s *nginxServer) start(t *testing.T) {
	t.Helper()
	// What was killed has left its own behind.
	if err := os.Remove(s.statusSocket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s.process = startProcess(t, nil, s.nginx, "-e", "stderr", "-p", s.dir, "-c", s.config)
	if err := s.await(func() error { _, err := unixClient(s.statusSocket()).read(); return err }); err != nil {
		t.Fatalf("nginx: %v", err)
	}
}

// end returns when all processes of the server have ended.
func (s *nginxServer) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(testkit.Patience):
		t.Fatalf("nginx still runs %v after %v", testkit.Patience, signal)
	}
}

// awaitUnused waits until nobody is connected to the server.
func (s *nginxServer) awaitUnused(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, s.address+" has left the name, and has no connection any more", func() bool {
		status, err := unixClient(s.statusSocket()).read()
		if err != nil {
			t.Fatal(err)
		}
		return status.active == 1 // the one that asks
	})
}

// A countingApp answers with what it was asked for, and knows how often.
type countingApp struct {
	mu   sync.Mutex // guards done
	done map[string]int
}

func startCountingApp(t *testing.T, socket string) *countingApp {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &countingApp{done: map[string]int{}}
	server := &http.Server{Handler: a}
	ended := testkit.In(func() error { return server.Serve(l) })
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return a
}

func (a *countingApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its nginx was killed
	}
	a.mu.Lock()
	a.done[r.Method+r.URL.Path]++
	a.mu.Unlock()
	select {
	case <-time.After(workTime):
	case <-r.Context().Done():
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
}

// check holds that each POST was carried out once, or at most once if it failed.
func (a *countingApp) check(t *testing.T, l *load) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range l.outcomes {
		n := a.done[o.method+o.path()]
		if o.method == http.MethodPost && n > 1 || o.failure == "" && n == 0 {
			t.Errorf("request %d, %s, was carried out %d times: %s", o.id, o.method, n, o.failure)
		}
	}
}
