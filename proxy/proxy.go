package proxy

import (
	"context"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
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
	// TunnelHalfClosedTimeout bounds the silence in a tunnel or an upgraded
	// connection of which one side has ended.
	TunnelHalfClosedTimeout time.Duration
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
	// Admit, if not nil, says whether there is memory for one more exchange or
	// tunnel, with which so many are open. It is asked for every one.
	Admit func(open int64) bool
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
	Origin(pool.Lookup) *pool.Origin
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
	errors   [len(errorTypes)]atomic.Uint64 // answers of carpool's own, by type

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // sessions, accept loops, the sweeper

	watcher *sock.Watcher // wakes sessions that sleep
	swept   atomic.Int64  // when the sweeper last turned, by now
	loops   atomic.Pointer[[]*acceptLoop]

	// mu guards the lists. A session's mutex may be taken while it is held, never
	// the other way round; it is never held across I/O that can wait.
	mu       sync.Mutex
	sessions *session            // awake: the first of a doubly linked list
	asleep   map[uint64]*session // idle, without a goroutine
	lastID   uint64
	stacks   int // that sessions which fell asleep have left behind
	clients  int
	accepted uint64
}

// acceptLoop is one Serve.
type acceptLoop struct {
	listener *sock.Listener
	turned   atomic.Int64 // when it last turned, by the sweeper's clock; accepting while it waits for a client
}

const accepting = -1

// Stats are a Proxy's figures.
type Stats struct {
	// Clients, InFlight and Tunnels are how many there are now.
	Clients, InFlight, Tunnels int
	// Accepted counts client connections, Refused requests that were malformed or
	// not allowed, Retries requests sent a second time, Panics contained faults.
	Accepted, Refused, Retries, Panics uint64
	// Errors counts the answers that carpool made itself because something was
	// wrong, by error type of RFC 9209. Every type is in it.
	Errors map[string]uint64
	// MaxClients is the limit on client connections; 0 is none.
	MaxClients int
}

const defaultMaxHeaderBytes = 64 << 10

// New returns a Proxy, which runs until Close.
func New(cfg Config) (*Proxy, error) {
	if cfg.MaxHeaderBytes == 0 {
		cfg.MaxHeaderBytes = defaultMaxHeaderBytes
	}
	if cfg.Fault == nil {
		cfg.Fault = func(string, error) {}
	}
	p := &Proxy{
		cfg: cfg, start: time.Now(),
		asleep: map[uint64]*session{},
	}
	p.loops.Store(new([]*acceptLoop))
	w, err := sock.NewWatcher(p.wakeID)
	if err != nil {
		return nil, err
	}
	p.watcher = w
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.connect = newConnectLane(p)
	p.work.Add(1)
	go p.sweep()
	return p, nil
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
	loop := &acceptLoop{listener: l}
	loops := append(slices.Clone(*p.loops.Load()), loop)
	p.loops.Store(&loops)
	p.work.Add(1)
	p.mu.Unlock()
	defer p.work.Done()
	s := p.newSession()
	var room relief
	for {
		loop.turned.Store(p.swept.Load())
		if p.full() && !p.evictIdleClient() {
			p.pause()
			continue
		}
		loop.turned.Store(accepting)
		err := l.Accept(&s.conn)
		loop.turned.Store(p.swept.Load())
		switch {
		case err == nil:
			room.helped()
			p.add(s)
			go s.serve()
			s = p.newSession()
		case p.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return ErrClosed
		case sock.Exhausted(err) && room.due(p.now()) && p.makeRoom():
			runtime.Gosched() // a session closes its connection itself
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
	consider := func(s *session) {
		if t, idle := s.idleSince(); idle && (oldest == nil || t < since) {
			oldest, since = s, t
		}
	}
	for s := p.sessions; s != nil; s = s.next {
		consider(s)
	}
	for _, s := range p.asleep {
		consider(s)
	}
	return oldest != nil && p.evictLocked(oldest)
}

// CloseIdle closes the client connections that have been without a request for
// so long, or longer, and returns how many they were.
func (p *Proxy) CloseIdle(idle time.Duration) (closed int) {
	latest := p.now() - idle
	for n := closeAtATime; n == closeAtATime; closed += n {
		n = p.closeIdle(latest)
		runtime.Gosched() // let them go before others are woken for it
	}
	return closed
}

// closeAtATime bounds how many sleeping sessions are given a goroutine at once
// only to end: their stacks are memory too.
const closeAtATime = 256

// closeIdle closes some client connections that have been idle since then.
func (p *Proxy) closeIdle(latest time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := func(s *session) bool {
		since, idle := s.idleSince()
		return idle && since <= latest
	}
	for s := p.sessions; s != nil && n < closeAtATime; s = s.next {
		if old(s) && p.evictLocked(s) {
			n++
		}
	}
	for _, s := range p.asleep {
		if n == closeAtATime {
			break
		}
		if old(s) && p.evictLocked(s) {
			n++
		}
	}
	return n
}

// evictLocked ends an idle session.
func (p *Proxy) evictLocked(s *session) bool {
	if !s.evict() {
		return false
	}
	p.wakeLocked(s)
	return true
}

// admits reports whether there is memory for one more exchange or tunnel, which
// is counted already.
func (p *Proxy) admits() bool {
	return p.cfg.Admit == nil || p.cfg.Admit(p.inFlight.Load()+p.tunnels.Load())
}

// Lag returns how long ago the slowest of the loops that everything depends on
// has turned: a fraction of a second, however slow clients and upstreams are.
// Seconds mean that the proxy is stuck. It waits for nothing itself.
func (p *Proxy) Lag() time.Duration {
	oldest := p.swept.Load()
	for _, loop := range *p.loops.Load() {
		if t := loop.turned.Load(); t != accepting {
			oldest = min(oldest, t)
		}
	}
	return p.now() - time.Duration(oldest)
}

// now is the proxy's clock: time since it began, which no clock step changes.
func (p *Proxy) now() time.Duration { return time.Since(p.start) }

func (p *Proxy) add(s *session) {
	p.work.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linkLocked(s)
	p.clients++
	p.accepted++
}

func (p *Proxy) remove(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlinkLocked(s)
	p.clients--
}

func (p *Proxy) linkLocked(s *session) {
	if s.next = p.sessions; s.next != nil {
		s.next.prev = s
	}
	p.sessions = s
}

func (p *Proxy) unlinkLocked(s *session) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		p.sessions = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
}

// sleep lets an idle session wait without a goroutine: its stack is most of
// what an idle client costs. It is the last thing that goroutine does. If the
// session cannot be watched it goes on awake.
func (p *Proxy) sleep(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	s.id = p.lastID
	s.rest()
	if p.watcher.Arm(&s.conn, s.id) != nil {
		go s.serve()
		return
	}
	p.unlinkLocked(s)
	p.asleep[s.id] = s
	p.stacks++
}

// wakeID is told by the watcher that there is something to read for a session.
func (p *Proxy) wakeID(id uint64) {
	defer p.contain("the watcher")
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.asleep[id]; s != nil {
		p.wakeLocked(s)
	}
}

// wakeLocked gives a session that sleeps a goroutine again.
func (p *Proxy) wakeLocked(s *session) {
	if p.asleep[s.id] != s {
		return
	}
	delete(p.asleep, s.id)
	p.linkLocked(s)
	go s.serve()
}

// Stats returns the figures as they are now.
func (p *Proxy) Stats() Stats {
	kinds := make(map[string]uint64, len(errorTypes))
	for i, kind := range errorTypes {
		kinds[kind] = p.errors[i].Load()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		Clients: p.clients, InFlight: int(p.inFlight.Load()), Tunnels: int(p.tunnels.Load()),
		Accepted: p.accepted, Refused: p.refused.Load(), Retries: p.retries.Load(), Panics: p.panics.Load(),
		Errors: kinds, MaxClients: p.cfg.MaxClients,
	}
}

// Drain makes every answer from now on the last of its connection. Everything
// is served as before.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Busy reports whether a request or a tunnel is open. A tunnel of which one side
// has ended, and in which nothing has moved for a few seconds, is none.
func (p *Proxy) Busy() bool {
	open := p.inFlight.Load() + p.tunnels.Load()
	return open > 0 && open > p.quiet()
}

// quiet counts the tunnels that a drain need not wait for. All of them are in
// the counts that Busy has taken before, or have ended since.
func (p *Proxy) quiet() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.sessions; s != nil; s = s.next {
		if s.isQuiet() {
			n++
		}
	}
	return n
}

