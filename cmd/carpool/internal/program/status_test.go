package program_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestTheStatusPageShowsWhatWentThrough(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(upstream.Close)
	c := carpooltest.Run(t)
	client := c.Dial() // one after the other
	for range 3 {
		r, err := client.Ask(http.MethodGet, upstream.URL+"/private/path?token=private")
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	var r *carpooltest.Reply
	for _, text := range []string{"<b>3</b> requests rode on <b>1</b> connection;", "<b>2</b> handshakes", upstream.URL} {
		testkit.Eventually(t, "the page says "+text, func() (says bool) { // an answer is counted when it has been sent
			var err error
			r, err = c.Probe("/")
			carpooltest.Want(t, http.StatusOK, r, err)
			return strings.Contains(r.Body, text)
		})
	}
	if strings.Contains(r.Body, "private") {
		t.Error("it tells what was asked for")
	}
	r, err := c.Probe("/index.html")
	carpooltest.Want(t, http.StatusNotFound, r, err)
	cl, err := carpooltest.Dial(c.Admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	r, err = cl.Ask(http.MethodPost, "/", "Host: "+c.Admin)
	carpooltest.Want(t, http.StatusMethodNotAllowed, r, err)
}
