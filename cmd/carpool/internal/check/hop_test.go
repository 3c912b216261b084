package check_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/check"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// newHop returns a proxy that connects to 127.0.0.1 whatever host it is asked for, and refuses all with a status, if that
// is not 0.
func newHop(t *testing.T, status int) *httptest.Server {
	t.Helper()
	return serve(t, httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case status != 0:
			w.WriteHeader(status)
		case r.Method == http.MethodConnect:
			tunnel(t, w, r)
		case r.URL.IsAbs():
			w.Header().Set("X-Hop", "yes")
			answer(w, r)
		default:
			t.Errorf("the hop is asked for %s", r.RequestURI)
		}
	})))
}

// tunnel connects a client of the hop with a port of 127.0.0.1, until one of them ends.
func tunnel(t *testing.T, w http.ResponseWriter, r *http.Request) {
	_, port, _ := net.SplitHostPort(r.Host)
	up, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer up.Close()
	down, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer down.Close()
	_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(up, down)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(down, up)
	_ = down.Close()
	<-ended
}

func TestWhatGoesThroughTheNextHopIsToldSo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca, caFile := newAuthority(t, "the authority")
	server := secure(t, ca, nil, nil)
	hop, asks, closed := newHop(t, 0), newHop(t, 407), testkit.Refused(t)
	const direct, through = "settings lane policy hop name addresses endpoint connect pool?", "settings lane policy hop name addresses endpoint connect"
	for name, c := range map[string]struct {
		hop    string
		args   []string
		way    string
		answer string // its text holds this; "": it works
		want   check.Hop
		says   string
	}{
		"plain HTTP":   {hop: hop.URL, args: []string{"http://external.example/"}, way: direct, want: check.Hop{Taken: true, Relayed: true}, says: "would work: the next hop takes the request; -v asks it"},
		"a request":    {hop: hop.URL, args: []string{"-v", "http://external.example/"}, way: through + " answer pool?", want: check.Hop{Taken: true, Relayed: true}, says: "would work: the upstream answers 200 OK"},
		"https":        {hop: hop.URL, args: []string{"https://api.example.test:" + portOf(server) + "/"}, way: through + " tls pool?", want: check.Hop{Taken: true}, says: "would work: a tunnel"},
		"past it":      {hop: hop.URL, args: []string{"http://orders:" + portOf(l.upstream) + "/"}, way: direct, says: "would work: carpool pools"},
		"it is away":   {hop: "http://" + closed.String(), args: []string{"http://external.example/"}, way: through + "✗ pool?", want: check.Hop{Taken: true, Relayed: true}, answer: "the next hop refused the connection"},
		"no password":  {hop: asks.URL, args: []string{"https://api.example.test:" + portOf(server) + "/"}, way: through + "✗ pool?", want: check.Hop{Taken: true}, answer: "CARPOOL_NEXT_PROXY_AUTH_FILE"},
		"nobody there": {hop: hop.URL, args: []string{"https://api.example.test:" + strings.TrimPrefix(closed.String(), "127.0.0.1:") + "/"}, way: through + "✗ pool?", want: check.Hop{Taken: true}, answer: "the next hop could not connect to the upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := l.report([]string{"CARPOOL_NEXT_PROXY=" + c.hop, "CARPOOL_CA_FILE=" + caFile}, c.args...)
			var got check.Hop
			factsOf(t, r, "hop", &got)
			c.want.Hop = got.Hop
			if way(r) != c.way || got != c.want || !strings.HasPrefix(got.Hop, "http://127.0.0.1:") {
				t.Errorf("%s, %+v", way(r), got)
			}
			if r.Works != (c.answer == "") || r.Works && !strings.HasPrefix(r.Conclusion, c.says) || !r.Works && !strings.Contains(r.Answer.Text, c.answer) {
				t.Errorf("%s, %+v", r.Conclusion, r.Answer)
			}
		})
	}
}
