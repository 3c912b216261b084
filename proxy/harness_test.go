package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// The tests of this package run a real Proxy over a real Pool on loopback
// sockets. Both the client and the upstream are played by hand, byte by byte:
// a test reads like the protocol of one conversation.

const patience = testkit.Patience

// TestMain fails the package if a goroutine or a descriptor outlives the tests.
func TestMain(m *testing.M) {
	speak()
	os.Exit(testkit.Run(m, "elazarl/goproxy."))
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	testkit.Eventually(t, what, holds)
}

// rig is a proxy at work.
type rig struct {
	t     testing.TB
	proxy *proxy.Proxy
	pool  *pool.Pool
	addr  string

	served  chan error // what Serve returned
	stopped sync.Once

	mu      sync.Mutex
	records []proxy.Record
	faults  []string
}

// settings are what a test can change about a rig before it starts.
type settings struct {
	proxy proxy.Config
	pool  pool.Config
	addr  netip.AddrPort // where the proxy listens
}

// ruled gives the proxy rules, on hosts and on addresses.
func (s *settings) ruled(c proxy.EgressConfig) {
	c.Listeners, c.OnLoopback = []netip.AddrPort{s.addr}, true
	e := proxy.NewEgress(c)
	s.proxy.Egress, s.pool.CheckAddr = e, e.CheckAddr
}

// start runs a proxy until the test ends. It then has to come to rest with
// nothing open: no connection may have been lost or given back twice.
func start(t testing.TB, change ...func(*settings)) *rig {
	t.Helper()
	l, err := sock.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: l.Addr().String()}
	c := settings{addr: netip.MustParseAddrPort(r.addr), pool: pool.Config{
		IdleTimeout: time.Minute, MaxIdlePerHost: 1024, MaxPendingPerHost: 1024,
		PendingTimeout: patience, DialTimeout: patience, DeadTimeout: patience,
	}}
	c.ruled(proxy.EgressConfig{})
	c.proxy.LogAll, c.proxy.Log, c.proxy.Fault = true, r.log, r.fault
	trusting(&c)
	for _, f := range change {
		f(&c)
	}
	if r.pool, err = pool.New(c.pool); err != nil {
		t.Fatal(err)
	}
	c.proxy.Upstreams = r.pool
	if r.proxy, err = proxy.New(c.proxy); err != nil {
		t.Fatal(err)
	}
	r.served = make(chan error, 1)
	go func() { r.served <- r.proxy.Serve(l, proxy.Lane{}) }()
	t.Cleanup(r.stop)
	return r
}

// stop closes everything, once, and checks that nothing was lost.
func (r *rig) stop() { r.stopped.Do(r.close) }

func (r *rig) close() {
	if err := r.proxy.Close(); err != nil {
		r.t.Errorf("Proxy.Close: %v", err)
	}
	if err := <-r.served; !errors.Is(err, proxy.ErrClosed) {
		r.t.Errorf("Serve: %v", err)
	}
	if err := r.pool.Close(); err != nil {
		r.t.Errorf("Pool.Close: %v", err)
	}
	for _, o := range r.pool.Snapshot().Origins {
		if o.InUse != 0 || o.Idle != 0 || o.Waiting != 0 {
			r.t.Errorf("at rest %s has %d connections in use, %d idle, %d waiting", o.Origin, o.InUse, o.Idle, o.Waiting)
		}
	}
	if s := r.proxy.Stats(); s.Clients != 0 || s.InFlight != 0 || s.Tunnels != 0 {
		r.t.Errorf("at rest there are %d clients, %d exchanges, %d tunnels", s.Clients, s.InFlight, s.Tunnels)
	}
	if len(r.faults) > 0 {
		r.t.Errorf("faults: %q", r.faults)
	}
}

func (r *rig) log(rec *proxy.Record) {
	if spoken("connect") && rec.Status == 200 && (rec.Method == "CONNECT" || rec.Path == "*") {
		return // the way there
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, *rec)
}

func (r *rig) fault(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf("%s: %v", what, err))
}

// logged waits for the n-th record (from 1) and returns it.
func (r *rig) logged(n int) proxy.Record {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d exchanges are logged", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.records) >= n
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records[n-1]
}

// stats returns the pool's figures for an origin.
func (r *rig) stats(o *origin) pool.Stats {
	for _, s := range r.pool.Snapshot().Origins {
		if strings.HasSuffix(s.Origin, "//"+o.addr) {
			return s.Stats
		}
	}
	return pool.Stats{}
}

// free waits until no connection to o is in use.
func (r *rig) free(o *origin) {
	r.t.Helper()
	eventually(r.t, "no upstream connection is in use", func() bool { return r.stats(o).InUse == 0 })
}

