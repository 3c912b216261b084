package demo

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// distance is the simulated network in front of an upstream: what each new connection
// and each request is made to wait for. It is the same for every client, whoever it is.
type distance struct {
	roundTrip time.Duration // there and back
	lookup    time.Duration // the name look-up before a new connection
}

// opening is what a new connection waits for before its first byte reaches the
// server: the look-up, the TCP handshake, and with TLS 1.3 one round trip more
// (RFC 8446 section 2). No wait is added for TLS 1.2, which needs two.
func (d distance) opening(withTLS bool) time.Duration {
	wait := d.lookup + d.roundTrip
	if withTLS {
		wait += d.roundTrip
	}
	return wait
}

// upstream is the server that is asked: HTTP/1.1 on loopback, at a distance.
type upstream struct {
	addr string // host:port

	roundTrip time.Duration
	accepted  atomic.Int64
	server    *http.Server
	ended     sync.WaitGroup // Serve and every connection
}

// startUpstream starts an upstream, for https if tlsConfig is not nil. The caller
// must close it.
func startUpstream(far distance, tlsConfig *tls.Config) (*upstream, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the upstream: %w", err)
	}
	u := &upstream{addr: listener.Addr().String(), roundTrip: far.roundTrip}
	listener = &distantListener{Listener: listener, opening: far.opening(tlsConfig != nil), accepted: &u.accepted}
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	}
	u.server = &http.Server{
		Handler:  http.HandlerFunc(u.answer),
		ErrorLog: log.New(io.Discard, "", 0), // the client sees and reports every failure
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				u.ended.Add(1)
			case http.StateClosed:
				u.ended.Done()
			}
		},
	}
	u.ended.Go(func() { _ = u.server.Serve(listener) })
	return u, nil
}

// close ends the upstream and waits until all its goroutines have ended.
func (u *upstream) close() {
	_ = u.server.Close()
	u.ended.Wait()
}

// connections returns how many connections were opened so far.
func (u *upstream) connections() int { return int(u.accepted.Load()) }

// answer sends back the tag it finds in the path, a round trip later.
func (u *upstream) answer(w http.ResponseWriter, r *http.Request) {
	if !wait(r.Context(), u.roundTrip) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, answerTo(strings.TrimPrefix(r.URL.Path, "/")))
}

// answerTo returns the body that answers the request for tag.
func answerTo(tag string) string { return fmt.Sprintf("{\"tag\":%q}\n", tag) }

// wait waits for d, or returns false as soon as ctx is done.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// distantListener counts connections and holds each for opening before its first
// byte is read. Accept itself never waits: connections open side by side.
type distantListener struct {
	net.Listener
	opening  time.Duration
	accepted *atomic.Int64
}

func (l *distantListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	return &distantConn{Conn: conn, arrives: time.Now().Add(l.opening), closed: ctx, close: cancel}, nil
}

// distantConn lets nothing be read before arrives.
type distantConn struct {
	net.Conn
	arrives time.Time
	closed  context.Context // done once Close was called
	close   context.CancelFunc
}

func (c *distantConn) Read(p []byte) (int, error) {
	if left := time.Until(c.arrives); left > 0 && !wait(c.closed, left) {
		return 0, net.ErrClosed
	}
	return c.Conn.Read(p)
}

func (c *distantConn) Close() error {
	c.close()
	return c.Conn.Close()
}
