package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestTheStatusPageShowsWhatWentThrough(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(upstream.Close)
	c := runCarpool(t)
	client := c.dial() // one after the other
	for range 3 {
		r, err := client.ask(http.MethodGet, upstream.URL+"/private/path?token=private")
		want(t, http.StatusOK, r, err)
	}
	var r *reply
	for _, text := range []string{"<b>3</b> requests rode on <b>1</b> connection;", "<b>2</b> handshakes", upstream.URL} {
		testkit.Eventually(t, "the page says "+text, func() (says bool) { // an answer is counted when it has been sent
			var err error
			r, err = c.probe("/")
			want(t, http.StatusOK, r, err)
			return strings.Contains(r.body, text)
		})
	}
	if strings.Contains(r.body, "private") {
		t.Error("it tells what was asked for")
	}
	r, err := c.probe("/index.html")
	want(t, http.StatusNotFound, r, err)
	cl, err := dial(c.admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	r, err = cl.ask(http.MethodPost, "/", "Host: "+c.admin)
	want(t, http.StatusMethodNotAllowed, r, err)
}
