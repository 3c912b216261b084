package check_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/check"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
)

func TestMain(m *testing.M) {
	check.SetWidth(10_000) // what is measured must not decide where lines break
	os.Exit(testkit.Run(m))
}

// lab is a name server and an upstream.
type lab struct {
	t        *testing.T
	names    *nameserver.Server
	upstream *httptest.Server
	resolv   string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, names: nameserver.New(t)}
	l.names.Set("orders.shop.test.", 30*time.Second, "127.0.0.1")
	l.names.Set("api.example.test.", time.Minute, "127.0.0.1")
	l.names.Set("dead.test.", time.Minute, "127.0.0.9")
	l.names.Set("half.test.", time.Minute, "127.0.0.9", "127.0.0.1")
	l.names.Set("metadata.test.", time.Minute, "169.254.169.254")
	l.names.Set("partly.test.", time.Minute, "169.254.1.1", "127.0.0.1")
	l.names.Do(func(q nameserver.Query, r *nameserver.Reply) { r.Drop = q.Name == "silent.test." })
	l.resolv = l.names.ResolvConf("search shop.test svc.test", "options attempts:1")
	l.upstream = serve(t, httptest.NewUnstartedServer(http.HandlerFunc(answer)))
	return l
}

// answer is what upstreams of the lab answer.
func answer(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Date", "Thu, 01 Jan 2026 00:00:00 GMT")
	switch r.URL.Path {
	case "/big":
		b := make([]byte, 1<<20)
		for range 2000 {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	case "/events":
		_, _ = io.WriteString(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case "/close":
		h.Set("Connection", "close")
	case "/broken":
		h.Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	case "/fails":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/escape":
		h.Set("X-Odd", "\u202eodd")
	default:
		h.Set("Keep-Alive", "timeout=75")
		_, _ = io.WriteString(w, "here")
	}
}

func serve(t *testing.T, s *httptest.Server) *httptest.Server {
	t.Helper()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if s.TLS == nil {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s
}

func portOf(s *httptest.Server) string {
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

// run carries the command out. No carpool is at work, unless settings, of which the first counts, say where.
func (l *lab) run(settings []string, args ...string) (code int, stdout, stderr string) {
	l.t.Helper()
	environ := append(settings[:len(settings):len(settings)],
		"CARPOOL_RESOLV_CONF="+l.resolv, "CARPOOL_LISTEN=127.0.0.1:1", "CARPOOL_ADMIN_LISTEN=127.0.0.1:2", "CARPOOL_DNS_TIMEOUT=2s")
	var out, err bytes.Buffer
	code = check.Run(context.Background(), args, environ, &out, &err)
	return code, out.String(), err.String()
}

// report checks one URL.
func (l *lab) report(settings []string, args ...string) (int, check.Report) {
	l.t.Helper()
	code, stdout, stderr := l.run(settings, append([]string{"--json"}, args...)...)
	var all check.Reports
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all.Checks) != 1 || stderr != "" {
		l.t.Fatalf("%v: %d, %q, %q, %v", args, code, stdout, stderr, err)
	}
	if all.Works != (code == 0) || all.Checks[0].Works != all.Works {
		l.t.Errorf("%v: exit code %d, %+v", args, code, all)
	}
	return code, all.Checks[0]
}

// way is the steps of a report and their states: ok is nothing, "!" a warning, "?" unknown, "✗" failed.
func way(r check.Report) string {
	var list []string
	for _, s := range r.Steps {
		list = append(list, s.Step+map[check.State]string{check.Warning: "!", check.Unknown: "?", check.Failed: "✗"}[s.State])
	}
	return strings.Join(list, " ")
}

// newAuthority returns an authority of that name and the file of its certificate.
func newAuthority(t *testing.T, name string) (ca *carpooltest.Authority, file string) {
	t.Helper()
	ca = carpooltest.NewAuthority(t, func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(1000*24*time.Hour)
	})
	return ca, ca.File()
}

// secure returns an upstream of TLS on a port of its own with a certificate for api.example.test, changed first. It is
// self-signed if ca is nil.
func secure(t *testing.T, ca *carpooltest.Authority, change func(*x509.Certificate), server func(*tls.Config)) *httptest.Server {
	t.Helper()
	upstream := func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.IPAddresses = "the upstream", []string{"api.example.test"}, nil
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(100*24*time.Hour+time.Hour)
		if change != nil {
			change(c)
		}
	}
	var cert tls.Certificate
	if ca != nil {
		cert = ca.Issue(upstream)
	} else {
		cert = carpooltest.SelfSigned(t, upstream)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	if server != nil {
		server(s.TLS)
	}
	return serve(t, s)
}

// free returns an address of a port at which nobody listens.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}
