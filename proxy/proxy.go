// Package proxy is the half of carpool that the app talks to: it accepts
// connections, reads requests, finds out where they go and whether they may,
// borrows an upstream connection for each and relays both ways. See doc.go for
// what it holds itself to.
package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// Config is what a Proxy is held to. The zero value of a time is no limit.
type Config struct {
	// Upstreams lends connections. It must not be nil.
	Upstreams Upstreams
	// ClientHeaderTimeout bounds a request head from its first byte to its end.
	ClientHeaderTimeout time.Duration
	// ClientIdleTimeout bounds the silence between requests.
	ClientIdleTimeout time.Duration
	// ResponseHeaderTimeout bounds the wait for a response head, from the end of
	// the request.
	ResponseHeaderTimeout time.Duration
	// BodyIdleTimeout bounds the silence inside a body, in either direction.
	BodyIdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request or a response; 0 is 64 KiB.
	MaxHeaderBytes int
	// MaxClients bounds the client connections open at a time; 0 is no limit.
	MaxClients int
	// Via is whether messages carry a Via field (RFC 9110 section 7.6.3).
	Via bool
	// RetryIdempotencyKey extends the retry rule to requests of any method that
	// carry an Idempotency-Key.
	RetryIdempotencyKey bool
	// ConnectPorts are the ports CONNECT may ask for; nil is any.
	ConnectPorts []uint16
	// Log, if not nil, is told of exchanges; of all of them if LogAll is set,
	// or else of those that failed.
	Log    func(*Record)
	LogAll bool
	// Fault, if not nil, is told of what should not happen: a panic, a failing
	// accept.
	Fault func(what string, err error)
}

// Upstreams is what the proxy needs of a pool.Pool.
type Upstreams interface {
	Origin(tls bool, host []byte, port uint16) *pool.Origin
	Dial(ctx context.Context, host string, port uint16) (conn *sock.Conn, closed func(), err error)
	EvictIdle() bool
}

// Proxy serves clients. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	start   time.Time
	connect *goproxy.ProxyHttpServer

	draining atomic.Bool
	inFlight atomic.Int64 // exchanges
	tunnels  atomic.Int64
	retries  atomic.Uint64
	refused  atomic.Uint64
	panics   atomic.Uint64

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // sessions, accept loops, the sweeper

	// mu guards the lists. A session's mutex may be taken while it is held, never
	// the other way round; it is never held across I/O.
	mu        sync.Mutex
	sessions  *session // the first of a doubly linked list
	clients   int
	accepted  uint64
	listeners map[*sock.Listener]struct{}
}

// Stats are a Proxy's figures.
type Stats struct {
	// Clients, InFlight and Tunnels are how many there are now.
	Clients, InFlight, Tunnels int
	// Accepted counts client connections, Refused requests that were malformed or
	// not allowed, Retries requests sent a second time, Panics contained faults.
	Accepted, Refused, Retries, Panics uint64
}

const defaultMaxHeaderBytes = 64 << 10

// New returns a Proxy.
func New(cfg Config) *Proxy {
	if cfg.MaxHeaderBytes == 0 {
		cfg.MaxHeaderBytes = defaultMaxHeaderBytes
	}
	if cfg.Fault == nil {
		cfg.Fault = func(string, error) {}
	}
	p := &Proxy{cfg: cfg, start: time.Now(), listeners: map[*sock.Listener]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.connect = newConnectLane(p)
	p.work.Add(1)
	go p.sweep()
	return p
}

// ErrClosed is returned by Serve after Close.
var ErrClosed = errors.New("proxy: closed")

// Serve accepts connections on l until Close, which closes l.
func (p *Proxy) Serve(l *sock.Listener) error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		_ = l.Close()
		return ErrClosed
	}
	p.listeners[l] = struct{}{}
	p.work.Add(1)
	p.mu.Unlock()
	defer p.work.Done()
	s := p.newSession()
	for {
		if p.full() && !p.makeRoom() {
			p.pause()
			continue
		}
		err := l.Accept(&s.conn)
		switch {
		case err == nil:
			p.add(s)
			go s.serve()
			s = p.newSession()
		case p.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return ErrClosed
		case sock.Exhausted(err) && p.makeRoom():
		default:
			p.cfg.Fault("accept", err)
			p.pause()
		}
	}
}

// pause waits a moment for what is short to come free.
func (p *Proxy) pause() {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

func (p *Proxy) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg.MaxClients > 0 && p.clients >= p.cfg.MaxClients
}

// makeRoom closes what is idle when descriptors are short: an upstream
// connection, or else the client that has been idle longest.
func (p *Proxy) makeRoom() bool {
	return p.cfg.Upstreams.EvictIdle() || p.evictIdleClient()
}

func (p *Proxy) evictIdleClient() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest *session
	var since time.Duration
	for s := p.sessions; s != nil; s = s.next {
		if t, idle := s.idleSince(); idle && (oldest == nil || t < since) {
			oldest, since = s, t
		}
	}
	return oldest != nil && oldest.evict()
}

// now is the proxy's clock: time since it began, which no clock step changes.
func (p *Proxy) now() time.Duration { return time.Since(p.start) }

func (p *Proxy) add(s *session) {
	p.work.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.next = p.sessions; s.next != nil {
		s.next.prev = s
	}
	p.sessions = s
	p.clients++
	p.accepted++
}

func (p *Proxy) remove(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		p.sessions = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
	p.clients--
}

// Stats returns the figures as they are now.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Clients: p.clients, InFlight: int(p.inFlight.Load()), Tunnels: int(p.tunnels.Load()),
		Accepted: p.accepted, Refused: p.refused.Load(), Retries: p.retries.Load(), Panics: p.panics.Load(),
	}
}

// Drain makes every answer from now on the last of its connection. Everything
// is served as before.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Busy reports whether a request or a tunnel is open.
func (p *Proxy) Busy() bool { return p.inFlight.Load()+p.tunnels.Load() > 0 }

// Close stops listening, cuts off what is open, and waits for it to end.
func (p *Proxy) Close() error {
	p.cancel()
	p.mu.Lock()
	for l := range p.listeners {
		_ = l.Close()
	}
	p.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		p.work.Wait()
		close(ended)
	}()
	// A session may be just about to wait for something, so one cut is not enough.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		p.cutAll()
		select {
		case <-ended:
			return nil
		case <-tick.C:
		}
	}
}

func (p *Proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.sessions; s != nil; s = s.next {
		s.cut()
	}
}

// sweepPeriod is how often exchanges are looked over for clients that have
// gone. An exchange is looked at from its second sweep on, so fast ones are
// never.
const sweepPeriod = 500 * time.Millisecond

// sweep looks whether the clients of exchanges under way are still there:
// nobody reads from them while their upstream thinks.
func (p *Proxy) sweep() {
	defer p.work.Done()
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	var list []*session
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		if p.inFlight.Load() == 0 {
			continue
		}
		p.mu.Lock()
		for s := p.sessions; s != nil; s = s.next {
			list = append(list, s)
		}
		p.mu.Unlock()
		for i, s := range list { // one that has ended meanwhile is not in an exchange
			s.lookAfter()
			list[i] = nil
		}
		list = list[:0]
	}
}