// closedFor waits until the pool has closed a connection to o for a reason.
func (r *rig) closedFor(o *origin, reason pool.Reason) {
	r.t.Helper()
	eventually(r.t, "a connection was closed: "+string(reason), func() bool { return r.stats(o).Closed[reason] > 0 })
}

// idle waits until there are n idle connections to o.
func (r *rig) idle(o *origin, n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d connections are idle", n), func() bool { return r.stats(o).Idle == n })
}

// client connects to the proxy.
func (r *rig) client() *wire {
	r.t.Helper()
	return dial(r.t, r.addr)
}

func dial(t testing.TB, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &wire{t: t, name: "client", Conn: c}
}

// origin is an upstream: it accepts connections, and the test does the rest.
type origin struct {
	t        testing.TB
	addr     string
	conns    chan net.Conn
	accepted atomic.Int64
}

// newOrigin listens on a port of its own.
func newOrigin(t testing.TB) *origin {
	t.Helper()
	return newOriginAt(t, "127.0.0.1:0")
}

func newOriginAt(t testing.TB, address string) *origin {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{t: t, addr: l.Addr().String(), conns: make(chan net.Conn, 4096)}
	done := make(chan struct{})
	go func() {
		var bridges sync.WaitGroup
		defer close(done)
		defer bridges.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if spoken("h2") {
				bridges.Go(func() { o.speakH2(c) })
				continue
			}
			o.accepted.Add(1)
			if c = answering(c); c != nil {
				o.conns <- c
			}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		close(o.conns)
		for c := range o.conns {
			_ = c.Close()
		}
	})
	return o
}

// accept waits for the next connection.
func (o *origin) accept() *wire {
	o.t.Helper()
	select {
	case c := <-o.conns:
		o.t.Cleanup(func() { _ = c.Close() })
		return &wire{t: o.t, name: "upstream", Conn: c}
	case <-time.After(patience):
		o.t.Fatal("no connection to the upstream")
		return nil
	}
}

// handle lets f play the upstream on every connection, each on a goroutine,
// until the test ends.
func (o *origin) handle(f func(*wire)) {
	var work sync.WaitGroup
	done := make(chan struct{})
	work.Go(func() {
		for {
			select {
			case c := <-o.conns:
				work.Go(func() {
					defer c.Close()
					stop := context.AfterFunc(o.t.Context(), func() { _ = c.Close() })
					defer stop()
					f(&wire{t: o.t, name: "upstream", Conn: c})
				})
			case <-done:
				return
			}
		}
	})
	o.t.Cleanup(func() {
		close(done)
		work.Wait()
	})
}

// served checks how many connections were made.
func (o *origin) served(want int64) {
	o.t.Helper()
	if want == 0 && spoken("connect") {
		o.untouched()
		return
	}
	if n := o.accepted.Load(); n != want {
		o.t.Errorf("the upstream got %d connections, want %d", n, want)
	}
}

// get is a plain GET of path at this origin.
func (o *origin) get(path string) string { return o.request("GET", path, "") }

// request is a request with further header lines; a body may follow them.
func (o *origin) request(method, path, more string) string {
	if !strings.Contains(more, "\r\n\r\n") {
		more += "\r\n"
	}
	return method + " " + scheme() + "://" + o.addr + path + " HTTP/1.1\r\nHost: " + o.addr + "\r\n" + more
}

// forwarded is how request arrives.
func (o *origin) forwarded(method, path, more string) string {
	return strings.Replace(o.request(method, path, more), scheme()+"://"+o.addr, "", 1)
}

// ok is an answer that leaves the connection open.
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// answer is a 200 with this body.
func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// exchange has a client do one GET with an upstream that is played here, on
// the connection up, or a new one if it is nil; it is returned.
func (o *origin) exchange(c, up *wire) *wire {
	o.t.Helper()
	c.send(o.get("/first"))
	if up == nil {
		up = o.accept()
	}
	up.want(o.forwarded("GET", "/first", ""))
	up.send(ok)
	c.want(ok)
	return up
}

// wire is one end of a connection that is played by hand.
type wire struct {
	t testing.TB
	net.Conn
	name    string
	in      []byte // read and not used yet
	scratch []byte
	hole    hole // of a client
}

// send writes bytes.
func (w *wire) send(s string) {
	w.t.Helper()
	if err := w.trySend(s); err != nil {
		w.t.Fatalf("%s: sending: %v", w.name, err)
	}
}

func (w *wire) trySend(s string) error {
	if w.name == "client" {
		s = w.hole.sends(translated(s))
	}
	_ = w.SetWriteDeadline(time.Now().Add(patience))
	_, err := w.Write([]byte(s))
	return err
}

