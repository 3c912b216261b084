package clients

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"text/template"
)

// Servers with one worker, or a few, each of which stays with its connection. Idle
// connections of carpool end after an hour in these tests, and these servers' own
// as late: what is answered is so because room was made.

const (
	workerClients = 6
	workerRounds  = 10
)

// apacheModules is where Debian has the modules of Apache.
const apacheModules = "/usr/lib/apache2/modules"

var apacheConfig = template.Must(template.New("httpd.conf").Parse(`
ServerRoot {{.Dir}}
PidFile {{.Dir}}/pid
Listen {{.Address}}
ServerName localhost
ErrorLog /dev/stderr
DocumentRoot {{.Dir}}/files
LoadModule mpm_prefork_module {{.Modules}}/mod_mpm_prefork.so
LoadModule authz_core_module {{.Modules}}/mod_authz_core.so
StartServers {{.Workers}}
MinSpareServers 1
MaxSpareServers {{.Workers}}
ServerLimit {{.Workers}}
MaxRequestWorkers {{.Workers}}
KeepAlive On
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
{{if .Root}}
User nobody
Group nogroup
{{end}}
`))

func startApache(t *testing.T, workers int) int {
	t.Helper()
	apache, err := systemTool("/usr/sbin/apache2", "apache2-bin")
	need(t, err)
	dir, port := tempDir(t), freePort(t)
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range workerClients {
		name := fmt.Sprint(i)
		if err := os.WriteFile(filepath.Join(files, name), []byte("/"+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "httpd.conf")
	writeTemplate(t, config, apacheConfig, map[string]any{
		"Dir": dir, "Address": address(port), "Modules": apacheModules, "Workers": workers, "Root": os.Getuid() == 0,
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, nil, apache, "-f", config, "-DFOREGROUND")
	t.Cleanup(func() { // its workers outlive it otherwise
		if err := p.stop(stopTimeout); err != nil {
			t.Errorf("apache2 on SIGTERM: %v", err)
		}
	})
	listening(t, port, p)
	return port
}

func startPuma(t *testing.T, threads int) int {
	t.Helper()
	puma, err := tool("puma", "puma")
	need(t, err)
	dir, port := tempDir(t), freePort(t)
	app := filepath.Join(dir, "config.ru")
	const text = "run ->(env) { [200, {'Content-Type' => 'text/plain'}, [env['PATH_INFO']]] }\n"
	if err := os.WriteFile(app, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listening(t, port, startProcess(t, os.Environ(), puma,
		"-t", fmt.Sprintf("%d:%d", threads, threads), "-w", "0", "-b", "tcp://"+address(port), app))
	return port
}

func startPython(t *testing.T, _ int) int {
	t.Helper()
	python, err := tool("python3", "python3")
	need(t, err)
	port := freePort(t)
	listening(t, port, startProcess(t, os.Environ(), python, filepath.Join("programs", "worker.py"), fmt.Sprint(port)))
	return port
}

// listening waits until a server listens. A worker is with the connection until
// that ends, which is at once.
func listening(t *testing.T, port int, p *process) {
	t.Helper()
	err := p.await(func() error {
		c, err := net.Dial("tcp", address(port))
		if err == nil {
			err = c.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Row P27.
func TestP27ServersWithFewWorkers(t *testing.T) {
	for name, server := range map[string]struct {
		start   func(*testing.T, int) int
		workers int
	}{
		"http.server of Python":     {startPython, 1},
		"Apache prefork":            {startApache, 1},
		"Apache prefork, 3 workers": {startApache, 3},
		"Puma":                      {startPuma, 1},
		"Puma, 3 threads":           {startPuma, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := server.start(t, server.workers)
			serveTogether(t, startCarpool(t, "CARPOOL_IDLE_TIMEOUT=1h", "CARPOOL_MAX_CONN_AGE=0"), port)
		})
	}
}

// serveTogether has several clients do requests at the same time, again and again.
func serveTogether(t *testing.T, c *carpool, port int) {
	t.Helper()
	proxy, err := url.Parse("http://" + address(c.port))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: clientTimeout}
	for range workerRounds {
		var clients sync.WaitGroup
		for i := range workerClients {
			clients.Go(func() {
				path := fmt.Sprintf("/%d", i)
				response, err := client.Get("http://" + address(port) + path)
				if err != nil {
					t.Error(err)
					return
				}
				defer response.Body.Close()
				if body, err := io.ReadAll(response.Body); err != nil || string(body) != path {
					t.Errorf("%s: %q %v", path, body, err)
				}
			})
		}
		if clients.Wait(); t.Failed() {
			return
		}
	}
}
