package check_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/check"
)

const (
	toTheEnd = "settings lane policy name addresses endpoint connect pool?"
	withTLS  = "settings lane policy name addresses endpoint connect tls pool?"
)

// urls are URLs, each with what would become of it. PORT is that of the upstream.
var urls = map[string]struct {
	settings []string
	url      string
	answer   string // status, error and rule; "" if it would work
	way      string
	says     string // in the text
	do       string
}{
	"an address":          {url: "http://127.0.0.1:PORT/path?q#part", way: toTheEnd, says: "an address: nothing is looked up"},
	"a name":              {url: "http://api.example.test:PORT/", way: toTheEnd, says: "api.example.test. is 127.0.0.1"},
	"S5 letter case":      {url: "HTTP://API.example.test:PORT", way: toTheEnd, says: "api.example.test. is 127.0.0.1"},
	"a short name":        {url: "http://orders:PORT/", way: toTheEnd, says: "orders.shop.test. is 127.0.0.1"},
	"further in the list": {url: "http://api.example:PORT/", settings: []string{"CARPOOL_ALLOW_HOSTS=api.example"}, way: "settings lane policy name✗ pool?", answer: "502 dns_error ", says: "NXDOMAIN", do: "record exists"},
	"localhost":           {url: "http://localhost:PORT/", way: "settings lane policy name addresses endpoint connect! pool?", says: "localhost is ::1, 127.0.0.1"},
	"user information":    {url: "http://user:secret@127.0.0.1:PORT/", way: toTheEnd},
	"a tunnel":            {url: "api.example.test:PORT", way: toTheEnd, says: "CONNECT api.example.test:"},
	"no such name":        {url: "http://nowhere/", answer: "502 dns_error ", way: "settings lane policy name✗ pool?", says: "for nowhere.svc.test.", do: "NAME.NAMESPACE"},
	"no such long name":   {url: "http://no.where.test/", answer: "502 dns_error ", way: "settings lane policy name✗ pool?", do: "record exists"},
	"silent name servers": {url: "http://silent.test/", settings: []string{"CARPOOL_DNS_TIMEOUT=400ms"}, answer: "504 dns_timeout ", way: "settings lane policy name✗ pool?", says: "A: no answer in", do: "name servers run"},
	"nobody listens":      {url: "http://dead.test:PORT/", answer: "502 connection_refused ", way: "settings lane policy name addresses endpoint connect✗ pool?", says: "127.0.0.9:PORT: connection refused", do: "listens on port PORT"},
	"one of two is dead":  {url: "http://half.test:PORT/", settings: []string{"CARPOOL_BALANCE=reuse"}, way: "settings lane policy name addresses endpoint connect! pool?", says: "127.0.0.9:PORT: connection refused"},
	"S1 metadata":         {url: "http://169.254.169.254/", answer: "403 destination_ip_prohibited metadata", way: "settings lane policy name addresses✗ pool?"},
	"S1 metadata by name": {url: "http://metadata.test/", answer: "403 destination_ip_prohibited metadata", way: "settings lane policy name addresses✗ pool?", says: "169.254.169.254: refused by the rule metadata"},
	"S3 loopback":         {url: "http://127.0.0.1:PORT/", settings: []string{"CARPOOL_LISTEN=0.0.0.0:1"}, answer: "403 destination_ip_prohibited loopback", way: "settings lane policy name addresses✗ pool?"},
	"S1 opened":           {url: "http://127.0.0.1:PORT/", settings: []string{"CARPOOL_LISTEN=0.0.0.0:1", "CARPOOL_ALLOW_CIDRS=127.0.0.0/8"}, way: toTheEnd, says: "opened by CARPOOL_ALLOW_CIDRS=127.0.0.0/8"},
	"S4 partly":           {url: "http://partly.test:PORT/", way: "settings lane policy name addresses! endpoint connect pool?", says: "169.254.1.1: refused by the rule link_local"},
	"S9 denied host":      {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_DENY_HOSTS=.example.test"}, answer: "403 http_request_denied deny_hosts", way: "settings lane policy✗", says: "CARPOOL_DENY_HOSTS=.example.test (default empty)"},
	"S9 not allowed":      {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_ALLOW_HOSTS=orders"}, answer: "403 http_request_denied allow_hosts", way: "settings lane policy✗"},
	"S9 allowed":          {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_ALLOW_HOSTS=orders,.example.test"}, way: toTheEnd, says: "allowed by the entry .example.test of CARPOOL_ALLOW_HOSTS"},
	"S10 denied range":    {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_DENY_CIDRS=127.0.0.0/8"}, answer: "403 destination_ip_prohibited deny_cidrs", way: "settings lane policy name addresses✗ pool?"},
	"S12 reported host":   {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_ALLOW_HOSTS=orders", "CARPOOL_POLICY=report"}, way: "settings lane policy! name addresses endpoint connect pool?", says: "let through by CARPOOL_POLICY=report"},
	"S12 reported range":  {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_DENY_CIDRS=127.0.0.0/8", "CARPOOL_POLICY=report"}, way: "settings lane policy name addresses! endpoint connect pool?", says: "127.0.0.1: let through by CARPOOL_POLICY=report"},
	"CONNECT":             {url: "api.example.test:PORT", settings: []string{"CARPOOL_CONNECT_PORTS=443"}, answer: "403 http_request_denied connect_ports", way: "settings lane policy✗"},
	"CONNECT for https":   {url: "https://api.example.test:PORT/", settings: []string{"CARPOOL_CONNECT_PORTS=443"}, answer: "403 http_request_denied connect_ports", way: "settings lane policy✗ pool?"},
	"http otherwise":      {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_CONNECT_PORTS=443"}, way: "settings lane! policy name addresses endpoint connect pool?", says: "not by CONNECT: 403"},
	"S6 a number":         {url: "http://127.1/", answer: "400 http_request_error ", way: "settings lane✗"},
	"port":                {url: "http://orders:99999/", answer: "400 http_request_error ", way: "settings lane✗"},
	"S7 carpool itself":   {url: "http://127.0.0.1:1/", answer: "508 proxy_loop_detected ", way: "settings lane policy name addresses✗ pool?"},
	"not kept":            {url: "http://api.example.test:PORT/", settings: []string{"CARPOOL_NO_REUSE_HOSTS=api.example.test"}, way: toTheEnd, says: "CARPOOL_NO_REUSE_HOSTS=api.example.test"},
}

func TestWhatWouldBecomeOfAURL(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range urls {
		t.Run(name, func(t *testing.T) {
			port := func(s string) string { return strings.ReplaceAll(s, "PORT", portOf(l.upstream)) }
			code, r := l.report(c.settings, port(c.url))
			got := ""
			if r.Answer != nil {
				got = fmt.Sprintf("%d %s %s", r.Answer.Status, r.Answer.Error, r.Answer.Rule)
			}
			if got != c.answer || (code == 0) != (c.answer == "") || way(r) != c.way {
				t.Errorf("%d, %q, %s", code, got, way(r))
			}
			if begin := map[bool]string{true: "would work: ", false: "would fail: "}[r.Works]; !strings.HasPrefix(r.Conclusion, begin) {
				t.Errorf("it concludes %q", r.Conclusion)
			}
			all := ""
			for _, s := range r.Steps {
				all += strings.Join(s.Text, "\n") + "\n"
			}
			if !strings.Contains(all, port(c.says)) || !strings.Contains(r.Do, port(c.do)) || strings.Contains(all+r.URL, "secret") {
				t.Errorf("it does not say %q in\n%s\nor %q in %q", c.says, all, c.do, r.Do)
			}
		})
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// factsOf are the facts of a step.
func factsOf(t *testing.T, r check.Report, step string, into any) {
	t.Helper()
	for _, s := range r.Steps {
		if s.Step == step {
			if err := json.Unmarshal([]byte(jsonOf(t, s.Facts)), into); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no %s in %s", step, way(r))
}

func TestWhatIsWrongWithACertificateIsNamed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca, caFile := newAuthority(t, "the authority")
	other, _ := newAuthority(t, "another authority")
	for name, c := range map[string]struct {
		server      *httptest.Server
		error       string // of the answer
		cause, do   string
		way, speaks string
		http2       bool
	}{
		"it holds":          {server: secure(t, ca, nil, nil), way: withTLS, speaks: "http/1.1"},
		"it would do more":  {server: secure(t, ca, nil, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }), way: withTLS, speaks: "http/1.1", http2: true},
		"no ALPN":           {server: secure(t, ca, nil, func(c *tls.Config) { c.NextProtos = nil }), way: withTLS, speaks: "http/1.1"},
		"for a few days":    {server: secure(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(72 * time.Hour) }, nil), way: strings.Replace(withTLS, "tls", "tls!", 1), speaks: "http/1.1"},
		"expired":           {server: secure(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) }, nil), error: "tls_certificate_error", cause: "expired", do: "renewed"},
		"not yet":           {server: secure(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) }, nil), error: "tls_certificate_error", cause: "not_yet_valid", do: "clock"},
		"another host":      {server: secure(t, ca, func(c *x509.Certificate) { c.DNSNames = []string{"web.test"} }, nil), error: "tls_certificate_error", cause: "wrong_host", do: "renewed with this one"},
		"another authority": {server: secure(t, other, nil, nil), error: "tls_certificate_error", cause: "unknown_authority", do: "CARPOOL_CA_FILE"},
		"self-signed":       {server: secure(t, nil, nil, nil), error: "tls_certificate_error", cause: "unknown_authority", do: "its PEM file"},
		"no TLS":            {server: l.upstream, error: "tls_protocol_error"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := l.report([]string{"CARPOOL_CA_FILE=" + caFile}, "https://api.example.test:"+portOf(c.server)+"/")
			var s check.TLS
			factsOf(t, r, "tls", &s)
			if s.Cause != c.cause || s.Protocol != c.speaks || s.OffersHTTP2 != c.http2 || s.Verified != (c.error == "") || (c.cause != "") != (len(s.Chain) > 0 && c.error != "") {
				t.Errorf("%+v", s)
			}
			if c.error == "" {
				if !r.Works || way(r) != c.way || s.Chain[0].Issuer != "CN=the authority" || s.Root != "CN=the authority" || s.Version != "TLS 1.3" {
					t.Errorf("%s, %s, %+v", r.Conclusion, way(r), s)
				}
				return
			}
			if r.Works || r.Answer.Error != c.error || !strings.Contains(r.Do, c.do) || r.But == "" || strings.Contains(r.Conclusion, "carpool check") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestARequestShowsStatusAndFieldsAndWhatBecomesOfTheConnection(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca, caFile := newAuthority(t, "the authority")
	server := secure(t, ca, nil, nil)
	plain := "http://api.example.test:" + portOf(l.upstream)
	for name, c := range map[string]struct {
		url      string
		settings []string
		says     string
		want     check.Response
		fails    bool
	}{
		"kept":                 {url: plain + "/", says: "would work: the upstream answers 200 OK", want: check.Response{Status: 200, Body: 4, Whole: true, Kept: true, IdleHint: 75}},
		"https":                {url: "https://api.example.test:" + portOf(server) + "/", settings: []string{"CARPOOL_CA_FILE=" + caFile}, says: "200 OK", want: check.Response{Status: 200, Body: 4, Whole: true, Kept: true, IdleHint: 75}},
		"closed":               {url: plain + "/close", says: "200 OK", want: check.Response{Status: 200, Whole: true, Closed: "not_kept"}},
		"not kept by setting":  {url: plain + "/", settings: []string{"CARPOOL_NO_REUSE_HOSTS=.test"}, says: "its connections are not kept", want: check.Response{Status: 200, Body: 4, Whole: true, Closed: "not_trusted"}},
		"a failure of its own": {url: plain + "/fails", says: "would work: the upstream answers 503 Service Unavailable", want: check.Response{Status: 503, Whole: true, Kept: true}},
		"two gigabytes":        {url: plain + "/big", says: "200 OK", want: check.Response{Status: 200, Body: 1 << 20}},
		"without end":          {url: plain + "/events", says: "200 OK", want: check.Response{Status: 200, Body: 11}},
		"broken off":           {url: plain + "/broken", says: "would fail: the request was sent", want: check.Response{Status: 200, Body: 4}, fails: true},
		"a tunnel":             {url: "api.example.test:" + portOf(l.upstream), says: "would work: a tunnel", want: check.Response{Status: 200, Whole: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, r := l.report(c.settings, "-v", c.url)
			var got check.Response
			factsOf(t, r, "answer", &got)
			if c.want.Closed == "" && !got.Whole {
				got.Closed = "" // who goes first is not certain
			}
			want := c.want
			want.Header, want.FirstByte, want.Took, want.Error = got.Header, got.FirstByte, got.Took, got.Error
			if c.fails {
				want.Body = got.Body // as much as has come
			}
			if jsonOf(t, got) != jsonOf(t, want) || !strings.Contains(r.Conclusion, c.says) || (code != 0) != c.fails {
				t.Errorf("%d, %s\n%s, want\n%s", code, r.Conclusion, jsonOf(t, got), jsonOf(t, want))
			}
		})
	}
}

// What others have chosen is shown so that it does nothing to a terminal.
func TestHeaderFieldsAreShownAsTheyAreAndHarmless(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	_, stdout, _ := l.run(nil, "-v", "http://127.0.0.1:"+portOf(l.upstream)+"/escape")
	if !strings.Contains(stdout, "X-Odd: %E2%80%AEodd\n") || strings.Contains(stdout, "\u202e") {
		t.Errorf("%q", stdout)
	}
}

// An upstream that answers what is no HTTP makes carpool answer by itself.
func TestAnAnswerOfCarpoolsOwnIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	odd := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
		_ = c.Close()
	}))
	code, r := l.report(nil, "-v", "http://127.0.0.1:"+portOf(serve(t, odd))+"/")
	if code != 1 || r.Answer == nil || r.Answer.Status != 502 || r.Answer.Error != "http_protocol_error" || !strings.HasPrefix(r.Conclusion, "would fail: 502 http_protocol_error, ") {
		t.Errorf("%d, %+v", code, r)
	}
}

func TestExitCodesOfACheck(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	works, fails := "http://127.0.0.1:"+portOf(l.upstream)+"/", "http://nowhere.test./"
	for name, c := range map[string]struct {
		settings, args []string
		code           int
		stderr         string
	}{
		"works":                 {nil, []string{works}, 0, ""},
		"all work":              {nil, []string{works, works}, 0, ""},
		"one fails":             {nil, []string{fails, works}, 1, ""},
		"one fails, as JSON":    {nil, []string{"--json", works, fails}, 1, ""},
		"nothing":               {nil, nil, 2, "give a URL"},
		"an unknown option":     {nil, []string{"-x", works}, 2, "not defined: -x"},
		"no URL":                {nil, []string{"orders"}, 2, `"orders" is neither`},
		"another scheme":        {nil, []string{"ftp://orders/"}, 2, `"ftp://orders/" is neither`},
		"a path":                {nil, []string{"/path"}, 2, "is neither"},
		"a space":               {nil, []string{"http://a b/"}, 2, "a space or a control character"},
		"a line":                {nil, []string{"http://a/\r\nX: y"}, 2, "a space or a control character"},
		"-v for --seen":         {nil, []string{"--seen", "-v"}, 2, "-v is for URLs"},
		"a URL for --seen":      {nil, []string{"--seen", works}, 2, "is no option of --seen"},
		"a bad setting":         {[]string{"CARPOOL_DNS_TIMEOUT=10"}, []string{works}, 2, "CARPOOL_DNS_TIMEOUT"},
		"a file that is not":    {[]string{"CARPOOL_CA_FILE=/no/such/file"}, []string{works}, 2, "CARPOOL_CA_FILE"},
		"an unknown variable":   {[]string{"CARPOOL_DNS_TIMEOUTS=1s"}, []string{works}, 0, "did you mean CARPOOL_DNS_TIMEOUT?"},
		"one who asks for help": {nil, []string{"-h"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := l.run(c.settings, c.args...)
			if code != c.code || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" || (code == 2) != (stdout == "") {
				t.Errorf("%d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestACheckThatIsInterruptedEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, err strings.Builder
	if code := check.Run(ctx, []string{"http://127.0.0.1:1/"}, nil, &out, &err); code != 1 || !strings.Contains(err.String(), "interrupted") || out.Len() > 0 {
		t.Errorf("%d, %q, %q", code, &out, &err)
	}
}

// sidecar is a carpool that says this of every origin.
func sidecar(t *testing.T, s admin.OriginState) string {
	t.Helper()
	server := serve(t, httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		has := s
		has.Origin = r.URL.Query().Get("url")
		if r.URL.Path != "/origin" || r.Host != "localhost" {
			t.Errorf("asked for %s of %s", r.URL, r.Host)
		}
		_ = json.NewEncoder(w).Encode(has)
	})))
	return "CARPOOL_ADMIN_LISTEN=" + server.Listener.Addr().String()
}

func TestWhatTheCarpoolOfThePodHasIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range map[string]struct {
		has   admin.OriginState
		state check.State
		says  string
	}{
		"nothing":     {admin.OriginState{State: "ready"}, check.OK, "has had no request for orders:"},
		"connections": {admin.OriginState{State: "ready", Known: true, Keeps: true, Idle: 3, InUse: 1, Opened: 2, Reused: 40}, check.OK, "42 requests on 2 connections"},
		"a drain":     {admin.OriginState{State: "draining"}, check.Warning, "not ready: draining"},
		"old names":   {admin.OriginState{State: "ready", Known: true, Keeps: true, Stale: true, LookUp: "SERVFAIL"}, check.Warning, "the last addresses are used on: SERVFAIL"},
		"not kept":    {admin.OriginState{State: "ready", Known: true}, check.Warning, "are not kept"},
		"who waits":   {admin.OriginState{State: "ready", Known: true, Keeps: true, Waiting: 7}, check.Warning, "7 wait for one"},
		"a bench": {admin.OriginState{State: "ready", Known: true, Keeps: true, Addrs: []admin.AddrState{
			{Addr: netip.MustParseAddr("10.0.0.7"), Benched: "it refuses", BenchedFor: 2}}}, check.Warning, "10.0.0.7 is left alone for 2.0 s: it refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			code, r := l.report([]string{sidecar(t, c.has)}, "http://orders:"+portOf(l.upstream)+"/")
			last := r.Steps[len(r.Steps)-1]
			if code != 0 || last.Step != "pool" || last.State != c.state || !strings.Contains(strings.Join(last.Text, "\n"), c.says) {
				t.Errorf("%d, %+v", code, last)
			}
		})
	}
	older := serve(t, httptest.NewUnstartedServer(http.NotFoundHandler()))
	_, r := l.report([]string{"CARPOOL_ADMIN_LISTEN=" + older.Listener.Addr().String()}, "http://orders:"+portOf(l.upstream)+"/")
	if last := r.Steps[len(r.Steps)-1]; last.State != check.Unknown || !strings.Contains(last.Text[0], "is it a carpool, of the same version?") {
		t.Errorf("an older one: %+v", last)
	}
}

var update = flag.Bool("update", false, "write testdata")

func TestWhatAPersonIsShown(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca, caFile := newAuthority(t, "the authority")
	expired := secure(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24*time.Hour - time.Minute) }, nil)
	good := secure(t, ca, nil, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
	plain := "http://orders:" + portOf(l.upstream) + "/"
	has := admin.OriginState{
		State: "ready", Known: true, Keeps: true, Idle: 3, InUse: 1, Opened: 14, Reused: 798, IdleLimit: 5, IdleHint: 75,
		Next: "127.0.0.1", NextIdle: true, Why: "the least loaded with an idle connection, of 1 in use, 1 in all",
	}
	for name, c := range map[string]struct {
		settings []string
		args     []string
	}{
		"works":   {[]string{sidecar(t, has)}, []string{plain}},
		"request": {[]string{"CARPOOL_MAX_CONN_AGE=5m"}, []string{"-v", plain}},
		"https":   {[]string{"CARPOOL_CA_FILE=" + caFile}, []string{"https://api.example.test:" + portOf(good) + "/"}},
		"expired": {[]string{"CARPOOL_CA_FILE=" + caFile}, []string{"https://api.example.test:" + portOf(expired) + "/"}},
		"no-name": {nil, []string{"http://nowhere/"}},
		"denied":  {[]string{"CARPOOL_ALLOW_HOSTS=orders,.shop.test"}, []string{"http://api.example.test/"}},
		"two":     {nil, []string{"http://dead.test:" + portOf(l.upstream) + "/", "api.example.test:" + portOf(good)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, stdout, stderr := l.run(c.settings, c.args...)
			if stderr != "" {
				t.Errorf("stderr: %q", stderr)
			}
			got := steady(stdout, map[string]string{
				portOf(l.upstream): "8080", portOf(good): "8443", portOf(expired): "9443", l.resolv: "/lab/resolv.conf", caFile: "/lab/ca.pem",
				l.names.Addr().String(): "10.96.0.10:53",
			})
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("it shows\n%s\nand not what %s has (go test . -update): %v", got, file, err)
			}
		})
	}
}

