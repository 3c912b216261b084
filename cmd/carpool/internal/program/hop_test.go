package program_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// hop is a proxy that answers for all the world, if it is given one of its passwords.
type hop struct {
	*httptest.Server
	mu     sync.Mutex // guards what follows
	userOf string     // user:password; "" is not asked for
	asked  []string   // methods and targets
}

func newHop(t *testing.T, userinfo string) *hop {
	h := &hop{userOf: userinfo}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, r.Method+" "+r.RequestURI)
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(h.userOf))
		asks := h.userOf != ""
		h.mu.Unlock()
		switch {
		case asks && r.Header.Get("Proxy-Authorization") != want:
			w.Header().Set("Proxy-Authenticate", "Basic realm=hop")
			w.WriteHeader(http.StatusProxyAuthRequired)
		case r.Method == http.MethodConnect:
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(c, c)
		default:
			fmt.Fprint(w, "relayed")
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hop) requests() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.asked, ", ")
}

// C30, C31, C32: what the settings say arrives at what decides, and what is seen there at those who look.
func TestC30TheNextProxyOfTheSettings(t *testing.T) {
	t.Parallel()
	h, up := newHop(t, "user:pass"), carpooltest.NewUpstream(t)
	file := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(file, []byte("user:pass\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := carpooltest.Run(t, "CARPOOL_NEXT_PROXY="+h.URL+"/", "CARPOOL_NEXT_PROXY_AUTH_FILE="+file, "CARPOOL_WARM=far.example=2",
		"CARPOOL_NEXT_NO_PROXY=.direct.example", "CARPOOL_RESOLV_CONF="+nowhere(t))
	for range 3 {
		r, err := carpooltest.Once(run.Proxy, "GET", "http://far.example/a")
		carpooltest.Want(t, 200, r, err)
		if r.Body != "relayed" {
			t.Errorf("answered %q", r.Body)
		}
	}
	c, err := net.Dial("tcp", run.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "CONNECT tunnel.example:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		t.Fatalf("%q, %v", line, err)
	}
	r, err := carpooltest.Once(run.Proxy, "GET", up.URL+"/")
	carpooltest.Want(t, 200, r, err)
	const want = "GET http://far.example/a, GET http://far.example/a, GET http://far.example/a, CONNECT tunnel.example:443"
	if got := h.requests(); got != want {
		t.Errorf("the next proxy was asked for %s, want %s", got, want)
	}
	r, err = carpooltest.Once(run.Proxy, "GET", "http://a.direct.example/") // and cannot be looked up
	carpooltest.Want(t, 502, r, err)
	page, err := run.Probe("/")
	if err != nil || !strings.Contains(page.Body, "next hop "+h.URL) || !strings.Contains(page.Body, "passes requests on") ||
		!strings.Contains(page.Body, "through the next hop") || strings.Contains(page.Body, "user:pass") {
		t.Errorf("the page does not show the next hop: %v", err)
	}
	if n := run.Metric("carpool_connections_opened_total", `origin="next hop `+h.URL+`"`); n < 1 || n > 3 {
		t.Errorf("%v connections to the next hop", n)
	}
	list, err := run.Probe("/seen")
	var l seen.List
	if err != nil || json.Unmarshal([]byte(list.Body), &l) != nil || len(l.Origins) != 4 || l.Origins[2] != (seen.Origin{Host: "far.example", Port: 80}) {
		t.Errorf("seen: %+v, %v", l, err)
	}
}

// nowhere is a resolv.conf with a name server that refuses.
func nowhere(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver [127.0.0.1]:1\noptions attempts:1 timeout:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// C34, C37: a refusal is counted, logged and mended by a file that changes.
func TestC37CredentialsOfTheNextProxyChange(t *testing.T) {
	t.Parallel()
	h := newHop(t, "user:s3cretNew")
	file := filepath.Join(t.TempDir(), "auth")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("user:s3cretOld")
	run := carpooltest.Run(t, "CARPOOL_NEXT_PROXY="+h.URL, "CARPOOL_NEXT_PROXY_AUTH_FILE="+file)
	r, err := carpooltest.Once(run.Proxy, "GET", "http://far.example/")
	carpooltest.Want(t, 502, r, err)
	if n := run.Metric("carpool_next_hop_failures_total", `error="proxy_configuration_error"`); n != 1 {
		t.Errorf("%v failures are counted", n)
	}
	write("no colon s3cretOdd")
	testkit.Eventually(t, "a file that is no good is a warning", func() bool {
		return run.Log.Line("the credentials for the next hop cannot be read again: those from before are used on") != nil
	})
	write("user:s3cretNew\n")
	testkit.Eventually(t, "the next hop gets the new ones", func() bool {
		r, err := carpooltest.Once(run.Proxy, "GET", "http://far.example/")
		return err == nil && r.StatusCode == 200
	})
	if log := run.Log.String(); strings.Contains(log, "s3cret") || !strings.Contains(log, "CARPOOL_NEXT_PROXY_AUTH_FILE") {
		t.Errorf("the log: %s", log)
	}
}

func TestC37CredentialsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"no colon": "s3cret", "no user": ":s3cret", "two lines": "user:s3cret\nuser:s3cret\n", "control": "user:s3\x00cret", "empty": "", "large": strings.Repeat("s3cret:", 1000),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_NEXT_PROXY=http://proxy.corp", "CARPOOL_NEXT_PROXY_AUTH_FILE=" + file}, carpooltest.Ports...))
		if got.Code != program.ExitUsage || !hasLine(got.Stderr, "CARPOOL_NEXT_PROXY_AUTH_FILE", file) || strings.Contains(got.Stderr, "s3") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, file := range []string{dir, filepath.Join(dir, "nowhere")} {
		got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_NEXT_PROXY_AUTH_FILE=" + file}, carpooltest.Ports...))
		if got.Code != program.ExitUsage || !hasLine(got.Stderr, "CARPOOL_NEXT_PROXY_AUTH_FILE", file) {
			t.Errorf("%s: %+v", file, got)
		}
	}
}

func TestC39CarpoolIsNotItsOwnNextProxy(t *testing.T) {
	t.Parallel()
	got := command(t, []string{"CARPOOL_NEXT_PROXY=http://localhost:3128"}, "config")
	if got.Code != program.ExitUsage || !hasLine(got.Stderr, "CARPOOL_NEXT_PROXY=", "another proxy than carpool itself") {
		t.Errorf("%+v", got)
	}
	run := carpooltest.Run(t, "HTTP_PROXY=http://proxy.corp:8080")
	if line := run.Log.Line("carpool goes out directly, not through the proxy of its own environment: CARPOOL_NEXT_PROXY names one for it"); line == nil || line["variable"] != "HTTP_PROXY" {
		t.Errorf("logged: %v", line)
	}
}
