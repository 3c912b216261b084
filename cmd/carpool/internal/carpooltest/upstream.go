package carpooltest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Upstream answers "here", and on /hold only when something comes from LetGo, or
// it is closed. Entered is told of each request to /hold.
type Upstream struct {
	*httptest.Server
	Entered chan struct{}
	LetGo   chan struct{}
}

// NewUpstream returns an upstream on a port of its own, which ends with the test.
func NewUpstream(t testing.TB) *Upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ServeUpstream(t, l)
}

// ServeUpstream is NewUpstream on a listener that there is.
func ServeUpstream(t testing.TB, l net.Listener) *Upstream {
	t.Helper()
	u := &Upstream{Entered: make(chan struct{}, 1000), LetGo: make(chan struct{})}
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			u.Entered <- struct{}{}
			select {
			case <-u.LetGo:
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
