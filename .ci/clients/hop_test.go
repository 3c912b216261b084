package clients

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"
)

// A nextHop is a real proxy that carpool goes out through.
type nextHop struct {
	name  string
	start func(t *testing.T, password bool) (port int, p *process)
	// keeps says that it answers several requests on one connection.
	keeps bool
	// passwords says that it can ask for them.
	passwords bool
	// unauthorized says that it answers a wrong password with 401, as upstreams do: what is relayed goes to the app.
	unauthorized bool
}

var nextHops = []nextHop{
	{name: "squid", start: startSquid, keeps: true, passwords: true},
	{name: "tinyproxy", start: startTinyproxy, passwords: true, unauthorized: true},
	{name: "carpool", start: startCarpoolHop, keeps: true},
}

func startCarpoolHop(t *testing.T, _ bool) (int, *process) {
	t.Helper()
	bin, err := carpoolBinary()
	need(t, err)
	port := freePort(t)
	settings := []string{"CARPOOL_LISTEN=" + address(port), "CARPOOL_ADMIN_LISTEN=" + address(freePort(t)), "CARPOOL_VIA=true"}
	return port, startHop(t, port, settings, bin)
}

// hopCredentials is what hops with a password take.
const hopCredentials = "user:secret"

// squidConfig is Squid's own in short, as Debian has it, but for the ports that CONNECT may go to.
var squidConfig = template.Must(template.New("squid.conf").Parse(`
http_port 127.0.0.1:{{.Port}}
pid_filename none
cache_log {{.Dir}}/cache.log
access_log stdio:{{.Dir}}/access.log
coredump_dir {{.Dir}}
cache deny all
shutdown_lifetime 0 seconds
acl CONNECT method CONNECT
acl SSL_ports port 1024-65535
http_access deny CONNECT !SSL_ports
{{if .Password}}
auth_param basic program /usr/lib/squid/basic_ncsa_auth {{.Dir}}/passwords
acl known proxy_auth REQUIRED
http_access allow known
{{else}}
acl here src 127.0.0.0/8
http_access allow here
{{end}}
http_access deny all
`))

func startSquid(t *testing.T, password bool) (int, *process) {
	t.Helper()
	squid, err := systemTool("/usr/sbin/squid", "squid")
	need(t, err)
	dir, port := tempDir(t), freePort(t)
	if err := os.Chmod(dir, 0o777); err != nil { // started by root it runs as another user
		t.Fatal(err)
	}
	passwords := "user:$apr1$carpool1$lBKau0xoaAqFOr4mUT42n/\n" // of secret
	if err := os.WriteFile(filepath.Join(dir, "passwords"), []byte(passwords), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "squid.conf")
	writeTemplate(t, config, squidConfig, map[string]any{"Dir": dir, "Port": port, "Password": password})
	return port, startHop(t, port, os.Environ(), squid, "-N", "-f", config)
}

var tinyproxyConfig = template.Must(template.New("tinyproxy.conf").Parse(`
Port {{.Port}}
Listen 127.0.0.1
Timeout 60
Allow 127.0.0.1
{{if .Password}}BasicAuth user secret{{end}}
`))

func startTinyproxy(t *testing.T, password bool) (int, *process) {
	t.Helper()
	tinyproxy, err := tool("tinyproxy", "tinyproxy")
	need(t, err)
	port := freePort(t)
	config := filepath.Join(tempDir(t), "tinyproxy.conf")
	writeTemplate(t, config, tinyproxyConfig, map[string]any{"Port": port, "Password": password})
	return port, startHop(t, port, os.Environ(), tinyproxy, "-d", "-c", config)
}

// startHop starts a proxy and waits until it listens.
func startHop(t *testing.T, port int, env []string, argv ...string) *process {
	t.Helper()
	p := startProcess(t, env, argv...)
	if err := p.await(func() error {
		c, err := net.Dial("tcp", address(port))
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		t.Fatalf("%s: %v", argv[0], err)
	}
	return p
}

// ownAddress is an address of this machine that is not on loopback: what is there goes through the next hop.
func ownAddress() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", fmt.Errorf("%w: an IPv4 address that is not on loopback", errMissing)
}

// far is an upstream that only the next hop is to reach.
type far struct {
	*httptest.Server
	mu    sync.Mutex // guards vias
	vias  map[string]int
	conns atomic.Int64
}

