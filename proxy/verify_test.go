package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/proxy"
)

// question asks whether an origin can be verified.
func question(host string) string {
	return "OPTIONS https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\nMax-Forwards: 0\r\nCarpool-Verify: ?1\r\n\r\n"
}

// verified reads the answer to a question.
func (w *wire) verified() (is, proxyStatus string) {
	w.t.Helper()
	status, head, body := w.reply()
	if status != 200 || body != "" {
		w.t.Errorf("the question is answered %q %q", head, body)
	}
	return field(head, "Carpool-Verified"), field(head, "Proxy-Status")
}

func TestC5AQuestionLeavesAConnectionForTheRequest(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r, o := start(t, ca.trusted), newOrigin(t)
	client, host := r.client(), "secure.test"+o.port()
	client.send(question(host))
	up := o.secure(ca.sign(&x509.Certificate{DNSNames: []string{"secure.test"}}))
	if err := up.Conn.(*tls.Conn).Handshake(); err != nil {
		t.Error(err)
	}
	if is, why := client.verified(); is != "?1" || why != "" {
		t.Errorf("verified %s, %q", is, why)
	}
	client.send(question(host)) // there is one now
	if is, _ := client.verified(); is != "?1" {
		t.Errorf("verified %s", is)
	}
	client.send("GET https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	if head := up.head(); !strings.HasPrefix(head, "GET / ") {
		t.Errorf("the upstream got %q", head)
	}
	up.send(ok)
	client.want(ok)
	if n := o.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if s := r.proxy.Stats(); s.Refused != 0 {
		t.Errorf("%d refused", s.Refused)
	}
}

// What a certificate fails by is told, to those who ask and to those who do not.
func TestC5WhichCheckFailed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	names, hour := []string{"secure.test"}, time.Hour
	valid := func(from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{DNSNames: names, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	}
	for details, cert := range map[string]tls.Certificate{
		"wrong_name":        ca.sign(&x509.Certificate{DNSNames: []string{"other.test"}}),
		"expired":           ca.sign(valid(-2*hour, -hour)),
		"not_yet_valid":     ca.sign(valid(hour, 2*hour)),
		"self_signed":       (&authority{t: t}).sign(valid(-hour, hour)),
		"unknown_authority": newAuthority(t).sign(valid(-hour, hour)),
	} {
		t.Run("C5 "+details, func(t *testing.T) {
			t.Parallel()
			r, o := start(t, ca.trusted), newOrigin(t)
			client, host := r.client(), "secure.test"+o.port()
			want := `carpool; error=tls_certificate_error; details="` + details + `"`
			client.send(question(host))
			if s, _ := o.secure(cert).rest(); s != "" {
				t.Errorf("the upstream got %q", s)
			}
			if is, why := client.verified(); is != "?0" || why != want {
				t.Errorf("verified %s, %s, want %s", is, why, want)
			}
			for kind, n := range r.proxy.Stats().Errors {
				if n != 0 {
					t.Errorf("a question counts as %d %s", n, kind)
				}
			}
			client.send("GET https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			if s, _ := o.secure(cert).rest(); s != "" {
				t.Errorf("the upstream got %q", s)
			}
			if head, _ := client.problem(502); field(head, "Proxy-Status") != want {
				t.Errorf("%q, want %s", head, want)
			}
		})
	}
}

// The rules are those for requests: on hosts before anything is looked up, on
// addresses as they are dialled.
func TestS1AQuestionIsUnderTheRules(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	deny := func(s *settings) {
		s.ruled(proxy.EgressConfig{Rules: rules("", "denied.test", "", "127.0.0.0/8")})
	}
	r, o := start(t, ca.trusted, deny), newOrigin(t)
	client := r.client()
	client.send(question("secure.test" + o.port()))
	if is, why := client.verified(); is != "?0" || why != "carpool; error=destination_ip_prohibited" {
		t.Errorf("verified %s, %s", is, why)
	}
	client.send(question("denied.test" + o.port()))
	client.refused(403)
	if n := o.accepted.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// An answer of carpool's own that is a problem can be told from one that an upstream
// passes on, whatever that says.
func TestNobodyElseSpeaksAsCarpool(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 502 Bad Gateway\r\nConnection: carpool\r\nProxy-Status: carpool; error=connection_refused\r\nContent-Length: 0\r\n\r\n")
	status, head, _ := client.reply()
	if status != 502 || field(head, "Proxy-Status") == "" || strings.Contains(strings.ToLower(head), "connection: carpool") {
		t.Errorf("the upstream's answer comes as %q", head)
	}
	client.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
	if head, _ := client.problem(502); !strings.Contains(head, "\r\nConnection: carpool\r\n") {
		t.Errorf("carpool's own answer is %q", head)
	}
}
