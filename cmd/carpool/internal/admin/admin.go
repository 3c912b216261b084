// Package admin is the listener for the kubelet, for Prometheus, for people and
// for the pod's other containers: health, metrics, the status page and the wish
// that carpool end. It reads figures and decides nothing.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/status"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Server serves /healthz, /readyz, /metrics, /quitquitquit and, at /, the status
// page.
type Server struct {
	listener net.Listener
	server   http.Server
	failed   chan error
	page     *status.Page // nil before Serve
	ready    atomic.Bool
	serving  bool
}

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

// Pool, Proxy and Log are where the figures come from. Lag is after how long the slowest of their loops turns.
type (
	Pool interface {
		Snapshot() pool.Snapshot
		Lag() time.Duration
	}
	Proxy interface {
		Stats() proxy.Stats
		Lag() time.Duration
	}
	Log interface{ Dropped() (unread, flood uint64) }
)

// Sources are what is told about, and what can be asked for. All of them are needed.
type Sources struct {
	Pool   Pool
	Proxy  Proxy
	Bypass Bypass
	Memory Memory
	Log    Log
	// ProxyPort is the port that the app is to be sent to.
	ProxyPort uint16
	// Quit makes carpool drain and exit, as SIGTERM does. It returns at once.
	Quit func()
}

// Serve begins to serve, and to say that carpool is ready.
func (s *Server) Serve(from Sources) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{from.Pool, from.Proxy, from.Log}, &podCollector{from.Bypass, from.Memory},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.page = status.New(status.Sources{
		Pool: from.Pool.Snapshot, Proxy: from.Proxy.Stats, Bypass: from.Bypass.Snapshot, Memory: from.Memory.Stats,
		ProxyPort: from.ProxyPort,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", s.page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { health(w, from) })
	mux.HandleFunc("POST /quitquitquit", func(w http.ResponseWriter, r *http.Request) { quit(w, r, from.Quit) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	s.server = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	s.ready.Store(true)
	s.serving = true
	go func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
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

// quit is for the main container of a Job, where the sidecar does not end by itself. Only the pod may ask: the port is
// open to the whole network.
func quit(w http.ResponseWriter, r *http.Request, quit func()) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		http.Error(w, "only from inside the pod, by way of 127.0.0.1", http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, "draining\n")
	_ = http.NewResponseController(w).Flush() // the end may come at once
	quit()
}

// NotReady makes /readyz say so.
func (s *Server) NotReady() { s.ready.Store(false) }

// Close stops at once: nobody loses more than a scrape.
func (s *Server) Close() error {
	if !s.serving {
		return s.listener.Close()
	}
	s.page.Close()
	return s.server.Close()
}
