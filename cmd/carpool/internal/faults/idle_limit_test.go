package faults_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
)

var p12Idle = flag.Duration("p12", 1200*time.Millisecond, "after how long TestP12's upstream closes idle connections")

// sleeper is an upstream that closes connections that were idle for so long,
// and whose last word takes a while to arrive: requests that cross it on the
// way are lost.
type sleeper struct {
	net.Listener
	idle     time.Duration
	executed sync.Map // how often, by target: *atomic.Int64
	work     sync.WaitGroup
	conns    sync.Map
}

func newSleeper(t testing.TB, idle time.Duration) *sleeper {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sleeper{Listener: l, idle: idle}
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Store(c, nil)
			s.work.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		s.work.Wait()
	})
	return s
}

func (s *sleeper) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for first := true; ; first = false {
		_ = c.SetReadDeadline(time.Time{})
		if !first {
			_ = c.SetReadDeadline(time.Now().Add(s.idle))
		}
		if _, err := in.Peek(1); err != nil {
			break
		}
		_ = c.SetReadDeadline(time.Time{})
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		n, _ := s.executed.LoadOrStore(r.Host+r.URL.Path, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere"); err != nil {
			return
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(s.idle / 6)) // it has closed, but that is still on its way
	_, _ = in.Read(make([]byte, 1))
}

// The upstream closes what was idle for a while, and the client's POSTs come
// after about as long. Before carpool has seen a few such closes a POST may hit
// one, and must not be repeated; then none may.
func TestP12IdleLimitIsLearned(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes many seconds")
	}
	const origins = 40
	limit, posts := *p12Idle, 10
	if limit > 2*time.Second { // asked for
		posts = 20
	}
	s := newSleeper(t, limit)
	_, port, _ := net.SplitHostPort(s.Addr().String())
	c := carpooltest.Run(t)
	known := watchLimits(t, c)
	var work sync.WaitGroup
	var lost, late atomic.Int64
	for n := range origins {
		host := fmt.Sprintf("127.0.1.%d:%s", n+1, port)
		cl := c.Dial()
		work.Go(func() {
			for k := range posts {
				_, learned := known.Load("http://" + host)
				path := fmt.Sprint("/", k)
				r, err := cl.Ask("POST", "http://"+host+path, "Content-Length: 0")
				if err != nil {
					t.Errorf("POST: %v", err)
					return
				}
				count, _ := s.executed.LoadOrStore(host+path, new(atomic.Int64))
				executed := count.(*atomic.Int64).Load()
				switch {
				case r.StatusCode == 200 && executed == 1:
				case r.StatusCode == 502 && executed == 0 && !learned:
					lost.Add(1)
				default:
					t.Errorf("%s%s: answered %s, executed %d times, learned before: %v", host, path, r.Status, executed, learned)
				}
				if learned {
					late.Add(1)
				}
				// From nine tenths of the limit to thirteen.
				pause := time.NewTimer(limit*9/10 + rand.N(limit*4/10))
				<-pause.C
			}
		})
	}
	work.Wait()
	t.Logf("%d POSTs, %d of them when the limit was known; lost before: %d", origins*posts, late.Load(), lost.Load())
	if lost.Load() == 0 || late.Load() == 0 {
		t.Error("no POST crossed a close, or no limit was learned: this test shows nothing")
	}
}

// watchLimits returns a set of the origins that a limit has been learned for.
func watchLimits(t testing.TB, c *carpooltest.Carpool) *sync.Map {
	var known sync.Map
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
			r, err := c.Probe("/metrics")
			if err != nil {
				continue
			}
			for line := range strings.Lines(r.Body) {
				rest, ok := strings.CutPrefix(line, `carpool_learned_idle_limit_seconds{origin="`)
				if origin, value, _ := strings.Cut(rest, `"} `); ok && value != "0\n" {
					known.Store(origin, nil)
				}
			}
		}
	})
	t.Cleanup(work.Wait)
	return &known
}

func TestHostsThatAreNotToBeReusedAreNot(t *testing.T) {
	t.Parallel()
	s := newSleeper(t, time.Minute)
	_, port, _ := net.SplitHostPort(s.Addr().String())
	c := carpooltest.Run(t, "CARPOOL_NO_REUSE_HOSTS=127.0.2.1, 127.0.2.2:"+port+", 127.0.2.3:1")
	for host, want := range map[string]float64{"127.0.2.1": 3, "127.0.2.2": 3, "127.0.2.3": 1, "127.0.2.4": 1} {
		cl := c.Dial()
		for range 3 {
			if r, err := cl.Ask("GET", "http://"+host+":"+port+"/"); err != nil || r.StatusCode != 200 {
				t.Fatalf("%s: %v, %v", host, r, err)
			}
		}
		if n := c.Metric("carpool_connections_opened_total", `origin="http://`+host+":"+port+`"`); n != want {
			t.Errorf("%s: %v connections for 3 requests, want %v", host, n, want)
		}
	}
}