var (
	times   = regexp.MustCompile(`[0-9]+(\.[0-9]+)? ms`)
	lookUps = regexp.MustCompile(`, (A|AAAA): (NXDOMAIN|not waited for)`)
	denials = regexp.MustCompile(`(, A: (NXDOMAIN \(N ms\)|not waited for))+`)
	sixes   = regexp.MustCompile(`, AAAA: [^,\n]*`)
	held    = regexp.MustCompile(`remembered for [0-9]+ s`)
	dates   = regexp.MustCompile(`20[0-9]{2}-[0-9]{2}-[0-9]{2}(T[0-9:]+Z)?`)
	ports   = regexp.MustCompile(`CARPOOL_ADMIN_LISTEN=127\.0\.0\.1:[0-9]+`)
)

// steady takes out what differs from one run to the next.
func steady(s string, replace map[string]string) string {
	for from, to := range replace {
		s = strings.ReplaceAll(s, from, to)
	}
	s = times.ReplaceAllString(s, "N ms")
	s = lookUps.ReplaceAllString(s, ", A: $2") // which family's answer comes first, and whether a slow one is asked again
	s = denials.ReplaceAllString(s, ", A: NXDOMAIN (N ms)")
	s = sixes.ReplaceAllString(s, "")
	s = held.ReplaceAllString(s, "remembered for N s")
	s = ports.ReplaceAllString(s, "CARPOOL_ADMIN_LISTEN=127.0.0.1:2")
	return dates.ReplaceAllString(s, "DATE")
}

