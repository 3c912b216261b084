package proxy_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// serial plays a server with so many workers, each of which serves one connection
// until that ends. reply says what is sent to a request; nil for an answer with
// the path.
type serial struct {
	*origin
	busy atomic.Int64 // workers that have a connection
	most atomic.Int64 // the most there were of these
}

func newSerial(t testing.TB, workers int, reply func(path string) string) *serial {
	s := &serial{origin: newOrigin(t)}
	var work sync.WaitGroup
	done := make(chan struct{})
	for range workers {
		work.Go(func() {
			for {
				select {
				case c := <-s.conns:
					s.serve(c, reply)
				case <-done:
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		close(done)
		work.Wait()
	})
	return s
}

// atATime checks how many connections were served at a time at most.
func (s *serial) atATime(want int64) {
	s.t.Helper()
	if n := s.most.Load(); n != want {
		s.t.Errorf("%d connections were served at a time, want %d", n, want)
	}
}

func (s *serial) serve(c net.Conn, reply func(string) string) {
	defer c.Close()
	stop := context.AfterFunc(s.t.Context(), func() { _ = c.Close() })
	defer stop()
	n := s.busy.Add(1)
	defer s.busy.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	up := &wire{t: s.t, name: "upstream", Conn: c}
	for {
		head, err := tryHead(up)
		if err != nil {
			return
		}
		path := strings.Fields(head)[1]
		if text := reply(path); up.trySend(text) != nil {
			return
		}
	}
}

func echo(path string) string { return answer(path) }

// forAnHour keeps idle connections until the end of time, as far as a test is
// concerned.
func forAnHour(c *settings) { c.pool.IdleTimeout = time.Hour }

// together has so many clients do one request each at the same time, and checks
// the answers.
func (r *rig) together(o *origin, clients []*wire, round int) {
	r.t.Helper()
	for i, c := range clients {
		c.send(o.get(fmt.Sprintf("/%d/%d", round, i)))
	}
	for i, c := range clients {
		if status, _, body := c.reply(); status != 200 || body != fmt.Sprintf("/%d/%d", round, i) {
			r.t.Fatalf("round %d, client %d: %d %q", round, i, status, body)
		}
	}
}

func (r *rig) clients(n int) (list []*wire) {
	for range n {
		list = append(list, r.client())
	}
	return list
}

// With one worker a second connection gets nothing until the first one ends.
// IDLE_TIMEOUT is an hour here.
func TestP27OneWorkerServesTwoRequestsAtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, forAnHour)
	var s *serial
	s = newSerial(t, 1, func(path string) string {
		eventually(t, "the other has a connection too", func() bool { return r.stats(s.origin).Opened >= 2 })
		return answer(path)
	})
	r.together(s.origin, r.clients(2), 0)
	r.closedFor(s.origin, pool.MakesRoom)
	s.atATime(1)
}

func TestP27OneWorkerGoesOnServing(t *testing.T) {
	t.Parallel()
	r, s := start(t, forAnHour), newSerial(t, 1, echo)
	clients := r.clients(3)
	for round := range 12 {
		r.together(s.origin, clients, round)
	}
	s.atATime(1)
	// One after the other they share a connection.
	r.free(s.origin)
	before := s.accepted.Load()
	for range 20 {
		r.together(s.origin, clients[:1], 0)
	}
	if n := s.accepted.Load() - before; n > 3 {
		t.Errorf("20 requests in a row took %d new connections", n)
	}
}

func TestP27SeveralWorkers(t *testing.T) {
	t.Parallel()
	r, s := start(t, forAnHour), newSerial(t, 3, echo)
	clients := r.clients(8)
	for round := range 8 {
		r.together(s.origin, clients, round)
	}
}

// While the only worker has a stream to send, others wait at the server, as they
// would without carpool, and are served when it has come to its end.
func TestP27OneWorkerWithAStream(t *testing.T) {
	t.Parallel()
	r, s := start(t, forAnHour), newSerial(t, 1, func(path string) string {
		if path == "/stream" {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
		}
		return answer(path)
	})
	clients := r.clients(3)
	for round := range 4 { // it is learned by then
		r.together(s.origin, clients[:2], round)
	}
	stream := clients[2]
	stream.send(s.get("/stream"))
	stream.until("first")
	for i, c := range clients[:2] {
		c.send(s.get(fmt.Sprintf("/0/%d", i)))
	}
	_ = stream.Close()
	for i, c := range clients[:2] {
		if status, _, body := c.reply(); status != 200 || body != fmt.Sprintf("/0/%d", i) {
			t.Errorf("behind the stream: %d %q", status, body)
		}
	}
	s.atATime(1)
}
