package program_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// The log, the metrics and, if that is asked for, the answer say where the time of a request went.
func TestWhereTheTimeWentIsTold(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	for access, header := range map[string]bool{"all": false, "debug": true} {
		t.Run(access, func(t *testing.T) {
			t.Parallel()
			run := carpooltest.Run(t, "CARPOOL_ACCESS_LOG="+access)
			r, err := carpooltest.Once(run.Proxy, "GET", up.URL+"/")
			carpooltest.Want(t, 200, r, err)
			if timing := r.Header.Get("Server-Timing"); strings.Contains(timing, "carpool-first_byte;dur=") != header || timing != "" && !header {
				t.Errorf("Server-Timing: %q", timing)
			}
			testkit.Eventually(t, "it is logged", func() bool { return run.Log.Line("request") != nil })
			line := run.Log.Line("request")
			for _, phase := range []string{"connect", "first_byte", "rest"} {
				if d, _ := line[phase].(float64); d <= 0 || d > line["duration"].(float64) {
					t.Errorf("%s took %v: %v", phase, line[phase], line)
				}
				if n := run.Metric("carpool_request_phase_seconds_count", `phase="`+phase+`"`); n != 1 {
					t.Errorf("%v are counted in %s", n, phase)
				}
			}
			if n := run.Metric("carpool_request_duration_seconds_count"); n != 1 {
				t.Errorf("%v are counted", n)
			}
		})
	}
}
