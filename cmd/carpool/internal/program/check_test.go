package program_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
)

// What `carpool check` says of a URL is what the carpool beside it does with it, and it finds that carpool.
func TestACheckAndTheCarpoolBesideItAgree(t *testing.T) {
	u := carpooltest.NewUpstream(t)
	deny := "CARPOOL_DENY_HOSTS=denied.test"
	c := carpooltest.Run(t, deny)
	environ := []string{deny, "CARPOOL_LISTEN=" + c.Proxy, "CARPOOL_ADMIN_LISTEN=" + c.Admin}
	for range 2 {
		if status := throughProxy(t, c, u.URL+"/"); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
	}
	got := command(t, environ, "check", u.URL)
	if got.Code != program.ExitOK || !strings.HasPrefix(got.Stdout, u.URL+" would work: ") || !strings.Contains(got.Stdout, "2 requests on ") {
		t.Errorf("%+v", got)
	}
	for url, word := range map[string]string{"http://denied.test/": "403 http_request_denied", "http://" + c.Proxy + "/": "508 proxy_loop_detected"} {
		got := command(t, environ, "check", url)
		if got.Code != program.ExitFault || !strings.HasPrefix(got.Stdout, url+" would fail: "+word) {
			t.Errorf("%+v", got)
		}
		if status := throughProxy(t, c, url); !strings.HasPrefix(word, strconv.Itoa(status)+" ") {
			t.Errorf("%s is answered %d", url, status)
		}
	}
}

// The image has nothing but the binary: no shell, no variables that a shell would set.
func TestTheProgramChecksWithAnEmptyEnvironment(t *testing.T) {
	t.Parallel()
	u := carpooltest.NewUpstream(t)
	got := carpooltest.Process(t, []string{}, "check", "-v", u.URL)
	if got.Code != program.ExitOK || !strings.HasPrefix(got.Stdout, u.URL+" would work: the upstream answers 200 OK") || got.Stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := carpooltest.Process(t, []string{}, "check", "http://169.254.169.254/"); got.Code != program.ExitFault || !strings.Contains(got.Stdout, "would fail: 403 destination_ip_prohibited") {
		t.Errorf("%+v", got)
	}
}

// throughProxy returns the status that a request is answered with.
func throughProxy(t *testing.T, c *carpooltest.Carpool, url string) int {
	t.Helper()
	client, err := carpooltest.Dial(c.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r, err := client.Ask(http.MethodGet, url)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode
}
