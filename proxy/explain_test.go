package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// What Aim says of a target is what a request with that target is answered.
func TestAimSaysWhatRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	deny, _ := policy.ParseHostPattern("denied.test")
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: policy.Rules{DenyHosts: policy.NewHostSet([]policy.HostPattern{deny}), ConnectPorts: []uint16{443, 8443}}})
		s.proxy.ConnectTunnelPorts = []uint16{8443}
	})
	for name, c := range map[string]struct {
		target  string
		connect bool
		origin  string // or else
		status  int
		rule    string
		tunnel  bool
	}{
		"absolute-form":      {target: "http://user:secret@A.test/path#part", origin: "http://a.test:80"},
		"https":              {target: "https://a.test:8443/", origin: "https://a.test:8443"},
		"CONNECT":            {target: "a.test:443", connect: true, origin: "http://a.test:443"},
		"a tunnel":           {target: "a.test:8443", connect: true, origin: "http://a.test:8443", tunnel: true},
		"denied":             {target: "http://denied.test/", status: 403, rule: "deny_hosts"},
		"CONNECT denied":     {target: "denied.test:443", connect: true, status: 403, rule: "deny_hosts"},
		"CONNECT elsewhere":  {target: "a.test:80", connect: true, status: 403, rule: "connect_ports"},
		"S6 number":          {target: "http://127.1/", status: 400},
		"no port":            {target: "a.test", connect: true, status: 400},
		"port too large":     {target: "http://a.test:99999/", status: 400},
		"not absolute":       {target: "/path", status: 400},
		"something else yet": {target: "ftp://a.test/", status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			aim := r.proxy.Aim(c.target, c.connect)
			if c.status == 0 {
				if aim.Refused != nil || aim.Origin.Key().String() != c.origin || aim.Tunnel != c.tunnel || aim.Let != nil {
					t.Errorf("%+v", aim)
				}
				return
			}
			if aim.Origin != nil || aim.Refused == nil || aim.Refused.Status != c.status || aim.Refused.Rule != c.rule {
				t.Fatalf("%+v, %+v", aim, aim.Refused)
			}
			method := "GET"
			if c.connect {
				method = "CONNECT"
			}
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: a.test\r\n\r\n", method, c.target)
			answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != aim.Refused.Status || string(body) != "carpool: "+aim.Refused.Text+"\n" ||
				answer.Header.Get("Proxy-Status") != "carpool; error="+aim.Refused.Error {
				t.Errorf("the request is answered %d, %q, %v", answer.StatusCode, body, answer.Header)
			}
		})
	}
}

func TestAimTellsOfWhatIsLetThrough(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) {
		s.ruled(proxy.EgressConfig{Report: true, Rules: policy.Rules{ConnectPorts: []uint16{443}}})
	})
	if aim := r.proxy.Aim("a.test:80", true); aim.Refused != nil || aim.Let == nil || aim.Let.Reason != policy.ReasonConnectPorts {
		t.Errorf("%+v", aim)
	}
}

func TestTheAnswerToAFailedDialIsTold(t *testing.T) {
	t.Parallel()
	denied := &policy.Denied{Reason: policy.ReasonDenyCIDRs, Message: "this is why"}
	for want, err := range map[string]error{
		"502 connection_refused ":                  &pool.DialError{Stage: pool.StageConnect, Err: syscall.ECONNREFUSED},
		"502 dns_error ":                           &pool.DialError{Stage: pool.StageDNS, Err: &net.DNSError{IsNotFound: true}},
		"403 destination_ip_prohibited deny_cidrs": &pool.DialError{Stage: pool.StagePolicy, Err: denied},
		"502 tls_protocol_error ":                  &pool.DialError{Stage: pool.StageTLS, Err: errors.New("odd")},
		"503 connection_limit_reached ":            pool.ErrBudget,
	} {
		a := proxy.DialAnswer(err)
		if got := fmt.Sprintf("%d %s %s", a.Status, a.Error, a.Rule); got != want || a.Text == "" || strings.Contains(a.Text, "\n") {
			t.Errorf("%v: %q, %q", err, got, a.Text)
		}
	}
}
