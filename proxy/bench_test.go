package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// What a request costs. Client and upstream are in the same process and do next
// to nothing; above all they do not allocate, so the allocations are carpool's.

// load is one kind of exchange, done over and over.
type load struct {
	request  string // with %s for the upstream's host:port
	body     int    // bytes of the request's body
	answer   string
	each     bool    // on a connection of its own
	inside   bool    // in a tunnel
	ruled    bool    // by a proxy that has rules
	hop      bool    // by a proxy that has a next hop, which is the upstream
	atMost   float64 // allocations
	transfer int64   // bytes of body, either way
}

var loads = map[string]load{
	"KeepAlive":      {request: "GET http://%s/some/path HTTP/1.1\r\nHost: %[1]s\r\nAccept: */*\r\n\r\n", answer: small},
	"InsideConnect":  {request: "GET /some/path HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n\r\n", answer: small, inside: true},
	"ConnectionEach": {request: "GET http://%s/some/path HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", answer: small, each: true, atMost: 2},
	"Rules":          {request: "GET http://%s/some/path HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", answer: small, each: true, ruled: true, atMost: 2},
	"Relayed":        {request: "GET http://far.test/some/path HTTP/1.1\r\nHost: far.test\r\nAccept: */*\r\nX: %s\r\n\r\n", answer: small, hop: true},
	"Post10KB": {
		request: "POST http://%s/some/path HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 10240\r\n\r\n" + strings.Repeat("x", 10<<10),
		body:    10 << 10, transfer: 10 << 10, answer: small,
	},
	"Answer64KB": {
		request: "GET http://%s/some/path HTTP/1.1\r\nHost: %[1]s\r\n\r\n", transfer: 64 << 10,
		answer: "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("y", 64<<10),
	},
}

const small = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"orders\":[1,2]}\n"

func BenchmarkKeepAlive(b *testing.B)      { loads["KeepAlive"].benchmark(b) }
func BenchmarkInsideConnect(b *testing.B)  { loads["InsideConnect"].benchmark(b) }
func BenchmarkConnectionEach(b *testing.B) { loads["ConnectionEach"].benchmark(b) }
func BenchmarkPost10KB(b *testing.B)       { loads["Post10KB"].benchmark(b) }
func BenchmarkAnswer64KB(b *testing.B)     { loads["Answer64KB"].benchmark(b) }

