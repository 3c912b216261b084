package proxy_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/proxy"
)

// A panic on a goroutine that works for a session ends that session's
// connection and nothing else. Here it comes from the hook that is asked for a
// buffer. Not parallel: the hook is the whole process's.
func TestPanicsOfASessionsGoroutinesAreContained(t *testing.T) {
	if *dialect != "" {
		t.Skip("the hook is in use")
	}
	for _, c := range []struct {
		where string // the function of which the goroutine is
		begin func(r *rig, o *origin) (client, up *wire)
		from  func(client, up *wire) *wire // whose bytes it reads
	}{
		{"proxy.(*upload).run(", func(r *rig, o *origin) (client, up *wire) {
			client = r.client()
			more := "Content-Length: 1000000\r\n\r\nfirst"
			client.send(o.request("POST", "/", more))
			up = o.accept()
			up.want(o.forwarded("POST", "/", more))
			return client, up
		}, func(client, up *wire) *wire { return client }},
		{"proxy.(*way).relay(", websocket, func(client, up *wire) *wire { return up }},
		{"proxy.(*way).run(", websocket, func(client, up *wire) *wire { return client }},
		{"proxy.(*opening).answer.func", tunnel, func(client, up *wire) *wire { return up }},
		{"proxy.(*opening).hear(", tunnel, func(client, up *wire) *wire { return client }},
	} {
		t.Run(c.where, func(t *testing.T) {
			var faults atomic.Int64
			r := start(t, func(s *settings) { s.proxy.Fault = func(string, error) { faults.Add(1) } })
			o := newOrigin(t)
			other := r.client()
			upOther := o.exchange(other, nil)
			r.idle(o, 1)
			_ = upOther.Close()
			r.idle(o, 0)
			client, up := c.begin(r, o)
			panicIn(t, c.where)
			eventually(t, "a buffer is allocated", func() bool {
				runtime.GC()
				runtime.GC()                        // what is pooled survives one
				_ = c.from(client, up).trySend("x") // its connection may be over by now
				return r.proxy.Stats().Panics > 0
			})
			for _, w := range []*wire{client, up} { // what has come, and the end
				if _, err := w.rest(); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the %s is not told", w.name)
				}
			}
			sock.Ration(nil)
			if n := r.proxy.Stats().Panics; n != 1 || faults.Load() != 1 {
				t.Errorf("%d panics are counted, %d told", n, faults.Load())
			}
			eventually(t, "nothing is open", func() bool { return !r.proxy.Busy() && r.stats(o).InUse == 0 })
			o.exchange(other, nil)
		})
	}
}

// panicIn makes the next buffer that a goroutine with this function on its stack
// has to allocate a panic.
func panicIn(t *testing.T, function string) {
	sock.Ration(func() bool {
		stack := make([]byte, 64<<10)
		if strings.Contains(string(stack[:runtime.Stack(stack, false)]), function) {
			panic("this is a test")
		}
		return true
	})
	t.Cleanup(func() { sock.Ration(nil) })
}

// The sweeper goes on when it stumbles over a session.
func TestPanicsOfTheSweeperAreContained(t *testing.T) {
	t.Parallel()
	var faults atomic.Int64
	r := start(t, func(s *settings) { s.proxy.Fault = func(string, error) { faults.Add(1) } })
	r.proxy.Stumble()
	if n := r.proxy.Stats().Panics; n != 1 || faults.Load() != 1 {
		t.Errorf("%d panics are counted, %d told", n, faults.Load())
	}
	eventually(t, "the sweeper turns", func() bool { return r.proxy.Lag() > proxy.SweepPeriod/2 })
	eventually(t, "the sweeper turns", func() bool { return r.proxy.Lag() < proxy.SweepPeriod/2 })
}
