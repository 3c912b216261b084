package proxy_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

func TestWhatIsNotAdmittedIsRefusedAndWhatRunsGoesOn(t *testing.T) {
	t.Parallel()
	var short atomic.Bool
	r, o := start(t, func(s *settings) { s.proxy.Admit = func(int64) bool { return !short.Load() } }), newOrigin(t)
	running, next := r.client(), r.client()
	running.send(o.get("/"))
	up := o.accept()
	up.want(o.forwarded("GET", "/", ""))
	short.Store(true)
	for range 2 { // on the same connection
		next.send(o.get("/next"))
		if _, body := next.problem(503, 503); !strings.Contains(body, "memory limit") {
			t.Errorf("the refusal says %q", body)
		}
	}
	tunnel := r.client()
	tunnel.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	if _, body := tunnel.problem(503, 503); !strings.Contains(body, "memory limit") {
		t.Errorf("the refusal of a tunnel says %q", body)
	}
	up.send(ok)
	running.want(ok)
	short.Store(false)
	o.exchange(next, up)
	o.served(1)
	if got := r.logged(1); got.Status != 503 || got.Error != "proxy_internal_response" {
		t.Errorf("logged %+v", got)
	}
}

// Not parallel: it counts goroutines.
func TestCloseIdleClosesWhatIsIdleSoLong(t *testing.T) {
	r, o := start(t), newOrigin(t)
	var clients []*wire
	var up *wire
	for range 300 { // more than are closed at a time
		c := r.client()
		up = o.exchange(c, up)
		clients = append(clients, c)
	}
	busy := r.client()
	busy.send(o.get("/"))
	up.want(o.forwarded("GET", "/", ""))
	if n := r.proxy.CloseIdle(time.Hour); n != 0 {
		t.Errorf("%d closed that were idle for an hour", n)
	}
	if sock.CanWatch {
		eventually(t, "all are asleep", func() bool { return sessionGoroutines() == 1 })
	}
	closed := 0
	eventually(t, "all are closed", func() bool {
		closed += r.proxy.CloseIdle(0)
		return closed == len(clients)
	})
	for _, c := range clients {
		c.end()
	}
	up.send(ok)
	busy.want(ok)
	r.idle(o, 1)
	if n := r.pool.CloseIdle(time.Hour); n != 0 {
		t.Errorf("%d upstream connections closed that were idle for an hour", n)
	}
	if n := r.pool.CloseIdle(0); n != 1 {
		t.Errorf("%d upstream connections closed, want 1", n)
	}
	r.closedFor(o, pool.Evicted)
	up.end()
}

// An upstream that does not answer and a client that does not read stop
// nothing; what holds up the loops is told.
func TestLagTellsWhatIsStuckFromWhatIsSlow(t *testing.T) {
	t.Parallel()
	r, o := start(t, func(s *settings) { s.proxy.MaxClients = 1 }), newOrigin(t)
	c := r.client()
	c.send(o.get("/"))
	up := o.accept()
	up.want(o.forwarded("GET", "/", ""))
	full := r.client() // waits to be accepted
	full.send(o.get("/"))
	turn := func() {
		t.Helper()
		eventually(t, "the loops turn", func() bool { return r.proxy.Lag() > proxy.SweepPeriod/2 })
		eventually(t, "the loops turn", func() bool { return r.proxy.Lag() < proxy.SweepPeriod/2 })
	}
	turn()
	release := r.proxy.HoldSessions()
	eventually(t, "it is stuck", func() bool { return r.proxy.Lag() > 8*proxy.SweepPeriod })
	release()
	turn()
	if lag := r.pool.Lag(); lag > patience {
		t.Errorf("the pool lags %v", lag)
	}
	up.send(ok)
	c.want(ok)
	c.cut()
	up.want(o.forwarded("GET", "/", ""))
	up.send(ok)
	full.want(ok)
}
