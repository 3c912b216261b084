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
	"github.com/carpoolproxy/carpool/pool"
)

// The rows F, R and P hold whatever the memory and whatever the upstream's
// wire. A dialect is a way to run them again, in a process of its own, for
// rationing is for the whole process.
var dialect = flag.String("dialect", "", "how the tests run: rationed, tls, connect, or several with commas")

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
	all := rows(t)
	for name, d := range map[string]string{
		"X25 rationed": "rationed", "X25 tls": "tls", "X25 rationed,tls": "rationed,tls",
		"C8 connect": "connect", "C8 rationed,connect": "rationed,connect",
		"X25 h2": "h2",
	} {
		t.Run(name, func(t *testing.T) {
			names := all
			if strings.Contains(d, "h2") {
				names = rowsInHTTP2
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^("+strings.Join(names, "|")+")$", "-dialect="+d)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// rowsInHTTP2 are the tests of rows that say nothing of how HTTP/1.1 is written, or
// ends with its connection. What is left of the others has tests in http2_test.go.
var rowsInHTTP2 = []string{
	"TestBodiesOnMethodsThatHaveNone", "TestF19NothingIsAnsweredBehindTheLastAnswer",
	"TestF19PipelinedRequestsAreAnsweredInOrder", "TestF22EmptyLinesBehindARequest", "TestHEADIsRefusedWithoutABody",
	"TestIdempotencyKeyAllowsTheRetry", "TestMalformedChunkAfterAGoodOne", "TestMalformedChunkAfterTheAnswerBegan",
	"TestMalformedRequestsAreRefused", "TestOddRequestsAreFramedRightly",
	"TestP19FreshConnectionDies", "TestP1AnswersAreNeverMixedUp",
	"TestP5ResetContentWithABodyIsTheLastAnswer", "TestP6cOddConnectionOfARequest", "TestR14CompressedBodiesAreNotTouched",
	"TestR15ALongTrailerInPieces", "TestR16InformationalAnswersAreNotForHTTP10", "TestR20ClientsOfHTTP10",
	"TestR23ErrorWhileTheBodyIsUnread", "TestR23LastAnswerOfALongPipeline", "TestR24AProxyIsNotAWebServer",
	"TestR4TRACEShowsNoUserInformation", "TestR6TargetsStayByteIdentical", "TestR8AnswersWhereMaxForwardsEnds",
	"TestRequestsArriveInPieces", "TestRetryHappensOnce", "TestRetryInTheMiddleOfABody", "TestRetryOnAFreshConnection",
	"TestUserInformationAndFragmentsAreCutOff",
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

// hole is how a client sends its requests in the dialect "connect": inside a tunnel
// to the upstream of the first of them. In any other it is nothing.
type hole struct {
	used  bool   // something was sent
	to    string // the authority that CONNECT named; "" for a client without a tunnel
	opens string // the answer that is to come,
	come  string // and what has come of it
}

// wanted is a request that makes a client ask for a tunnel.
var wanted = regexp.MustCompile(`^([A-Z]+) http://((?:127\.0\.0\.1|retry\.test):\d+)/`)

// sound is the first line of a request in which HTTP/1 is recognised. Before others
// that is said by a request which carpool answers itself: with this.
var sound = regexp.MustCompile(`^[A-Z]+ \S+ HTTP/1\.\d\r\n`)

const firstAnswer = "HTTP/1.1 200 OK\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT\r\nContent-Length: 0\r\n\r\n"

// untouched checks that no connection has brought a byte to the upstream. CONNECTs
// have opened them.
func (o *origin) untouched() {
	o.t.Helper()
	for range len(o.conns) {
		c := <-o.conns
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		var b [64]byte
		if n, _ := c.Read(b[:]); n > 0 {
			o.t.Errorf("the upstream got %q", b[:n])
		}
		_ = c.SetReadDeadline(time.Time{})
		o.conns <- c
	}
}

// notInside skips a test that makes no sense where all requests of a client come in
// one tunnel.
func notInside(t *testing.T, why string) {
	if spoken("connect") {
		t.Skip(why)
	}
}

// sends is what is sent instead of s.
func (h *hole) sends(s string) string {
	if !spoken("connect") {
		return s
	}
	before := ""
	if m := wanted.FindStringSubmatch(s); m != nil && !h.used {
		h.to, h.opens = m[2], established
		before = connectTo(h.to)
		if !sound.MatchString(s) {
			h.opens += firstAnswer
			before += "OPTIONS * HTTP/1.1\r\nHost: " + h.to + "\r\nMax-Forwards: 0\r\n\r\n"
		}
	}
	h.used = true
	if h.to == "" {
		return s
	}
	return before + regexp.MustCompile(`(?m)^([A-Z]+) http://`+regexp.QuoteMeta(h.to)+`/`).ReplaceAllString(s, "$1 /")
}

// gets is what the client sees of b, which has just come: not the answer to the
// CONNECT, but all of a refusal.
func (h *hole) gets(b []byte) []byte {
	if h.opens == "" {
		return b
	}
	h.come += string(b)
	if len(h.come) < len(h.opens) && strings.HasPrefix(h.opens, h.come) {
		return nil
	}
	seen := strings.TrimPrefix(h.come, h.opens)
	h.opens, h.come = "", ""
	return []byte(seen)
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
	if spoken("h2") {
		s.pool.H2C = func(pool.Key) bool { return true }
	}
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
