package clients

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// preloadedHTTPS is a client as preloaded is, whose https goes through carpool as
// well.
func preloadedHTTPS(major int, library string) client {
	c := preloaded(major, library)
	plain := c.program
	c.absoluteHTTPS = true
	c.direct = 20 // two or three, and on a loaded machine what is called while carpool looks at the certificate
	c.program = func(proxyPort int) (program, error) {
		p, err := plain(proxyPort)
		// The libraries find a proxy for http only, as in a pod.
		p.env = append(p.env, "CARPOOL_PRELOAD_HTTPS=true", "HTTPS_PROXY=", "https_proxy=")
		return p, err
	}
	return c
}

func TestPreloadedNodeSharesConnectionsOfHTTPS(t *testing.T) {
	for _, major := range preloadMajors {
		for _, library := range preloadLibraries {
			c := preloadedHTTPS(major, library)
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				need(t, c.available())
				c.check(t, startCarpool(t), targets[2])
			})
		}
	}
}

// An authority that carpool does not know costs no request: they go out as before.
func TestPreloadedNodeLosesNothingToTrust(t *testing.T) {
	for _, major := range preloadMajors {
		c := preloadedHTTPS(major, "axios-0.21")
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.available())
			up := targets[2].start(t)
			if err := c.run(startCarpool(t, "CARPOOL_CA_FILE=").port, "https", up.port, 50); err != nil {
				t.Error(err)
			}
			saw, err := up.stop()
			if err != nil {
				t.Fatal(err)
			}
			if saw.Requests != 52 {
				t.Errorf("%d requests arrived, want 52", saw.Requests)
			}
		})
	}
}

// A certificate that does not hold is refused in every way, with the error that the
// app saw before.
func TestC5PreloadedNodeFailsAsBefore(t *testing.T) {
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, bad := range files.bad {
		urls = append(urls, fmt.Sprintf("https://127.0.0.1:%d/echo?tag=a&n=1", startNginx(t, bad).port))
	}
	proxy := startCarpool(t)
	for _, major := range preloadMajors {
		for _, library := range preloadLibraries {
			c := preloadedHTTPS(major, library)
			t.Run("C5 "+c.name, func(t *testing.T) {
				t.Parallel()
				need(t, c.available())
				before := c.failures(t, proxy, false, urls)
				after := c.failures(t, proxy, true, urls)
				t.Log(before)
				if slices.Contains(before, "none") || len(before) != 3*len(urls) {
					t.Errorf("without the script: %q", before)
				}
				if !slices.Equal(before, after) {
					t.Errorf("the errors are %q, were %q", after, before)
				}
			})
		}
	}
}

// failures returns the codes of the errors that a client fails with at these URLs,
// with the script or without any proxy.
func (c client) failures(t *testing.T, proxy *carpool, scripted bool, urls []string) (codes []string) {
	t.Helper()
	p, err := c.program(proxy.port)
	if err != nil {
		t.Fatal(err)
	}
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	env := append(clientEnv(proxy.port, files.ca), p.env...)
	if !scripted {
		env = append(env, "HTTP_PROXY=", "http_proxy=")
	}
	argv := append(slices.Clone(p.argv), urls[0], "fail")
	out, err := runProgram(clientTimeout, env, append(argv, urls[1:]...)...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	if err := json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &codes); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return codes
}

// rotating is an upstream whose certificate is replaced by another at /rotate.
func rotating(t *testing.T, other string) (url string, requests func() int) {
	t.Helper()
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	load := func(file string) *tls.Certificate {
		cert, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			t.Fatal(err)
		}
		return &cert
	}
	var mu sync.Mutex // guards what is below
	cert, next, n := load(files.server), load(other), 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		n++
		w.Header().Set("Connection", "close")
		if r.URL.Path == "/rotate" {
			cert = next
		}
		io.WriteString(w, "ok")
	}))
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return &tls.Config{Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true}, nil
	}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// A certificate that ceases to hold while requests go through carpool fails them as
// it would have failed them without.
func TestC5ACertificateThatIsReplacedFailsAsBefore(t *testing.T) {
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, major := range preloadMajors {
		c := preloadedHTTPS(major, "http.get")
		for i, bad := range files.bad {
			t.Run(fmt.Sprintf("C5 %s %s", c.name, filepath.Base(bad)), func(t *testing.T) {
				t.Parallel()
				need(t, c.available())
				proxy := startCarpool(t)
				p, err := c.program(proxy.port)
				if err != nil {
					t.Fatal(err)
				}
				url, requests := rotating(t, bad)
				env := append(clientEnv(proxy.port, files.ca), p.env...)
				out, err := runProgram(clientTimeout, env, p.argv[0], filepath.Join("programs", "rotate.js"), url)
				want := fmt.Sprint(strings.Repeat(badCodes[i]+"\n", 3))
				if err != nil || out != want {
					t.Errorf("%v: got %q, want %q", err, out, want)
				}
				before := requests()
				if n, err := proxy.accepted(); err != nil || n < 2 || before < 20 {
					t.Errorf("%d connections to carpool (%v) for %d requests: they went past it", n, err, before)
				}
			})
		}
	}
}

// A process that is forked, and one of its threads, do as their parent.
func TestPreloadedNodeForks(t *testing.T) {
	for _, major := range preloadMajors {
		c := preloadedHTTPS(major, "http.get")
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.available())
			files, err := makeTLSFiles()
			if err != nil {
				t.Fatal(err)
			}
			proxy := startCarpool(t)
			up := startNginx(t, files.server)
			p, err := c.program(proxy.port)
			if err != nil {
				t.Fatal(err)
			}
			env := append(clientEnv(proxy.port, files.ca), p.env...)
			out, err := runProgram(clientTimeout, env, p.argv[0], filepath.Join("programs", "forks.js"),
				fmt.Sprintf("https://127.0.0.1:%d/echo?tag=a&n=1", up.port), "a 1")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			saw, err := up.stop()
			if err != nil {
				t.Fatal(err)
			}
			if saw.Requests != 300 || saw.Connections >= 3*connectionLimit {
				t.Errorf("%d requests over %d connections, want 300 over fewer than %d", saw.Requests, saw.Connections, 3*connectionLimit)
			}
		})
	}
}
