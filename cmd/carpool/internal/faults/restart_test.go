package faults_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// service is one address with pods behind it, as a Service of Kubernetes is:
// each connection goes to one of the pods that are ready, and stays there.
type service struct {
	net.Listener
	work  sync.WaitGroup
	conns atomic.Int64

	mu    sync.Mutex // guards ready
	ready []*pod     // the next first
}

func newService(t testing.TB, pods int) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{Listener: l}
	var all sync.Map // connections
	for range pods {
		s.ready = append(s.ready, newPod())
	}
	s.work.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			all.Store(c, nil)
			p := s.next()
			s.work.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		s.work.Wait()
	})
	return s
}

func (s *service) next() *pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ready[0]
	s.ready = append(s.ready[1:], p)
	return p
}

// restart replaces one pod.
func (s *service) restart() {
	s.mu.Lock()
	oldest := s.ready[0]
	s.ready = append(s.ready[1:], newPod())
	s.mu.Unlock()
	oldest.retire()
}

// pod is a server that ends as well-behaved ones do: it gets no new
// connections, finishes what it has begun and says so, and closes what is idle,
// whatever may be on its way there.
type pod struct {
	mu      sync.Mutex // guards the rest
	retired bool
	idle    map[net.Conn]bool
}

func newPod() *pod { return &pod{idle: map[net.Conn]bool{}} }

func (p *pod) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = true
	for c := range p.idle {
		_ = c.Close()
	}
}

// rest notes that a connection is idle, or no longer. It reports whether the
// pod goes on.
func (p *pod) rest(c net.Conn, idle bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.idle, c); idle && !p.retired {
		p.idle[c] = true
	}
	return !p.retired
}

// serve answers with what was asked for. The first request of a connection is
// always served: the pod was ready when the connection was made.
func (p *pod) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for first := true; first || p.rest(c, true); first = false {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		goOn := p.rest(c, false)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		echo := fmt.Sprintf("%s %s", r.URL.Path, body)
		a := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Was: %s %s\r\nContent-Length: %d\r\n", r.Method, r.URL.Path, len(echo))
		if !goOn {
			a += "Connection: close\r\n"
		}
		if r.Method == http.MethodHead {
			echo = ""
		}
		if _, err := io.WriteString(c, a+"\r\n"+echo); err != nil || !goOn {
			return
		}
	}
}

func TestX14RollingRestartLosesNoIdempotentRequest(t *testing.T) {
	t.Parallel()
	const restarts, clients, perRestart = 30, 8, 150
	s := newService(t, 3)
	c := carpooltest.Run(t)
	var done atomic.Int64
	var over atomic.Bool
	var work sync.WaitGroup
	defer work.Wait()
	defer over.Store(true)
	for n := range clients {
		work.Go(func() {
			cl := &retryless{proxy: c.Proxy, keep: n%2 == 0}
			defer cl.close()
			for k := 0; !over.Load(); k++ {
				if err := cl.exchange(k, fmt.Sprintf("http://%s/%d/%d", s.Addr(), n, k)); err != nil {
					t.Errorf("client %d, request %d: %v", n, k, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range restarts {
		testkit.Eventually(t, "requests are answered", func() bool { return t.Failed() || done.Load() > int64(n+1)*perRestart })
		s.restart()
	}
	over.Store(true)
	work.Wait()
	now := c.Scrape()
	lost := now.Sum("carpool_connections_closed_total", `reason="upstream_closed"`) +
		now.Sum("carpool_connections_closed_total", `reason="closed_on_reuse"`) +
		now.Sum("carpool_connections_closed_total", `reason="not_kept"`)
	t.Logf("%d restarts: %d requests, %d upstream connections, %v of them closed by pods, %v retries",
		restarts, done.Load(), s.conns.Load(), lost, now.Sum("carpool_retries_total"))
	if lost == 0 || s.conns.Load() > done.Load()/2 {
		t.Error("the restarts took no pooled connection away: this test shows nothing")
	}
}

// retryless is a client that takes every answer but the right one for a
// failure.
type retryless struct {
	proxy string
	keep  bool // its connection
	conn  *carpooltest.Client
}

func (r *retryless) close() {
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}

// exchange does the k-th request.
func (r *retryless) exchange(k int, url string) (err error) {
	method := []string{"GET", "PUT", "HEAD", "DELETE", "OPTIONS"}[k%5]
	if r.conn == nil {
		if r.conn, err = carpooltest.Dial(r.proxy); err != nil {
			return err
		}
	}
	body := ""
	var fields []string
	if method == "PUT" {
		body = strings.Repeat("x", k%2000)
		fields = append(fields, fmt.Sprint("Content-Length: ", len(body)))
	}
	if !r.keep {
		fields = append(fields, "Connection: close")
	}
	_ = r.conn.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(r.conn, carpooltest.Head(method, url, fields...)+body); err != nil {
		return err
	}
	a, err := r.conn.Receive(method)
	if err != nil {
		return err
	}
	if a.Close {
		r.close()
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	want := "/" + path + " " + body
	if method == "HEAD" {
		want = ""
	}
	if a.StatusCode != 200 || a.Header.Get("X-Was") != method+" /"+path || a.Body != want {
		return errors.New(method + " is answered " + a.Status + " " + a.Header.Get("Proxy-Status") + ", for " + a.Header.Get("X-Was"))
	}
	return nil
}
