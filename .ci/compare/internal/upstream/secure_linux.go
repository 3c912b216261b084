package upstream

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// secure counts for upstreams that many goroutines serve.
type secure struct {
	accepted, requests, second atomic.Int64
}

func (s *secure) counts() []byte {
	b, _ := json.Marshal(Counts{s.accepted.Load(), s.requests.Load(), s.second.Load()}) // of integers: it cannot fail
	return b
}

func (s *secure) listen(at, cert, key string, protocols ...string) (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(counted{l, &s.accepted}, &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   protocols,
	}), nil
}

type counted struct {
	net.Listener
	accepted *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// Secure serves HTTP/1.1 over TLS 1.3 until the process ends.
func Secure(at, cert, key string, ready func()) error {
	s := &secure{}
	l, err := s.listen(at, cert, key, "http/1.1")
	if err != nil {
		return err
	}
	ready()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

func (s *secure) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 16<<10)
	var out []byte
	for {
		a, err := s.next(in)
		if err != nil {
			return
		}
		if a.Kind == wire.Counts {
			body := s.counts()
			out = fmt.Appendf(out[:0], "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		} else {
			s.requests.Add(1)
			var follow int
			out, follow = wire.AppendAnswer(out[:0], a)
			out = append(out, filler[:min(follow, longest)]...)
		}
		if _, err := in.Discard(a.Head + a.Body); err != nil {
			return
		}
		if _, err := c.Write(out); err != nil || a.Last {
			return
		}
	}
}

// next returns what the next request asks for, and leaves the request where it is.
func (s *secure) next(in *bufio.Reader) (wire.Asked, error) {
	for n := 1; ; {
		if _, err := in.Peek(n); err != nil {
			return wire.Asked{}, err
		}
		n = in.Buffered()
		b, _ := in.Peek(n)
		a, whole, err := wire.Read(b)
		if whole || err != nil {
			return a, err
		}
		n++
	}
}

// Second serves HTTP/2 over TLS 1.3, and HTTP/1.1 to those who speak no HTTP/2, until the process ends.
func Second(at, cert, key string, ready func()) error {
	s := &secure{}
	l, err := s.listen(at, cert, key, "h2", "http/1.1")
	if err != nil {
		return err
	}
	ready()
	return (&http.Server{Handler: s}).Serve(l)
}

func (s *secure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/counts" {
		_, _ = w.Write(s.counts()) // whoever asked is gone
		return
	}
	s.requests.Add(1)
	if r.ProtoMajor == 2 {
		s.second.Add(1)
	}
	size := wire.Small
	if of, ok := strings.CutPrefix(r.URL.Path, "/size/"); ok {
		if n, err := strconv.Atoi(of); err == nil && n >= wire.Small && n <= longest {
			size = n
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(size))
	body := wire.AppendBody(make([]byte, 0, size), []byte(r.Header.Get(wire.IDHeader)))
	_, _ = w.Write(append(body, filler[:size-wire.Small]...)) // a client that is gone counts itself
}
