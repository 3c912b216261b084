package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/elazarl/goproxy"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// The CONNECT lane is goproxy's machinery: it decides what is done with a
// tunnel, and will be asked to look inside some. What it gets wrong is put
// right in what it is given: the client's early bytes, half-closed ends, and
// the end of it all, which the session waits for.

// newConnectLane returns a goproxy that only ever sees CONNECT.
func newConnectLane(p *Proxy) *goproxy.ProxyHttpServer {
	g := goproxy.NewProxyHttpServer()
	g.Logger = silent{} // the session logs what went wrong
	g.Tr = &http.Transport{}
	g.ConnectDial = nil // would read HTTPS_PROXY
	g.ConnectDialWithReq = func(r *http.Request, _, _ string) (net.Conn, error) {
		return tunnelOf(r).dial(r.Context())
	}
	g.ConnectionErrHandler = func(_ io.Writer, ctx *goproxy.ProxyCtx, err error) {
		tunnelOf(ctx.Req).err = err
	}
	return g
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// tunnel is a CONNECT under way.
type tunnel struct {
	s      *session
	host   string
	port   uint16
	cancel context.CancelFunc

	err    error // why there is none
	flow   flow
	client end
	target end
	closed func() // tells the pool
}

type tunnelKey struct{}

func tunnelOf(r *http.Request) *tunnel { return r.Context().Value(tunnelKey{}).(*tunnel) }

// serveConnect serves a CONNECT (RFC 9110 section 9.3.6).
func (s *session) serveConnect(x *exchange) bool {
	x.keepAlive = false
	x.http10 = x.req.Minor == 0
	host, port, err := s.connectTarget(x.req.Target)
	if err != nil {
		return s.refuse(x, err)
	}
	if err := s.conn.Register(); err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(s.p.ctx)
	defer cancel()
	t := &tunnel{s: s, host: host, port: port, cancel: cancel, closed: func() {}}
	t.client.init(s.client, &s.conn, &s.in, &t.flow)
	authority := net.JoinHostPort(host, fmt.Sprint(port))
	r := (&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority, Header: http.Header{},
		Proto: fmt.Sprintf("HTTP/1.%d", x.req.Minor), ProtoMajor: 1, ProtoMinor: x.req.Minor,
	}).WithContext(context.WithValue(ctx, tunnelKey{}, t))
	s.in.Consume(x.headLen) // what is behind the head is the client's, through the tunnel
	return s.runTunnel(x, t, r)
}

func (s *session) runTunnel(x *exchange, t *tunnel, r *http.Request) bool {
	s.mu.Lock()
	s.tunnel = t
	gone := s.gone
	s.mu.Unlock()
	s.beginFlow(&t.flow)
	if gone {
		return false
	}
	s.p.tunnels.Add(1)
	defer s.p.tunnels.Add(-1)
	defer t.end()
	if s.p.admits() {
		s.p.connect.ServeHTTP(hijack{t}, r)
		t.client.wait()
	} else {
		t.err = errMemory
	}
	if t.err == nil {
		t.target.wait()
		rethrow(errors.Join(t.client.err, t.target.err))
		s.abort = t.broken()
		s.logTunnel(x, t, 200, noError, s.endFlow())
		return false
	}
	p := connectProblem(t.err)
	s.replyProblem(x, p)
	s.logTunnel(x, t, p.status, p.kind, p.text)
	return false
}

// connectTarget judges the authority of a CONNECT.
func (s *session) connectTarget(authority []byte) (string, uint16, error) {
	host, port, bad := splitAuthority(authority)
	if bad != nil {
		return "", 0, bad
	}
	if port == 0 {
		return "", 0, &problemAuthority
	}
	addr, err := policy.Host(host)
	if err != nil {
		return "", 0, err
	}
	if ports := s.p.cfg.ConnectPorts; ports != nil && !slices.Contains(ports, port) {
		return "", 0, &problemConnectPort
	}
	if addr.IsValid() {
		return addr.String(), port, nil
	}
	return strings.ToLower(string(host)), port, nil
}

// dial is what goproxy gets its connection to the target from.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	conn, closed, err := t.s.p.cfg.Upstreams.Dial(ctx, t.host, t.port)
	if err != nil {
		return nil, err
	}
	t.closed = closed
	t.target.init(conn, conn, new(sock.Buffer), &t.flow)
	t.client.open()
	t.target.open()
	return &t.target, nil
}

