package program_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// S9, S12: what the settings say arrives at what decides: a case is named after the setting
// that refuses.
func TestRulesOnWhereRequestsMayGo(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	_, port, _ := strings.Cut(up.Listener.Addr().String(), ":")
	for name, c := range map[string]struct {
		settings []string
		kind     string // "" passes
		rule     string
	}{
		"nothing":                {nil, "", ""},
		"CARPOOL_ALLOW_HOSTS":    {[]string{"CARPOOL_ALLOW_HOSTS=.example.com"}, "http_request_denied", "allow_hosts"},
		"another ALLOW_HOSTS":    {[]string{"CARPOOL_ALLOW_HOSTS=.example.com,127.0.0.1"}, "", ""},
		"ALLOW_CIDRS besides":    {[]string{"CARPOOL_ALLOW_HOSTS=.example.com", "CARPOOL_ALLOW_CIDRS=127.0.0.0/8"}, "", ""},
		"ALLOW_CIDRS alone":      {[]string{"CARPOOL_ALLOW_CIDRS=10.0.0.0/8"}, "", ""},
		"CARPOOL_DENY_HOSTS":     {[]string{"CARPOOL_ALLOW_HOSTS=127.0.0.1", "CARPOOL_DENY_HOSTS=127.0.0.1:" + port}, "http_request_denied", "deny_hosts"},
		"CARPOOL_DENY_CIDRS":     {[]string{"CARPOOL_ALLOW_CIDRS=127.0.0.1", "CARPOOL_DENY_CIDRS=127.0.0.0/8"}, "destination_ip_prohibited", "deny_cidrs"},
		"report ALLOW_HOSTS":     {[]string{"CARPOOL_POLICY=report", "CARPOOL_ALLOW_HOSTS=.example.com"}, "", "allow_hosts"},
		"report DENY_CIDRS":      {[]string{"CARPOOL_POLICY=report", "CARPOOL_DENY_CIDRS=127.0.0.1"}, "", "deny_cidrs"},
		"CARPOOL_CONNECT_PORTS?": {[]string{"CARPOOL_CONNECT_PORTS=1"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Without age no connection is replaced: each dial counts.
			run := carpooltest.Run(t, append([]string{"CARPOOL_MAX_CONN_AGE=0"}, c.settings...)...)
			r, err := carpooltest.Once(run.Proxy, "GET", up.URL+"/")
			if c.kind == "" {
				carpooltest.Want(t, 200, r, err)
			} else {
				carpooltest.Want(t, 403, r, err)
			}
			action, message, other := "refused", "request", "reported"
			if c.kind == "" {
				action, message, other = "reported", "let through by CARPOOL_POLICY=report", "refused"
			}
			if n := run.Metric("carpool_policy_refusals_total", `action="`+other+`"`); n != 0 {
				t.Errorf("%v are counted as %s", n, other)
			}
			if c.rule == "" {
				if n := run.Metric("carpool_policy_refusals_total", `action="`+action+`"`); n != 0 {
					t.Errorf("%v are counted as %s", n, action)
				}
				return
			}
			if n := run.Metric("carpool_policy_refusals_total", `rule="`+c.rule+`"`, `action="`+action+`"`); n != 1 {
				t.Errorf("%v are counted as %s", n, action)
			}
			testkit.Eventually(t, "it is logged", func() bool { return run.Log.Line(message) != nil })
			line := run.Log.Line(message)
			detail, _ := line["detail"].(string)
			if !strings.Contains(detail, "CARPOOL_"+strings.ToUpper(c.rule)) || !strings.Contains(line["origin"].(string), "127.0.0.1:"+port) {
				t.Errorf("logged as %v", line)
			}
		})
	}
}

// An operator may take it for a list of what is allowed.
func TestRangesThatLimitNothingAreAWarning(t *testing.T) {
	t.Parallel()
	run := carpooltest.Run(t, "CARPOOL_ALLOW_CIDRS=10.0.0.0/8,169.254.171.0/24")
	message := "CARPOOL_ALLOW_CIDRS opens nothing here, and limits nothing either: CARPOOL_ALLOW_HOSTS does"
	if line := run.Log.Line(message); line == nil || line["ranges"] != "10.0.0.0/8" {
		t.Errorf("logged: %v", line)
	}
}

func TestCheckSeenPrintsTheHostsThatWereAskedFor(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	run := carpooltest.Run(t, "CARPOOL_DENY_HOSTS=denied.invalid")
	environ := adminOf(run.Admin)
	if got := command(t, environ, "check", "--seen"); got.Code != program.ExitFault || got.Stdout != "" || !strings.Contains(got.Stderr, "no host yet") {
		t.Errorf("at first: %+v", got)
	}
	for _, url := range []string{up.URL, up.URL, "http://[::1]:1/", "http://[::1]:2/", "http://169.254.169.254/", "http://denied.invalid/"} {
		if _, err := carpooltest.Once(run.Proxy, "GET", url); err != nil {
			t.Fatal(err)
		}
	}
	got := command(t, environ, "check", "--seen")
	if got.Code != program.ExitOK || got.Stdout != "CARPOOL_ALLOW_HOSTS=127.0.0.1,[::1]\n" || got.Stderr != "" {
		t.Errorf("%+v", got)
	}
	// What is printed is a setting that allows what was seen.
	next := carpooltest.Run(t, strings.TrimSpace(got.Stdout))
	r, err := carpooltest.Once(next.Proxy, "GET", up.URL)
	carpooltest.Want(t, 200, r, err)

	got = command(t, environ, "check", "--seen", "--json")
	var list seen.List
	if err := json.Unmarshal([]byte(got.Stdout), &list); err != nil || got.Code != program.ExitOK {
		t.Fatalf("%v: %+v", err, got)
	}
	if !list.Complete || len(list.Origins) != 4 || !slices.Contains(list.Origins, seen.Origin{Host: "::1", Port: 2}) {
		t.Errorf("%+v", list)
	}
	run.End()
	if got := command(t, environ, "check", "--seen"); got.Code != program.ExitFault || !strings.Contains(got.Stderr, "CARPOOL_ADMIN_LISTEN") {
		t.Errorf("beside one that has ended: %+v", got)
	}
}
