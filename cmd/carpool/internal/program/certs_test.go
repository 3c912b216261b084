package program_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/program"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// named changes a certificate's common name.
func named(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

// mutualUpstream answers with the name on the certificate that it was shown, and
// takes none that a has not signed.
func mutualUpstream(t testing.TB, a *carpooltest.Authority, version uint16) *secureUpstream {
	t.Helper()
	return newSecureUpstream(t, a, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs, c.MinVersion, c.MaxVersion = tls.RequireAndVerifyClientCert, a.Roots(), version, version
	})
}

// secret is a folder with a certificate, as a Secret's is.
type secret struct {
	t   testing.TB
	dir string
}

func (s secret) put(a *carpooltest.Authority, c tls.Certificate) {
	s.t.Helper()
	cert, key := carpooltest.PEM(s.t, c)
	carpooltest.Project(s.t, s.dir, map[string][]byte{"ca.crt": a.PEM(), "tls.crt": cert, "tls.key": key})
}

// settings are those that name its files.
func (s secret) settings(hosts string) []string {
	return []string{
		"CARPOOL_CA_FILE=" + filepath.Join(s.dir, "ca.crt"), "CARPOOL_CLIENT_CERT_HOSTS=" + hosts,
		"CARPOOL_CLIENT_CERT_FILE=" + filepath.Join(s.dir, "tls.crt"), "CARPOOL_CLIENT_KEY_FILE=" + filepath.Join(s.dir, "tls.key"),
	}
}

// The certificate is shown in every way that leads to TLS, and nowhere else.
func TestAClientCertificateIsShownInEveryWay(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			a := carpooltest.NewAuthority(t)
			s := secret{t, t.TempDir()}
			s.put(a, a.Issue(named("me")))
			up, other := mutualUpstream(t, a, version), mutualUpstream(t, a, version)
			local, wrong := freePort(t), freePort(t)
			host := up.Listener.Addr().String()
			c := carpooltest.Run(t, append(s.settings(host), "CARPOOL_TLS_ORIGINATE="+host,
				"CARPOOL_LOCAL_PORTS="+local+"="+up.URL+","+wrong+"="+other.URL)...)
			for _, url := range []string{up.URL + "/", "http://" + host + "/"} {
				r, err := carpooltest.Once(c.Proxy, "GET", url)
				carpooltest.Want(t, 200, r, err)
				if r.Body != "me" {
					t.Errorf("%s: shown %q", url, r.Body)
				}
			}
			r, err := ask(t, "127.0.0.1:"+local, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			carpooltest.Want(t, 200, r, err)
			// The others say what is wrong.
			r, err = ask(t, "127.0.0.1:"+wrong, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			carpooltest.Want(t, 502, r, err)
			if !strings.Contains(r.Header.Get("Proxy-Status"), "tls_alert_received") || !strings.Contains(r.Body, "CARPOOL_CLIENT_CERT_HOSTS") {
				t.Errorf("%v %s", r.Header, r.Body)
			}
		})
	}
}

func TestP20CertificatesThatAreRenewedUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	old, next := carpooltest.NewAuthority(t), carpooltest.NewAuthority(t)
	s := secret{t, t.TempDir()}
	s.put(old, old.Issue(named("0")))
	up := newSecureUpstream(t, old, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	host := up.Listener.Addr().String()
	c := carpooltest.Run(t, append(s.settings(host), "CARPOOL_MAX_CONN_AGE=0")...)
	var stop atomic.Bool
	var load sync.WaitGroup
	var seen sync.Map
	for range 8 {
		load.Go(func() {
			cl, err := carpooltest.Dial(c.Proxy)
			if err != nil {
				t.Error(err)
				return
			}
			defer cl.Close()
			for !stop.Load() {
				r, err := cl.Ask("POST", up.URL+"/", "Content-Length: 0")
				if err != nil || r.StatusCode != 200 {
					t.Errorf("%v, %v", r, err)
					return
				}
				seen.Store(r.Body, true)
			}
		})
	}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprint(i)
		s.put(old, old.Issue(named(name)))
		testkit.Eventually(t, "the new certificate is shown", func() bool { _, ok := seen.Load(name); return ok })
	}
	stop.Store(true)
	load.Wait()
	r, err := carpooltest.Once(c.Proxy, "GET", up.URL+"/")
	carpooltest.Want(t, 200, r, err)
	now := c.Scrape()
	if n := now.Sum("carpool_connections_closed_total", `reason="tls_changed"`); n < 3 {
		t.Errorf("%v connections were closed for it", n)
	}
	if n := now.Sum("carpool_tls_files_changes_total", `result="renewed"`); n != 3 {
		t.Errorf("%v changes", n)
	}
	// An authority that is taken away is no longer trusted.
	s.put(next, next.Issue(named("4")))
	testkit.Eventually(t, "the old authority is not trusted any more", func() bool {
		r, err := carpooltest.Once(c.Proxy, "GET", up.URL+"/")
		return err == nil && r.StatusCode == 502 && strings.Contains(r.Header.Get("Proxy-Status"), "tls_certificate_error")
	})
}

func TestBadCertificateFilesAreNamedAtTheStart(t *testing.T) {
	t.Parallel()
	got := command(t, append([]string{"GOMAXPROCS=as it is", "CARPOOL_CLIENT_CERT_FILE=/not/there", "CARPOOL_CA_FILE=/nor/there"}, carpooltest.Ports...))
	if got.Code != program.ExitUsage || !strings.Contains(got.Stderr, "CARPOOL_CLIENT_CERT_FILE") || !strings.Contains(got.Stderr, "CARPOOL_CA_FILE") {
		t.Errorf("%+v", got)
	}
}

// What is to be warm is what requests use.
func TestWarmConnectionsAreInTLSWhereRequestsAre(t *testing.T) {
	t.Parallel()
	a := carpooltest.NewAuthority(t)
	up := newSecureUpstream(t, a, func(http.ResponseWriter, *http.Request) {})
	host := up.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(host)
	c := carpooltest.Run(t, "CARPOOL_CA_FILE="+a.File(), "CARPOOL_TLS_ORIGINATE=127.0.0.1:"+port, "CARPOOL_WARM="+host+"=2", "CARPOOL_MAX_CONN_AGE=0")
	if n := c.Metric("carpool_warm_connections_open", `origin="`+up.URL+`"`); n != 2 {
		t.Errorf("%v are open", n)
	}
	r, err := carpooltest.Once(c.Proxy, "GET", "http://"+host+"/")
	carpooltest.Want(t, 200, r, err)
	if n := up.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}