func (l load) benchmark(b *testing.B) {
	do := l.prepare(b)
	b.SetBytes(l.transfer)
	b.ReportAllocs()
	for b.Loop() {
		if err := do(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRequestsDoNotAllocate counts over thousands of requests. The slack is for
// what comes once in a while: the janitor's list, a buffer that the garbage
// collector took from the pool.
func TestRequestsDoNotAllocate(t *testing.T) {
	if underRaceDetector() {
		t.Skip("under the race detector sync.Pool forgets things on purpose")
	}
	const requests, slack = 3000, 0.05
	for name, l := range loads {
		t.Run(name, func(t *testing.T) {
			do := l.prepare(t)
			each := func(n int) float64 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range n {
					if err := do(); err != nil {
						t.Fatal(err)
					}
				}
				runtime.ReadMemStats(&after)
				return float64(after.Mallocs-before.Mallocs) / float64(n)
			}
			each(requests / 10) // to fill the pools
			got := each(requests)
			t.Logf("%.3f allocations a request", got)
			if got > l.atMost+slack {
				t.Errorf("%.3f allocations a request, want at most %v", got, l.atMost)
			}
		})
	}
}

func underRaceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// prepare starts a proxy and an upstream, and returns what does one exchange.
func (l load) prepare(tb testing.TB) func() error {
	up := l.upstream(tb)
	r := start(tb, func(s *settings) {
		s.proxy.Log, s.proxy.LogAll = nil, false
		if l.hop {
			at := netip.MustParseAddrPort(up)
			s.proxy.Hop = proxy.NewHop(pool.Key{Host: at.Addr().String(), Port: at.Port()}, policy.Direct{}, nil)
			s.proxy.Hop.SetCredentials("user:password")
			s.pool.Hop = s.proxy.Hop.Pool(64 << 10)
		}
		if l.ruled {
			s.ruled(proxy.EgressConfig{Rules: rules("a.test,.b.test,127.0.0.1", ".c.test,10.0.0.7", "10.0.0.0/8", "10.9.0.0/16")})
		}
	})
	c := &loadClient{
		to:      syscall.SockaddrInet4{Port: int(netip.MustParseAddrPort(r.addr).Port()), Addr: [4]byte{127, 0, 0, 1}},
		request: fmt.Appendf(nil, l.request, up),
		limit:   syscall.NsecToTimeval(int64(patience)),
		in:      make([]byte, 128<<10),
		fd:      -1,
	}
	if l.inside {
		c.opening = []byte(connectTo(up))
	}
	tb.Cleanup(c.hangUp)
	// The first exchange tells how long an answer is.
	if err := c.learn(l.each); err != nil {
		tb.Fatal(err)
	}
	if got := string(c.in[:c.size]); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, l.answer[strings.Index(l.answer, "\r\n\r\n"):]) {
		tb.Fatalf("the answer is %.200q", got)
	}
	if l.each {
		return c.once
	}
	return c.exchange
}

// upstream answers requests one after the other, and relies on each to have a
// head and a body of known length.
func (l load) upstream(tb testing.TB) (addr string) {
	o := newOrigin(tb)
	o.handle(func(up *wire) {
		in, answer, n := make([]byte, 128<<10), []byte(l.answer), 0
		for {
			k, err := up.Read(in[n:])
			if err != nil {
				return
			}
			n += k
			head := bytes.Index(in[:n], []byte("\r\n\r\n"))
			if head < 0 || n < head+4+l.body {
				continue
			}
			n = 0
			if _, err := up.Write(answer); err != nil {
				return
			}
		}
	})
	return o.addr
}

// loadClient speaks to the proxy by system calls: the net package allocates when
// it dials.
type loadClient struct {
	to      syscall.SockaddrInet4
	limit   syscall.Timeval
	opening []byte // what is sent before the first request; nil for nothing
	request []byte
	in      []byte
	size    int // of an answer
	fd      int
}

var errLoad = errors.New("the answer is not the usual one")

func (c *loadClient) dial() (err error) {
	if c.fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		return err
	}
	if err := syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &c.limit); err != nil {
		return err
	}
	return syscall.Connect(c.fd, &c.to)
}

// read goes on where a signal came between: the runtime sends some.
func (c *loadClient) read(p []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(c.fd, p); err != syscall.EINTR {
			return n, err
		}
	}
}

func (c *loadClient) hangUp() {
	if c.fd >= 0 {
		_ = syscall.Close(c.fd)
		c.fd = -1
	}
}

// learn does an exchange whose answer is as long as its Content-Length says.
func (c *loadClient) learn(each bool) error {
	if err := c.dial(); err != nil {
		return err
	}
	if c.opening != nil {
		if _, err := syscall.Write(c.fd, c.opening); err != nil {
			return err
		}
		if n, err := c.read(c.in); err != nil || string(c.in[:n]) != established {
			return fmt.Errorf("%.200q: %w", c.in[:n], errors.Join(err, errLoad))
		}
	}
	if _, err := syscall.Write(c.fd, c.request); err != nil {
		return err
	}
	for want := 1; c.size < want; {
		n, err := c.read(c.in[c.size:])
		if err != nil || n == 0 {
			return fmt.Errorf("after %.200q: %w", c.in[:c.size], errors.Join(err, errLoad))
		}
		c.size += n
		want = c.size + 1
		if head, _, ok := strings.Cut(string(c.in[:c.size]), "\r\n\r\n"); ok {
			length := 0
			_, _ = fmt.Sscan(field(head, "Content-Length"), &length)
			want = len(head) + 4 + length
		}
	}
	if each {
		c.hangUp()
	}
	return nil
}

// exchange does one on the connection that is there.
func (c *loadClient) exchange() error {
	if _, err := syscall.Write(c.fd, c.request); err != nil {
		return err
	}
	for got := 0; got < c.size; {
		n, err := c.read(c.in[got:])
		if err != nil {
			return err
		}
		if got += n; n == 0 || got > c.size {
			return errLoad
		}
	}
	return nil
}

// once does one on a connection of its own, and sees it end.
func (c *loadClient) once() error {
	if err := c.dial(); err != nil {
		return err
	}
	defer c.hangUp()
	if err := c.exchange(); err != nil {
		return err
	}
	if n, err := c.read(c.in); n != 0 || err != nil {
		return errors.Join(err, errLoad)
	}
	return nil
}
