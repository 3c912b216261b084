package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

// h2Server is a server of net/http that speaks HTTP/2 in plain text, by prior
// knowledge, and HTTP/1.1 no more.
func h2Server(t *testing.T, h http.HandlerFunc) *origin {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return &origin{t: t, addr: s.Listener.Addr().String()}
}

// inHTTP2 has all http origins spoken to in HTTP/2.
func inHTTP2(s *settings) { s.pool.H2C = func(pool.Key) bool { return true } }

func TestH2AnExchange(t *testing.T) {
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %s %s %d %s", r.Proto, r.Method, r.Host, len(b), r.Header.Get("X-One"))
	})
	c := start(t, inHTTP2).client()
	for _, size := range []int{0, 10, 100_000, 3_000_000} {
		method, want := "POST", fmt.Sprintf("HTTP/2.0 POST %s %d 1", o.addr, size)
		c.send(o.request(method, "/x", fmt.Sprintf("X-One: 1\r\nContent-Length: %d\r\n", size)))
		c.send(strings.Repeat("x", size))
		if status, _, body := c.reply(); status != 200 || body != want {
			t.Errorf("got %d %q", status, body)
		}
	}
}
