package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// The rows F, R and P hold whatever the memory and whatever the upstream's
// wire. A dialect is a way to run them again, in a process of its own, for
// rationing is for the whole process.
var dialect = flag.String("dialect", "", "how the tests run: rationed, tls, or both with a comma")

// spoken reports whether the tests run in this dialect.
func spoken(name string) bool { return slices.Contains(strings.Split(*dialect, ","), name) }

// speak sets the process up for the dialect.
func speak() {
	flag.Parse()
	if spoken("rationed") {
		sock.Ration(func() bool { return false })
	}
}

func TestRowsInOtherDialects(t *testing.T) {
	if *dialect != "" {
		t.Skip("this is one")
	}
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	names := rows(t)
	for _, d := range []string{"rationed", "tls", "rationed,tls"} {
		t.Run("X25 "+d, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^("+strings.Join(names, "|")+")$", "-dialect="+d)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// rows names the tests of the rows F, R and P, which are those in the files
// called so and the retry rule's.
func rows(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("rows_*_test.go")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %q, %v", files, err)
	}
	for _, f := range append(files, "retry_test.go") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// scheme is that of the upstreams.
func scheme() string {
	if spoken("tls") {
		return "https"
	}
	return "http"
}

// ownUpstream is the beginning of a target that leads to one of the tests' own
// upstreams, with user information or without.
var ownUpstream = regexp.MustCompile(`http://([^/?#\s]*@)?(127\.0\.0\.1|retry\.test):`)

// translated is what a client sends, for upstreams of this dialect.
func translated(s string) string {
	if spoken("tls") {
		return ownUpstream.ReplaceAllString(s, "https://${1}${2}:")
	}
	return s
}

// identity is a certificate for all upstreams and who vouches for it.
var identity = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream"}, IPAddresses: []net.IP{{127, 0, 0, 1}}, DNSNames: []string{"retry.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
})

// trusting lets a proxy speak to the upstreams of this dialect.
func trusting(s *settings) {
	if spoken("tls") {
		_, s.pool.RootCAs = identity()
	}
}

// answering is the upstream's end of a connection in this dialect, nil if
// the proxy has thought better of it.
func answering(c net.Conn) net.Conn {
	if !spoken("tls") {
		return c
	}
	cert, _ := identity()
	t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
	_ = c.SetDeadline(time.Now().Add(patience))
	if t.Handshake() != nil {
		_ = c.Close()
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	return t
}

// tcp is the connection under c.
func tcp(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*net.TCPConn)
}
