package faults_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// lastAnswer checks an answer that has to be the last of its connection.
func lastAnswer(t testing.TB, c *carpooltest.Client, r *carpooltest.Reply, err error) {
	t.Helper()
	carpooltest.Want(t, http.StatusOK, r, err)
	if r.Body != "here" || !r.Close {
		t.Fatalf("got %q, Connection: close is %v; want it, and the answer", r.Body, r.Close)
	}
	c.Ended(t)
}

// servesOn checks that new connections are taken, and that the admin listener
// tells how things stand.
func servesOn(t testing.TB, c *carpooltest.Carpool, url string) {
	t.Helper()
	if got := [...]int{c.Status("/readyz"), c.Status("/healthz")}; got != [...]int{503, 200} {
		t.Fatalf("/readyz and /healthz say %v", got)
	}
	cl := c.Dial()
	r, err := cl.Ask("GET", url+"/")
	lastAnswer(t, cl, r, err)
}

func TestX20ServesWhileARequestIsOpen(t *testing.T) {
	t.Parallel()
	const delay = 500 * time.Millisecond
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Start(t, "CARPOOL_DRAIN_DELAY="+delay.String())
	if c.Status("/readyz") != 200 || c.Status("/healthz") != 200 {
		t.Fatalf("not ready before the signal")
	}
	kept, silent, held := c.Dial(), c.Dial(), c.Dial()
	for _, cl := range []*carpooltest.Client{kept, silent} {
		r, err := cl.Ask("GET", up.URL+"/")
		carpooltest.Want(t, 200, r, err)
		if r.Close {
			t.Error("before the signal an answer says Connection: close")
		}
	}
	if err := held.Send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the request has arrived", up.Entered)

	c.Terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.Status("/readyz") == 503 })
	r, err := kept.Ask("GET", up.URL+"/")
	lastAnswer(t, kept, r, err)
	c.Terminate() // once more: nobody means by it that requests should be lost
	for begin := time.Now(); time.Since(begin) < 2*delay; {
		servesOn(t, c, up.URL) // beyond the delay, for a request is open
	}
	close(up.LetGo)
	r, err = held.Receive("GET")
	lastAnswer(t, held, r, err)
	c.Exit() // although a client is idle
	silent.Ended(t)
	if line := c.Log.Line("stopped"); line == nil || line["cut_off"] != false {
		t.Errorf("the log says of the end: %v", line)
	}
}

func TestX20ServesForTheDelayWhenNothingIsOpen(t *testing.T) {
	t.Parallel()
	const delay = time.Second
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Start(t, "CARPOOL_DRAIN_DELAY="+delay.String())
	signalled := time.Now()
	c.Terminate()
	c.Terminate()
	for answered := 0; ; answered++ {
		begin := time.Now()
		r, err := carpooltest.Once(c.Proxy, "GET", up.URL+"/")
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
	c.Exit()
}

func TestX20CutsOffAtTheTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 1500 * time.Millisecond
	up := carpooltest.NewUpstream(t)
	c := carpooltest.Start(t, "CARPOOL_DRAIN_TIMEOUT="+timeout.String())
	held, tunnel := c.Dial(), c.Dial()
	if err := held.Send("GET", up.URL+"/hold"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the request has arrived", up.Entered)
	openTunnel(t, tunnel, up.Listener.Addr().String())

	signalled := time.Now()
	c.Terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.Status("/readyz") == 503 })
	servesOn(t, c, up.URL)
	c.Exit()
	if passed := time.Since(signalled); passed < timeout {
		t.Errorf("exited %v after the signal although a request and a tunnel were open", passed)
	}
	held.Ended(t)
	tunnel.Ended(t)
	if line := c.Log.Line("stopped"); line == nil || line["cut_off"] != true {
		t.Errorf("the log says of the end: %v", line)
	}
}

// An open tunnel counts like an open request: it holds the end up, and it works.
func TestX20WaitsForTunnels(t *testing.T) {
	t.Parallel()
	up := carpooltest.NewUpstream(t)
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	c := carpooltest.Start(t, "CARPOOL_CONNECT_TUNNEL_PORTS="+port) // for HTTP is spoken in it
	tunnel := c.Dial()
	openTunnel(t, tunnel, up.Listener.Addr().String())
	c.Terminate()
	testkit.Eventually(t, "/readyz says 503", func() bool { return c.Status("/readyz") == 503 })
	for range 3 {
		servesOn(t, c, up.URL)
		r, err := tunnel.Ask("GET", "/", "Host: up")
		carpooltest.Want(t, 200, r, err)
	}
	_ = tunnel.Close()
	c.Exit()
}

// openTunnel makes a tunnel of a client's connection.
func openTunnel(t testing.TB, c *carpooltest.Client, authority string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority)
	for first := true; ; first = false {
		line, err := c.In.ReadString('\n')
		if err != nil || first && !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			t.Fatalf("CONNECT is answered %q, %v", line, err)
		}
		if line == "\r\n" {
			return
		}
	}
}
