// Package admin is the listener for the kubelet, for Prometheus and for people:
// health, metrics and the status page. It reads figures and decides nothing.
package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/status"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Server serves /healthz, /readyz, /metrics and, at /, the status page.
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

// Pool and Proxy are where the figures come from.
type (
	Pool  interface{ Snapshot() pool.Snapshot }
	Proxy interface{ Stats() proxy.Stats }
)

// Sources are what is told about. All of them are needed.
type Sources struct {
	Pool   Pool
	Proxy  Proxy
	Bypass Bypass
}

// Serve begins to serve, and to say that carpool is ready.
func (s *Server) Serve(from Sources) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{from.Pool, from.Proxy}, &podCollector{from.Bypass},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.page = status.New(status.Sources{Pool: from.Pool.Snapshot, Proxy: from.Proxy.Stats, Bypass: from.Bypass.Snapshot})
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", s.page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
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
