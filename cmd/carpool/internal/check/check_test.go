package check_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/check"
)

func TestWhatIsSeenIsTurnedIntoALine(t *testing.T) {
	for answer, want := range map[string]struct{ stdout, stderr string }{
		`{"origins":[{"host":"a.","port":80},{"host":"a","port":443,"tls":true},{"host":"b_c","port":80},{"host":"10.0.0.7","port":1},{"host":"2001:db8::1","port":1}],"complete":true}`: {"CARPOOL_ALLOW_HOSTS=a,b_c,10.0.0.7,[2001:db8::1]\n", ""},
		`{"origins":[{"host":"a","port":80}],"complete":false}`:                {"CARPOOL_ALLOW_HOSTS=a\n", "only a part"},
		`{"origins":[{"host":"169.254.169.254","port":80}],"complete":true}`:   {"", "no host yet"},
		`{"origins":[{"host":"a\nb","port":80},{"host":"c"}],"complete":true}`: {"CARPOOL_ALLOW_HOSTS=c\n", ""},
		`{"origins":[],"complete":true}`:                                       {"", "no host yet"},
		`<html>`:                                                               {"", "cannot be read"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/seen" || r.Host != "localhost" {
				t.Errorf("asked for %s of %s", r.URL, r.Host)
			}
			_, _ = w.Write([]byte(answer))
		}))
		var stdout, stderr bytes.Buffer
		code := check.Run(context.Background(), []string{"--seen"}, []string{"CARPOOL_ADMIN_LISTEN=" + server.Listener.Addr().String()}, &stdout, &stderr)
		server.Close()
		if stdout.String() != want.stdout || !strings.Contains(stderr.String(), want.stderr) || want.stderr == "" && stderr.Len() > 0 || (code == 0) != (want.stdout != "") {
			t.Errorf("%s: %d, %q, %q", answer, code, &stdout, &stderr)
		}
	}
}

func TestAnOlderCarpoolIsNamed(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	var stdout, stderr bytes.Buffer
	code := check.Run(context.Background(), []string{"--seen"}, []string{"CARPOOL_ADMIN_LISTEN=" + server.Listener.Addr().String()}, &stdout, &stderr)
	if code != 1 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "404 Not Found: is it a carpool, of the same version?") {
		t.Errorf("%d, %q, %q", code, &stdout, &stderr)
	}
}
