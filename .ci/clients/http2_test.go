package clients

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
)

// Servers that speak HTTP/2, in TLS and without. Each answers with the path that was
// asked for. Not a request may fail, whatever they do with their connections.

const (
	http2Clients = 16
	http2Rounds  = 150
	// http2Requests is after how many requests nginx gives a connection up.
	http2Requests = 100
)

// http2Server is one of them.
type http2Server struct {
	start    func(t *testing.T, plain, secure int, certificate string) *process
	goaways  bool // it gives connections up now and then
	mostOpen int  // connections that carpool may open
}

var http2Servers = map[string]http2Server{
	"nginx":   {startNginx2, true, 2 * http2Clients * http2Rounds / http2Requests},
	"HAProxy": {startHAProxy2, false, 8},
	"Node":    {startNode2, false, 8},
}

func TestHTTP2Upstreams(t *testing.T) {
	for name, server := range http2Servers {
		t.Run(name, func(t *testing.T) {
			files, err := makeTLSFiles()
			if err != nil {
				t.Fatal(err)
			}
			plain, secure := freePort(t), freePort(t)
			p := server.start(t, plain, secure, files.server)
			for _, to := range []string{"http://" + address(plain), "https://" + address(secure)} {
				t.Run(to[:5], func(t *testing.T) {
					listening(t, plain, p)
					c := startCarpool(t, "CARPOOL_H2C="+address(plain), "CARPOOL_HTTP2=auto", "CARPOOL_MAX_CONN_AGE=0")
					server.check(t, c, to)
				})
			}
		})
	}
}

func (s *http2Server) check(t *testing.T, c *carpool, to string) {
	var work sync.WaitGroup
	for i := range http2Clients {
		work.Go(func() {
			if err := askHTTP2(c.port, to, i); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	work.Wait()
	want := float64(http2Clients * http2Rounds)
	for metric, in := range map[string][2]float64{
		"carpool_connections_opened_total": {1, float64(s.mostOpen)},
		"carpool_connections_reused_total": {want - float64(s.mostOpen), 2 * want},
		"carpool_shared_connections":       {0, float64(s.mostOpen)},
	} {
		if n, err := c.sum(metric); err != nil || n < in[0] || n > in[1] {
			t.Errorf("%s is %v, %v, want %v", metric, n, err, in)
		}
	}
	if n, err := c.sum("carpool_shared_goaways_total"); err != nil || s.goaways && n == 0 {
		t.Errorf("%v farewells, %v", n, err)
	}
}

// askHTTP2 asks for one path after the other, by GET and by POST, and checks what
// comes.
func askHTTP2(proxy int, to string, client int) error {
	conn, err := net.Dial("tcp", address(proxy))
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for k := range http2Rounds {
		path, method, body := fmt.Sprintf("/%d/%d", client, k), "GET", ""
		if k%3 == 0 {
			method, body = "POST", strings.Repeat("b", 100*k)
		}
		_, err := fmt.Fprintf(conn, "%s %s%s HTTP/1.1\r\nHost: %s\r\nCookie: a=1; b=2\r\nContent-Length: %d\r\n\r\n%s",
			method, to, path, to[strings.Index(to, "//")+2:], len(body), body)
		if err != nil {
			return err
		}
		answer, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		got, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != 200 || strings.TrimSpace(string(got)) != path {
			return fmt.Errorf("%s %s: %s %q, %w", method, path, answer.Status, got, err)
		}
	}
	return nil
}

var nginx2Config = template.Must(template.New("nginx.conf").Parse(`
daemon off;
pid {{.Dir}}/pid;
error_log stderr warn;
{{if .Root}}user root;{{end}}
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy; fastcgi_temp_path {{.Dir}}/fastcgi; uwsgi_temp_path {{.Dir}}/uwsgi; scgi_temp_path {{.Dir}}/scgi;
	keepalive_requests {{.Requests}};
	server {
		listen {{.Plain}} http2;
		listen {{.Secure}} ssl http2;
		ssl_certificate {{.Certificate}};
		ssl_certificate_key {{.Certificate}};
		location / { return 200 $uri; }
	}
}
`))

func startNginx2(t *testing.T, plain, secure int, certificate string) *process {
	t.Helper()
	nginx, err := nginxBinary()
	need(t, err)
	dir := tempDir(t)
	config := filepath.Join(dir, "nginx.conf")
	writeTemplate(t, config, nginx2Config, map[string]any{
		"Dir": dir, "Root": os.Getuid() == 0, "Plain": address(plain), "Secure": address(secure), "Certificate": certificate, "Requests": http2Requests,
	})
	return startProcess(t, nil, nginx, "-p", dir, "-c", config, "-e", "stderr")
}

var haproxy2Config = template.Must(template.New("haproxy.cfg").Parse(`
global
	maxconn 500
defaults
	mode http
	timeout client 10s
	timeout server 10s
	timeout connect 10s
frontend in
	bind {{.Plain}} proto h2
	bind {{.Secure}} ssl crt {{.Certificate}} alpn h2,http/1.1
	http-request return status 200 content-type text/plain lf-string %[path]
`))

func startHAProxy2(t *testing.T, plain, secure int, certificate string) *process {
	t.Helper()
	haproxy, err := systemTool("/usr/sbin/haproxy", "haproxy")
	need(t, err)
	config := filepath.Join(tempDir(t), "haproxy.cfg")
	writeTemplate(t, config, haproxy2Config, map[string]any{"Plain": address(plain), "Secure": address(secure), "Certificate": certificate})
	return startProcess(t, nil, haproxy, "-f", config, "-db")
}

const node2Program = `
const http2 = require('http2'), fs = require('fs');
const [plain, secure, file] = process.argv.slice(1);
const pem = fs.readFileSync(file);
const on = (stream, head) => {
	stream.resume();
	stream.on('end', () => { stream.respond({':status': 200, 'content-type': 'text/plain'}); stream.end(head[':path']); });
};
http2.createServer().on('stream', on).listen(+plain, '127.0.0.1');
http2.createSecureServer({key: pem, cert: pem, allowHTTP1: true}).on('stream', on).listen(+secure, '127.0.0.1');
`

func startNode2(t *testing.T, plain, secure int, certificate string) *process {
	t.Helper()
	node, err := nodeBinary(24)
	need(t, err)
	return startProcess(t, nil, node, "-e", node2Program, "--", fmt.Sprint(plain), fmt.Sprint(secure), certificate)
}