// Close stops listening, cuts off what is open, and waits for it to end.
func (p *Proxy) Close() error {
	p.cancel()
	p.mu.Lock()
	for _, loop := range *p.loops.Load() {
		_ = loop.listener.Close()
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
			return p.watcher.Close()
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
	for _, s := range p.asleep {
		s.cut()
		p.wakeLocked(s)
	}
}

// sweepPeriod is how often sessions are looked over. An exchange is looked at
// from its second sweep on, so fast ones are never; a session that is idle for
// so many sweeps goes to sleep.
const (
	sweepPeriod   = 250 * time.Millisecond
	sweepsToSleep = 4
)

// sweep looks whether the clients of exchanges under way are still there, for
// nobody reads from them while their upstream thinks; and it sends sessions
// that have been idle for a while to sleep.
func (p *Proxy) sweep() {
	defer p.work.Done()
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	var list []*session
	stacks := 0
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		p.swept.Store(int64(p.now()))
		stacks = p.freeStacks(stacks)
		p.mu.Lock()
		for s := p.sessions; s != nil; s = s.next {
			list = append(list, s)
		}
		p.mu.Unlock()
		for _, s := range list { // what has ended meanwhile is in no phase that matters
			p.lookAfter(s)
		}
		clear(list)
		list = list[:0]
	}
}

// lookAfter contains what one session may do to the sweeper.
func (p *Proxy) lookAfter(s *session) {
	defer p.contain("the sweeper")
	s.lookAfter()
}

// manyStacks is how many stacks are worth a garbage collection.
const manyStacks = 512

// freeStacks gives the memory of stacks back to the system when many sessions
// have fallen asleep and no more do. The runtime itself would keep it for
// minutes, for there is next to no garbage here that makes it collect. It
// takes how many stacks there were before, and returns how many there are now.
func (p *Proxy) freeStacks(before int) int {
	p.mu.Lock()
	now := p.stacks
	quiet := now >= manyStacks && now == before
	if quiet {
		p.stacks, now = 0, 0
	}
	p.mu.Unlock()
	if quiet {
		debug.FreeOSMemory()
	}
	return now
}
