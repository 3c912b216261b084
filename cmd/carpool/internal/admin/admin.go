// Package admin is the listener for the kubelet, for Prometheus, for people and
// for the pod's other containers: health, metrics, the status page and the wish
// that carpool end. It reads figures and decides nothing.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/fresh"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/seen"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/status"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Server serves /healthz, /readyz, /metrics, /seen, /origin, /quitquitquit and, at /,
// the status page.
type Server struct {
	listener net.Listener
	server   http.Server
	failed   chan error
	page     *status.Page // nil before Serve
	state    atomic.Int32 // of those below
	serving  bool
}

// What /readyz says.
const (
	starting int32 = iota
	ready
	draining
)

// Listen announces the address. Nothing is served before Serve.
func Listen(ctx context.Context, address string) (*Server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Server{listener: l, failed: make(chan error, 1)}, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Failed receives the error that ended serving, if it was not Close.
func (s *Server) Failed() <-chan error { return s.failed }

// The figures come from these. Lag is after how long the slowest of a source's loops turns.
type (
	Pool interface {
		Snapshot() pool.Snapshot
		Inspect(pool.Key) (pool.Inspection, bool)
		Lag() time.Duration
	}
	Proxy interface {
		Stats() proxy.Stats
		Lag() time.Duration
	}
	Log    interface{ Dropped() (unread, flood uint64) }
	Bypass interface{ Snapshot() bypass.Snapshot }
	Memory interface{ Stats() memory.Stats }
	Seen   interface{ List() seen.List }
	Certs  interface{ Stats() certs.Stats }
)

// Sources are what is told about, and what can be asked for. All of them are needed.
type Sources struct {
	Pool   Pool
	Proxy  Proxy
	Bypass Bypass
	Memory Memory
	Log    Log
	Seen   Seen
	Certs  Certs
	// Errors receives what net/http has to say; nil: nothing does.
	Errors *zap.Logger
	// MaxConns is how many connections may be open at a time; more than 0.
	MaxConns int
	// Room, if not nil, frees a descriptor of the process when there is none left, and reports whether it did.
	Room func() bool
	// Route returns what requests to an origin lead to: the next hop, say. nil leaves origins as they are.
	Route func(pool.Key) pool.Key
	// ProxyPort is the port that the app is to be sent to.
	ProxyPort uint16
	// Quit makes carpool drain and exit, as SIGTERM does. It returns at once.
	Quit func()
}

const (
	// freshFor is how long metrics and page are given out again: to gather them takes milliseconds, and their port is open
	// to the whole network.
	freshFor = time.Second
	// Large answers and small ones have turns of their own, so that no probe waits behind scrapers.
	everyLarge = 20 * time.Millisecond
	everySmall = time.Millisecond
	// Bounds on a request: so little can be asked for in less time and fewer bytes.
	readTime   = 5 * time.Second
	writeTime  = 5 * time.Second
	idleTime   = time.Minute
	headerSize = 8 << 10
)

// Serve begins to serve. Carpool is not ready yet.
func (s *Server) Serve(from Sources) {
	s.page = status.New(status.Sources{
		Pool: from.Pool.Snapshot, Proxy: from.Proxy.Stats, Bypass: from.Bypass.Snapshot, Memory: from.Memory.Stats,
		ProxyPort: from.ProxyPort,
	})
	l := newBounded(s.listener, from.MaxConns, from.Room)
	s.server = http.Server{
		Handler: s.handler(from), MaxHeaderBytes: headerSize,
		ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		ConnState: func(c net.Conn, _ http.ConnState) { l.happened(c) },
		ErrorLog:  errorLog(from.Errors),
	}
	s.serving = true
	go func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// handler returns what answers. Large answers are made once in a while, for all who ask, and given out one by one.
func (s *Server) handler(from Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(from),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exported := fresh.New(freshFor, func() *exposition { return gather(registry) })
	large, small := &pace{every: everyLarge}, &pace{every: everySmall}
	mux := http.NewServeMux()
	handle := func(pattern string, turn *pace, answer http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			turn.wait(r.Context().Done())
			answer(w, r)
		})
	}
	handle("GET /{$}", large, s.page.ServeHTTP)
	handle("GET /metrics", large, func(w http.ResponseWriter, r *http.Request) { exported.Get().ServeHTTP(w, r) })
	handle("GET /seen", large, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(from.Seen.List())
	})
	handle("GET /origin", large, func(w http.ResponseWriter, r *http.Request) { s.origin(w, r, from) })
	handle("GET /healthz", small, func(w http.ResponseWriter, _ *http.Request) { health(w, from) })
	handle("POST /quitquitquit", small, func(w http.ResponseWriter, r *http.Request) { quit(w, r, from.Quit) })
	handle("GET /readyz", small, func(w http.ResponseWriter, _ *http.Request) {
		if name := s.stateName(); name != "ready" {
			http.Error(w, name, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return mux
}

// errorLog keeps net/http from writing to stderr by itself, where it would wait for a reader.
func errorLog(to *zap.Logger) *log.Logger {
	if to == nil {
		return log.New(io.Discard, "", 0)
	}
	return zap.NewStdLog(to)
}

// stuckAfter is the lag that nothing but a fault explains: the loops turn several times a second, or once. A machine
// that is so short of CPU would not answer the kubelet in time either.
const stuckAfter = 15 * time.Second

// health says whether carpool works, which slow clients and upstreams do not change, and neither does too much load: a
// restart would help against none of them.
func health(w http.ResponseWriter, from Sources) {
	if lag := max(from.Proxy.Lag(), from.Pool.Lag()); lag > stuckAfter {
		http.Error(w, fmt.Sprintf("stuck for %v", lag.Round(time.Second)), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// stateName is the state in a word.
func (s *Server) stateName() string {
	return [...]string{"starting", "ready", "draining"}[s.state.Load()]
}

// Ready makes /readyz say that carpool is ready, unless it drains.
func (s *Server) Ready() { s.state.CompareAndSwap(starting, ready) }

// NotReady makes /readyz say that carpool drains.
func (s *Server) NotReady() { s.state.Store(draining) }

// Close stops at once. What is under way, a scrape at most, is cut off.
func (s *Server) Close() error {
	if !s.serving {
		return s.listener.Close()
	}
	s.page.Close()
	return s.server.Close()
}
