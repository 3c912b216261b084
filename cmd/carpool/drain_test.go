package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// upstream answers "here", and on /hold only when it is let go. entered is told
// of each request to /hold.
type upstream struct {
	*httptest.Server
	entered chan struct{}
	letGo   chan struct{}
}

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveUpstream(t, l)
}

func serveUpstream(t testing.TB, l net.Listener) *upstream {
	t.Helper()
	u := &upstream{entered: make(chan struct{}, 1000), letGo: make(chan struct{})}
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			u.entered <- struct{}{}
			select {
			case <-u.letGo:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "here")
	}
	u.Server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(answer)}}
	u.Start()
	t.Cleanup(u.Close)
	return u
}

// wait waits for a channel to be closed or to have something.
func wait(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(testkit.Patience):
		t.Fatalf("still not so after %v: %s", testkit.Patience, what)
	}
}

// lastAnswer checks an answer that has to be the last of its connection.
func lastAnswer(t testing.TB, c *client, r *reply, err error) {
	t.Helper()
	want(t, http.StatusOK, r, err)
	if r.body != "here" || !r.Close {
		t.Fatalf("got %q, Connection: close is %v; want it, and the answer", r.body, r.Close)
	}
	c.ended(t)
}

// servesOn checks that new connections are taken, and that the admin listener
// tells how things stand.
func servesOn(t testing.TB, c *carpool, url string) {
	t.Helper()
	if got := [...]int{c.status("/readyz"), c.status("/healthz")}; got != [...]int{503, 200} {
		t.Fatalf("/readyz and /healthz say %v", got)
	}
	cl := c.dial()
	r, err := cl.ask("GET", url+"/")
	lastAnswer(t, cl, r, err)
}

func TestX20ServesWhileARequestIsOpen(t *testing.T) {
	t.Parallel()
	const delay = 500 * time.Millisecond
	up := newUpstream(t)
	c := startCarpool(t, "CARPOOL_DRAIN_DELAY="+delay.String())
	if c.status("/readyz") != 200 || c.status("/healthz") != 200 {
		t.Fatalf("not ready before the signal")
	}
	kept, silent, held := c.dial(), c.dial(), c.dial()
	for _, cl := range []*client{kept, silent} {
		r, err := cl.ask("GET", up.URL+"/")
		want(t, 200, r, err)
		if r.Close {
			t.Error("before the signal an answer says Connection: close")
		}
	}
	if err := held.send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the request has arrived", up.entered)

	c.terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.status("/readyz") == 503 })
	r, err := kept.ask("GET", up.URL+"/")
	lastAnswer(t, kept, r, err)
	c.terminate() // once more: nobody means by it that requests should be lost
	for begin := time.Now(); time.Since(begin) < 2*delay; {
		servesOn(t, c, up.URL) // beyond the delay, for a request is open
	}
	close(up.letGo)
	r, err = held.receive("GET")
	lastAnswer(t, held, r, err)
	c.exit() // although a client is idle
	silent.ended(t)
	if line := c.log.line("stopped"); line == nil || line["cut_off"] != false {
		t.Errorf("the log says of the end: %v", line)
	}
}

func TestX20ServesForTheDelayWhenNothingIsOpen(t *testing.T) {
	t.Parallel()
	const delay = time.Second
	up := newUpstream(t)
	c := startCarpool(t, "CARPOOL_DRAIN_DELAY="+delay.String())
	signalled := time.Now()
	c.terminate()
	c.terminate()
	for answered := 0; ; answered++ {
		begin := time.Now()
		r, err := once(c.proxy, "GET", up.URL+"/")
		if err == nil && r.StatusCode == 200 {
			continue
		}
		if passed := time.Since(signalled); passed < delay {
			t.Fatalf("%v after the signal, and %v after the connection was begun: %v, %v", passed, time.Since(begin), r, err)
		}
		if answered == 0 {
			t.Error("nothing was answered after the signal")
		}
		break
	}
	c.exit()
}

func TestX20CutsOffAtTheTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 1500 * time.Millisecond
	up := newUpstream(t)
	c := startCarpool(t, "CARPOOL_DRAIN_TIMEOUT="+timeout.String())
	held, tunnel := c.dial(), c.dial()
	if err := held.send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the request has arrived", up.entered)
	openTunnel(t, tunnel, up.Listener.Addr().String())

	signalled := time.Now()
	c.terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.status("/readyz") == 503 })
	servesOn(t, c, up.URL)
	c.exit()
	if passed := time.Since(signalled); passed < timeout {
		t.Errorf("exited %v after the signal although a request and a tunnel were open", passed)
	}
	held.ended(t)
	tunnel.ended(t)
	if line := c.log.line("stopped"); line == nil || line["cut_off"] != true {
		t.Errorf("the log says of the end: %v", line)
	}
}

// An open tunnel counts like an open request: it holds the end up, and it works.
func TestX20WaitsForTunnels(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	c := startCarpool(t)
	tunnel := c.dial()
	openTunnel(t, tunnel, up.Listener.Addr().String())
	c.terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.status("/readyz") == 503 })
	for range 3 {
		servesOn(t, c, up.URL)
		r, err := tunnel.ask("GET", "/", "Host: up")
		want(t, 200, r, err)
	}
	_ = tunnel.Close()
	c.exit()
}

// openTunnel makes a tunnel of a client's connection.
func openTunnel(t testing.TB, c *client, authority string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority)
	for first := true; ; first = false {
		line, err := c.in.ReadString('\n')
		if err != nil || first && !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			t.Fatalf("CONNECT is answered %q, %v", line, err)
		}
		if line == "\r\n" {
			return
		}
	}
}