// interrupt ends a tunnel from another goroutine.
func (t *tunnel) interrupt() {
	t.cancel()
	t.client.Close()
	t.target.Close()
}

// end closes the target's side; the session closes the client's.
func (t *tunnel) end() {
	t.s.endFlow()
	t.s.mu.Lock()
	t.s.tunnel = nil
	t.s.mu.Unlock()
	t.client.retire()
	conn := t.target.retire()
	if conn == nil {
		return
	}
	if t.broken() {
		_ = conn.Abort()
	} else {
		_ = conn.Close()
	}
	t.closed()
}

// broken reports, when nothing is relayed any more, whether that ended by a
// failure, such as a reset, which has to look like one on both sides.
func (t *tunnel) broken() bool { return t.client.err != nil || t.target.err != nil }

// errMemory is why a tunnel was not opened.
var errMemory = errors.New("proxy: memory is short")

func connectProblem(err error) *problem {
	switch {
	case errors.Is(err, errMemory):
		return &problemMemory
	case errors.Is(err, context.Canceled):
		return &problemStopping
	}
	return dialProblem(err)
}

func (s *session) logTunnel(x *exchange, t *tunnel, status int, kind errorKind, detail string) {
	cfg := &s.p.cfg
	if cfg.Log == nil || !cfg.LogAll && kind == noError {
		return
	}
	cfg.Log(&Record{
		Method: http.MethodConnect, Origin: net.JoinHostPort(t.host, fmt.Sprint(t.port)), Status: status, Error: kind.String(),
		Detail: detail, Sent: t.client.copied, Received: t.target.copied, Duration: s.p.now() - x.start,
	})
}

// hijack is the ResponseWriter that goproxy is called with. It hands the
// client's connection over and takes no answer.
type hijack struct{ t *tunnel }

func (h hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) { return &h.t.client, nil, nil }
func (h hijack) Header() http.Header                          { return http.Header{} }
func (h hijack) Write(p []byte) (int, error)                  { return len(p), nil }
func (h hijack) WriteHeader(int)                              {}

// end is one side of a tunnel, as goproxy sees it: a net.Conn that can be
// closed by halves, whose first bytes may be there already, and which only
// pretends to close. goproxy closes its ends from several goroutines at once;
// the one who owns the connection does it when all are done with it.
type end struct {
	sock.Stream
	in     *sock.Buffer
	flow   *flow
	copied int64
	err    error // of reading here or writing to the other side, before either ended

	mu      sync.Mutex
	conn    *sock.Conn // nil before init and after retire
	opened  bool       // the tunnel stands, so there may be I/O to interrupt
	users   int        // calls of WriteTo under way
	closing bool       // Close was called
	done    sync.Cond  // closing and no users
}

func (e *end) init(stream sock.Stream, conn *sock.Conn, in *sock.Buffer, f *flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Stream, e.conn, e.in, e.flow = stream, conn, in, f
	e.done.L = &e.mu
}

func (e *end) open() {
	e.mu.Lock()
	e.opened = true
	e.mu.Unlock()
}

// WriteTo implements io.WriterTo, which io.Copy prefers: it copies without
// holding a buffer while it waits, and begins with the early bytes.
func (e *end) WriteTo(w io.Writer) (int64, error) {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return 0, net.ErrClosed
	}
	e.users++
	e.mu.Unlock()
	n, err := relayBytes(w, e.Stream, e.in, e.flow)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copied, e.err = n, err
	e.users--
	e.done.Broadcast()
	return n, err
}

// wait waits until goproxy is done with this end.
func (e *end) wait() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.closing || e.users > 0 {
		e.done.Wait()
	}
}

// retire takes the connection away from the end.
func (e *end) retire() *sock.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conn := e.conn
	e.conn, e.closing = nil, true
	return conn
}

// Close makes everything that goes on at this end stop.
func (e *end) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn != nil && !e.closing {
		e.closing = true
		if e.opened {
			e.conn.Interrupt()
		}
		e.done.Broadcast()
	}
	return nil
}

// CloseWrite passes the end of the other side on.
func (e *end) CloseWrite() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == nil {
		return net.ErrClosed
	}
	return e.Stream.CloseWrite()
}

// CloseRead is part of what goproxy asks for; nothing needs to be done.
func (e *end) CloseRead() error { return nil }