func (w *wire) fill() error {
	if w.scratch == nil {
		w.scratch = make([]byte, 64<<10)
	}
	_ = w.SetReadDeadline(time.Now().Add(patience))
	n, err := w.Read(w.scratch)
	w.in = append(w.in, w.hole.gets(w.scratch[:n])...)
	return err
}

// want reads exactly these bytes.
func (w *wire) want(s string) {
	w.t.Helper()
	for len(w.in) < len(s) && begins(s, string(w.in)) {
		if err := w.fill(); err != nil {
			w.t.Fatalf("%s: after %q: %v; want %q", w.name, w.in, err, s)
		}
	}
	if !begins(string(w.in), s) {
		w.t.Fatalf("%s got  %q\nwant %q", w.name, w.in, s)
	}
	w.in = w.in[len(s):]
}

// begins reports whether s begins with what was wanted. Letter case gets lost in
// HTTP/2.
func begins(s, with string) bool {
	if spoken("h2") {
		return len(s) >= len(with) && strings.EqualFold(s[:len(with)], with)
	}
	return strings.HasPrefix(s, with)
}

// until reads up to and including mark.
func (w *wire) until(mark string) string {
	w.t.Helper()
	for {
		if i := bytes.Index(w.in, []byte(mark)); i >= 0 {
			i += len(mark)
			s := string(w.in[:i])
			w.in = w.in[i:]
			return s
		}
		if err := w.fill(); err != nil {
			w.t.Fatalf("%s: after %q: %v; want something up to %q", w.name, w.in, err, mark)
		}
	}
}

// head reads a message head.
func (w *wire) head() string {
	w.t.Helper()
	return w.until("\r\n\r\n")
}

// take reads n bytes.
func (w *wire) take(n int) string {
	w.t.Helper()
	for len(w.in) < n {
		if err := w.fill(); err != nil {
			w.t.Fatalf("%s: after %d of %d bytes: %v", w.name, len(w.in), n, err)
		}
	}
	s := string(w.in[:n])
	w.in = w.in[n:]
	return s
}

// rest reads to the end, which may be a reset.
func (w *wire) rest() (string, error) {
	for {
		if err := w.fill(); err != nil {
			s := string(w.in)
			w.in = nil
			if err == io.EOF {
				err = nil
			}
			return s, err
		}
	}
}

// end checks that the peer has ended the stream, orderly, with nothing before.
func (w *wire) end() {
	w.t.Helper()
	if s, err := w.rest(); s != "" || err != nil {
		w.t.Fatalf("%s got %q, %v, want the end", w.name, s, err)
	}
}

// cut checks that the peer is gone, be it by a reset, with nothing before.
func (w *wire) cut() {
	w.t.Helper()
	s, err := w.rest()
	if s != "" || errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("%s got %q, %v, want the end or a reset", w.name, s, err)
	}
}

// reset closes so that the peer sees a reset.
func (w *wire) reset() {
	if l, ok := w.Conn.(*lane2); ok {
		_ = l.Close()
		return
	}
	c := tcp(w.Conn)
	_ = c.SetLinger(0)
	_ = c.Close()
}

// shut ends the sending direction.
func (w *wire) shut() {
	w.t.Helper()
	if err := w.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
}

// reply reads one whole message whose body has a Content-Length or none.
func (w *wire) reply() (status int, head, body string) {
	w.t.Helper()
	head = w.head()
	fmt.Sscanf(head, "HTTP/1.1 %d ", &status)
	n, _ := strconv.Atoi(field(head, "Content-Length"))
	return status, head, w.take(n)
}

// problem reads an answer that the proxy makes itself.
func (w *wire) problem(want ...int) (head, body string) {
	w.t.Helper()
	status, head, body := w.reply()
	if !slices.Contains(want, status) {
		w.t.Fatalf("status %d, want %v: %q %q", status, want, head, body)
	}
	if !strings.HasPrefix(field(head, "Proxy-Status"), "carpool; error=") {
		w.t.Errorf("no Proxy-Status: %q", head)
	}
	if !strings.HasPrefix(body, "carpool: ") || strings.Count(body, "\n") != 1 {
		w.t.Errorf("the body is not one line of text: %q", body)
	}
	return head, body
}

// refused reads an answer that the proxy makes itself, and the end behind it.
func (w *wire) refused(want ...int) (body string) {
	w.t.Helper()
	head, body := w.problem(want...)
	if field(head, "Connection") != "close" {
		w.t.Errorf("the refusal does not say that the connection closes: %q", head)
	}
	w.end()
	return body
}

// field returns the value of a header field, "" if there is none.
func field(head, name string) string {
	for _, line := range strings.Split(head, "\r\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// isReset reports whether a connection ended by a reset.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
