package clients

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
)

// What is sent through the proxy: the same bytes in every run.
var (
	upload   = randomBytes(1, 5<<20)
	download = randomBytes(2, 3<<20+17)
)

// chunkSizes are the sizes of the download's chunks, over and over: tiny ones,
// odd ones, and one beyond any buffer.
var chunkSizes = []int{1, 3, 997, 4095, 8193, 65537}

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// An upstream is a server that counts.
type upstream struct {
	port int
	// stop ends the counting and returns what was seen. It is called once.
	stop func() (seen, error)
}

// seen is what an upstream has counted.
type seen struct {
	Connections int      // TCP connections accepted
	Requests    int      // requests answered, of all kinds
	Uploads     []string // SHA-256 of each uploaded body, in hex
}

// startNode starts the upstream programs/upstream.js.
func startNode(t *testing.T) upstream {
	t.Helper()
	node, err := nodeBinary(20)
	need(t, err)
	file := filepath.Join(tempDir(t), "download")
	if err := os.WriteFile(file, download, 0o600); err != nil {
		t.Fatal(err)
	}
	sizes := strings.Trim(strings.ReplaceAll(fmt.Sprint(chunkSizes), " ", ","), "[]")
	p := startProcess(t, nil, node, filepath.Join("programs", "upstream.js"), file, sizes)

	var started struct{ Port int }
	if err := p.await(func() error { return p.stdout.nextJSON(&started) }); err != nil {
		t.Fatalf("upstream.js: %v", err)
	}
	return upstream{port: started.Port, stop: func() (s seen, err error) {
		p.stdin.Close()
		<-p.exited
		err = p.stdout.nextJSON(&s)
		return s, err
	}}
}

// nginxConfig answers the calls itself and proxies the rest to an application,
// as nginx mostly does. It is one process, so that there is one to kill.
var nginxConfig = template.Must(template.New("nginx.conf").Parse(`
daemon off;
master_process off;
pid {{.Dir}}/nginx.pid;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	client_max_body_size 16m;
	server {
		listen {{.Address}}{{if .Certificate}} ssl{{end}};
		{{if .Certificate}}
		ssl_certificate {{.Certificate}};
		ssl_certificate_key {{.Certificate}};
		{{end}}
		location = /echo {
			default_type text/plain;
			return 200 "$arg_tag $arg_n";
		}
		location / {
			proxy_pass http://unix:{{.Dir}}/app.sock:;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
		}
	}
	server {
		listen unix:{{.Dir}}/status.sock;
		location / { stub_status; }
	}
}
`))

// startNginx starts nginx; with a certificate (a PEM file that holds the key
// too) it speaks TLS.
func startNginx(t *testing.T, certificate string) upstream {
	t.Helper()
	nginx, err := nginxBinary()
	need(t, err)
	dir := tempDir(t)
	app := startApp(t, filepath.Join(dir, "app.sock"))
	port := freePort(t)
	config := filepath.Join(dir, "nginx.conf")
	writeTemplate(t, config, nginxConfig, map[string]string{
		"Dir": dir, "Address": address(port), "Certificate": certificate,
	})
	p := startProcess(t, nil, nginx, "-e", "stderr", "-p", dir, "-c", config)

	status := unixClient(filepath.Join(dir, "status.sock"))
	var before nginxStatus
	if err := p.await(func() (err error) { before, err = status.read(); return }); err != nil {
		t.Fatalf("nginx: %v", err)
	}
	return upstream{port: port, stop: func() (seen, error) {
		after, err := status.read()
		return seen{
			// The second look is a connection and a request too.
			Connections: after.accepts - before.accepts - 1,
			Requests:    after.requests - before.requests - 1,
			Uploads:     app.uploads(),
		}, err
	}}
}

func writeTemplate(t *testing.T, path string, tmpl *template.Template, data any) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tmpl.Execute(f, data); err != nil {
		t.Fatal(err)
	}
}

// nginxStatus is what the module stub_status counts.
type nginxStatus struct{ active, accepts, requests int }

// A unixClient is the path of a unix socket that serves HTTP.
type unixClient string

// read asks stub_status, on a connection of its own.
func (c unixClient) read() (s nginxStatus, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", string(c))
		},
	}
	response, err := (&http.Client{Transport: transport}).Get("http://nginx/")
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return s, err
	}
	// Active connections: 1
	// server accepts handled requests
	//  3 3 5
	_, active, _ := strings.Cut(string(body), "connections:")
	_, counts, _ := strings.Cut(string(body), "requests\n")
	var handled int
	if _, err = fmt.Sscan(active, &s.active); err == nil {
		_, err = fmt.Sscan(counts, &s.accepts, &handled, &s.requests)
	}
	if err != nil {
		return s, fmt.Errorf("stub_status: %w: %q", err, body)
	}
	return s, nil
}

// An app is the application behind nginx: it takes the uploads and sends the
// downloads.
type app struct {
	mu     sync.Mutex // guards hashes
	hashes []string
}

// startApp serves an app on a unix socket until the test ends.
func startApp(t *testing.T, socket string) *app {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /upload", a.upload)
	mux.HandleFunc("GET /download", sendDownload)
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return a
}

func (a *app) upload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	hash := sha256Hex(body)
	a.mu.Lock()
	a.hashes = append(a.hashes, hash)
	a.mu.Unlock()
	io.WriteString(w, hash)
}

func (a *app) uploads() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.hashes...)
}

func sendDownload(w http.ResponseWriter, r *http.Request) {
	rest := download
	for i := 0; len(rest) > 0; i++ {
		n := min(len(rest), chunkSizes[i%len(chunkSizes)])
		if _, err := w.Write(rest[:n]); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		rest = rest[n:]
	}
}
