package program_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// adminOf is the environment of a carpool with this address for /readyz.
func adminOf(address string) []string { return []string{"CARPOOL_ADMIN_LISTEN=" + address} }

func TestReadySaysWhetherTheCarpoolOfThePodServes(t *testing.T) {
	c := carpooltest.Run(t)
	if got := command(t, adminOf(c.Admin), "ready"); got.Code != program.ExitOK || got.Stdout+got.Stderr != "" {
		t.Errorf("beside one that serves: %+v", got)
	}
	_, port, _ := strings.Cut(c.Admin, ":")
	for _, everywhere := range []string{":" + port, "0.0.0.0:" + port, "localhost:" + port} {
		if got := command(t, adminOf(everywhere), "ready"); got.Code != program.ExitOK {
			t.Errorf("CARPOOL_ADMIN_LISTEN=%s: %+v", everywhere, got)
		}
	}
	c.End()
	if got := command(t, adminOf(c.Admin), "ready"); got.Code != program.ExitFault || !strings.Contains(got.Stderr, "not ready: ") {
		t.Errorf("beside one that has ended: %+v", got)
	}
}

func TestReadyWaitsAsLongAsItMay(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || r.Host != "localhost" {
			t.Errorf("asked for %s of %s", r.URL, r.Host)
		}
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	environ := adminOf(server.Listener.Addr().String())
	if got := command(t, environ, "ready"); got.Code != program.ExitFault || !strings.Contains(got.Stderr, "503") || asked.Load() != 1 {
		t.Errorf("without --wait, asked %d times: %+v", asked.Load(), got)
	}
	if got := command(t, environ, "ready", "--wait", testkit.Patience.String()); got.Code != program.ExitOK || asked.Load() != 3 {
		t.Errorf("with --wait, asked %d times: %+v", asked.Load(), got)
	}
	// The environment's own proxy is not asked.
	environ = append(environ, "HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1")
	if got := command(t, environ, "ready"); got.Code != program.ExitOK {
		t.Errorf("with a proxy in the environment: %+v", got)
	}
}