// startFar starts one, with or without TLS.
func startFar(t *testing.T, secure bool) *far {
	t.Helper()
	host, err := ownAddress()
	need(t, err)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	f := &far{vias: map[string]int{}}
	f.Server = &httptest.Server{Listener: l, Config: &http.Server{
		Handler: http.HandlerFunc(f.answer),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				f.conns.Add(1)
			}
		},
	}}
	if secure {
		files, err := makeTLSFiles()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.LoadX509KeyPair(files.server, files.server)
		if err != nil {
			t.Fatal(err)
		}
		f.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		f.StartTLS()
	} else {
		f.Start()
	}
	t.Cleanup(f.Close)
	return f
}

// answer gives a body back, or else the path.
func (f *far) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.vias[r.Header.Get("Via")]++
	f.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != "" {
		http.Error(w, "credentials have come through", http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPost {
		_, _ = io.Copy(w, r.Body)
		return
	}
	_, _ = io.WriteString(w, r.URL.Path)
}

// relayed checks that all requests came by way of a proxy that says so.
func (f *far) relayed(t *testing.T, requests int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.vias[""] > 0 {
		t.Errorf("%d requests came past the next hop: %v", f.vias[""], f.vias)
	}
	n := 0
	for _, k := range f.vias {
		n += k
	}
	if n != requests {
		t.Errorf("%d requests came, want %d", n, requests)
	}
}

// client is an HTTP client that goes by carpool, on a new connection for each request.
func (c *carpool) client(t *testing.T) *http.Client {
	t.Helper()
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(files.ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	proxy := &url.URL{Scheme: "http", Host: address(c.port), User: url.UserPassword("app", "its-own")}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &http.Client{Transport: transport, Timeout: clientTimeout}
}

// say sends a request as it is written, on a connection of its own or on one that is there, and returns the answer.
func (c *carpool) say(t *testing.T, conn net.Conn, format string, args ...any) (*http.Response, string) {
	t.Helper()
	if conn == nil {
		var err error
		if conn, err = net.Dial("tcp", address(c.port)); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	_ = conn.SetDeadline(time.Now().Add(clientTimeout))
	if _, err := fmt.Fprintf(conn, format, args...); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(format, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	if method == http.MethodConnect {
		return response, ""
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// opened is how many connections carpool has opened to its next hop for requests that it relays.
func (c *carpool) opened(t *testing.T) int {
	t.Helper()
	response, err := http.Get("http://" + address(c.admin) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`\ncarpool_connections_opened_total\{origin="next hop [^"]*"\} (\d+)\n`).FindSubmatch(metrics)
	if m == nil {
		t.Fatal("no connections to the next hop are counted")
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// C30, C31, C38: every lane through a real proxy, and none past it.
func TestC30EveryLaneGoesThroughARealNextHop(t *testing.T) {
	for _, h := range nextHops {
		for _, password := range []bool{false, true} {
			if password && !h.passwords {
				continue
			}
			t.Run(fmt.Sprintf("%s, password %v", h.name, password), func(t *testing.T) {
				t.Parallel()
				hopPort, hop := h.start(t, password)
				settings := []string{"CARPOOL_NEXT_PROXY=http://" + address(hopPort)}
				if password {
					file := filepath.Join(tempDir(t), "auth")
					if err := os.WriteFile(file, []byte(hopCredentials+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
					settings = append(settings, "CARPOOL_NEXT_PROXY_AUTH_FILE="+file)
				}
				h.lanes(t, startCarpool(t, settings...), hop)
			})
		}
	}
}

func (h nextHop) lanes(t *testing.T, c *carpool, hop *process) {
	plain, secure := startFar(t, false), startFar(t, true)
	client := c.client(t)
	get := func(url string) {
		t.Helper()
		response, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != 200 || string(body) != "/path" {
			t.Fatalf("%s: %s %q, %v", url, response.Status, body, err)
		}
	}
	const calls = 30
	for range calls {
		get(plain.URL + "/path")
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	response, err := client.Post(plain.URL, "application/octet-stream", bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(body, big) {
		t.Errorf("%d of %d bytes came back, %v", len(body), len(big), err)
	}
	if n := c.opened(t); h.keeps && n >= connectionLimit {
		t.Errorf("%d connections to the next hop for %d requests", n, calls+1)
	}
	host := plain.Listener.Addr().String()
	inside, err := net.Dial("tcp", address(c.port)) // plain HTTP inside CONNECT
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if r, _ := c.say(t, inside, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", host); r.StatusCode != 200 {
		t.Fatalf("CONNECT: %s", r.Status)
	}
	for range 3 {
		if r, body := c.say(t, inside, "GET /path HTTP/1.1\r\nHost: %s\r\n\r\n", host); r.StatusCode != 200 || body != "/path" {
			t.Fatalf("inside CONNECT: %s %q", r.Status, body)
		}
	}
	plain.relayed(t, calls+4)

	for range 3 {
		get(secure.URL + "/path") // by CONNECT
		if r, body := c.say(t, nil, "GET %s/path HTTP/1.1\r\nHost: x\r\n\r\n", secure.URL); r.StatusCode != 200 || body != "/path" {
			t.Fatalf("https in absolute-form: %s %q", r.Status, body)
		}
	}
	if n := secure.conns.Load(); n > 4 {
		t.Errorf("%d connections for three tunnels and three requests that can share one", n)
	}

	_ = hop.cmd.Process.Kill() // and without it nothing goes
	<-hop.exited
	for _, url := range []string{plain.URL, secure.URL} {
		r, body := c.say(t, nil, "GET %s/path HTTP/1.1\r\nHost: x\r\n\r\n", url)
		if r.StatusCode != 502 || !strings.Contains(body, "next hop") || !strings.Contains(r.Header.Get("Proxy-Status"), "next-hop=") {
			t.Errorf("%s without the next hop: %s %q %q", url, r.Status, r.Header, body)
		}
	}
}

// C34, C37: a wrong password is named as such, and the right one counts as soon as it is there: in a volume of
// Kubernetes, where a link is all that changes.
func TestC37ARealNextHopGetsTheCredentialsThatChange(t *testing.T) {
	for _, h := range nextHops {
		if !h.passwords {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			hopPort, _ := h.start(t, true)
			dir := tempDir(t)
			project := func(version, content string) {
				t.Helper()
				data := filepath.Join(dir, version)
				next := filepath.Join(dir, "..data_tmp")
				for _, err := range []error{
					os.Mkdir(data, 0o755), os.WriteFile(filepath.Join(data, "auth"), []byte(content), 0o600),
					os.Symlink(version, next), os.Rename(next, filepath.Join(dir, "..data")),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			project("..1", "user:s3cretOld")
			if err := os.Symlink(filepath.Join("..data", "auth"), filepath.Join(dir, "auth")); err != nil {
				t.Fatal(err)
			}
			c := startCarpool(t, "CARPOOL_NEXT_PROXY=http://"+address(hopPort), "CARPOOL_NEXT_PROXY_AUTH_FILE="+filepath.Join(dir, "auth"))
			plain, secure := startFar(t, false), startFar(t, true)
			for _, url := range []string{plain.URL, secure.URL} {
				r, body := c.say(t, nil, "GET %s/path HTTP/1.1\r\nHost: x\r\n\r\n", url)
				if h.unauthorized && url == plain.URL {
					if r.StatusCode != http.StatusUnauthorized {
						t.Errorf("%s with a wrong password: %s", url, r.Status)
					}
					continue
				}
				if r.StatusCode != 502 || !strings.Contains(r.Header.Get("Proxy-Status"), "proxy_configuration_error") ||
					!strings.Contains(body, "CARPOOL_NEXT_PROXY_AUTH_FILE") || r.Header.Get("Proxy-Authenticate") != "" {
					t.Errorf("%s with a wrong password: %s %q %q", url, r.Status, r.Header, body)
				}
			}
			project("..2", hopCredentials)
			for _, url := range []string{plain.URL, secure.URL} {
				if err := c.awaitFor(clientTimeout, func() error {
					if r, body := c.say(t, nil, "GET %s/path HTTP/1.1\r\nHost: x\r\n\r\n", url); r.StatusCode != 200 {
						return fmt.Errorf("%s: %s %q", url, r.Status, body)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
			if log := c.stderr.tail(1 << 20); strings.Contains(log, "s3cretOld") || strings.Contains(log, hopCredentials) || strings.Contains(log, "dXNlcjp") {
				t.Errorf("a password is logged: %s", log)
			}
		})
	}
}
