package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits on the waits for carpool itself.
const (
	readyTimeout = 10 * time.Second
	readyPoll    = 10 * time.Millisecond
	stopTimeout  = 10 * time.Second
)

// starter is a Starter whose log is already looked after.
type starter func(ctx context.Context, environ []string) error

// sidecar is a running carpool.
type sidecar struct {
	proxy string        // host:port of the proxy
	admin string        // host:port of /readyz and /metrics
	ended chan struct{} // closed when the starter returned

	err    error // what it returned; read it only after ended
	cancel context.CancelFunc
}

// startSidecar starts carpool on free loopback ports and returns when it is ready.
// settings are added to its environment. The caller must stop it.
func startSidecar(ctx context.Context, start starter, settings ...string) (*sidecar, error) {
	ports, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &sidecar{proxy: ports[0], admin: ports[1], ended: make(chan struct{}), cancel: cancel}
	environ := append([]string{"CARPOOL_LISTEN=" + s.proxy, "CARPOOL_ADMIN_LISTEN=" + s.admin}, settings...)
	go func() {
		defer close(s.ended)
		s.err = start(ctx, environ)
		if s.err == nil && ctx.Err() == nil {
			s.err = errors.New("it ended without an error before it was stopped")
		}
	}()
	if err := s.waitReady(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// waitReady polls /readyz.
func (s *sidecar) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	defer transport.CloseIdleConnections()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	last := errors.New("no answer")
	for {
		select {
		case <-s.ended:
			return errors.New("carpool did not start")
		case <-ctx.Done():
			return fmt.Errorf("carpool did not become ready: %w", last)
		case <-poll.C:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			last = err
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
		last = fmt.Errorf("/readyz answered %s", response.Status)
	}
}

// stop ends carpool, waits for it, and reports how it ended if not by being stopped.
func (s *sidecar) stop() error {
	s.cancel()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		return fmt.Errorf("carpool did not stop within %v", stopTimeout)
	}
	if s.err != nil && !errors.Is(s.err, context.Canceled) {
		return fmt.Errorf("carpool ended with: %w", s.err)
	}
	return nil
}

// freeAddresses returns n loopback addresses whose ports were free a moment ago.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer listener.Close() // at the end, so that none is found twice
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}

// tailSize is how much of a log is worth showing.
const tailSize = 4096

// tail keeps the end of what is written to it. Its zero value is ready, and it may be
// used concurrently.
type tail struct {
	mu   sync.Mutex // guards kept; held for no call
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