// A line is broken at spaces, and what belongs to a step stays under it.
func TestLongLinesAreBroken(t *testing.T) {
	l := newLab(t)
	defer check.SetWidth(check.SetWidth(60))
	_, stdout, _ := l.run(nil, "http://nowhere/")
	for line := range strings.Lines(stdout) {
		if len([]rune(strings.TrimRight(line, "\n"))) > 60 && strings.Contains(strings.TrimSpace(line), " ") && !strings.Contains(line, "resolv.conf") {
			t.Errorf("%q", line)
		}
	}
}

// Fields of --json that programs rely on are documented, each.
func TestEachFieldOfTheReportIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/CHECK.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	for _, v := range []any{
		check.Reports{}, check.Settings{}, check.Lane{}, check.Policy{}, check.Hop{}, check.Name{}, check.Address{}, check.Endpoint{},
		check.Connect{}, check.TLS{}, check.Response{}, check.Pool{},
	} {
		fieldsOf(reflect.TypeOf(v), fields)
	}
	for name := range fields {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/CHECK.md does not have `%s`", name)
		}
	}
	if len(fields) < 70 {
		t.Errorf("only %d fields are looked at", len(fields))
	}
}

// fieldsOf gathers the names that the fields of a type have in JSON.
func fieldsOf(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer, reflect.Map:
		fieldsOf(t.Elem(), into)
	case reflect.Struct:
		for f := range t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				into[name] = true
				fieldsOf(f.Type, into)
			}
		}
	}
}

// A step is what a Step says it is, whatever it has found: a program need not look for nil.
func TestAReportHasNoListThatIsNull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	_, stdout, _ := l.run(nil, "--json", "-v", "http://orders:"+portOf(l.upstream)+"/", "http://nowhere/", "http://127.1/", "http://metadata.test/", "orders:"+portOf(l.upstream))
	if strings.Contains(stdout, "null") {
		t.Error(stdout)
	}
}
