package proxy

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/histogram"
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
	// TunnelIdleTimeout bounds the silence in one that is open both ways.
	TunnelIdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request or a response; 0 is 64 KiB.
	MaxHeaderBytes int
	// MaxClients bounds the client connections open at a time; 0 is no limit.
	MaxClients int
	// Via is whether messages carry a Via field (RFC 9110 section 7.6.3).
	Via bool
	// RetryIdempotencyKey extends the retry rule to requests of any method that
	// carry an Idempotency-Key.
	RetryIdempotencyKey bool
	// ConnectTunnelPorts are the ports to which a CONNECT is always a tunnel: what
	// is said in it is not looked at. nil is none.
	ConnectTunnelPorts []uint16
	// Egress says which hosts and ports may be asked for; nil has no rule on them.
	// Its CheckAddr is for the pool.
	Egress *Egress
	// Originate says which origins are spoken to in TLS that requests name in plain
	// HTTP.
	Originate Originate
	// Hop, if not nil, is the next proxy on the way out. Upstreams has its Hop.Pool.
	Hop *Hop
	// Admit, if not nil, says whether there is memory for one more exchange or
	// tunnel, with which so many are open. It is asked for every one.
	Admit func(open int64) bool
	// Log, if not nil, is told of exchanges; of all of them if LogAll is set,
	// or else of those that failed.
	Log    func(*Record)
	LogAll bool
	// ServerTiming gives answers to requests that were carried a Server-Timing field,
	// which says where the time went before them.
	ServerTiming bool
	// Fault, if not nil, is told of what should not happen: a panic, a failing
	// accept.
	Fault func(what string, err error)
}

// Upstreams is what the proxy needs of a pool.Pool.
type Upstreams interface {
	Origin(pool.Lookup) *pool.Origin
	EvictIdle() bool
}

// Proxy serves clients. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	start   time.Time
	decider decider

	draining atomic.Bool
	inFlight atomic.Int64 // exchanges
	tunnels  atomic.Int64
	retries  atomic.Uint64
	refused  atomic.Uint64
	panics   atomic.Uint64
	errors   [errorKinds]atomic.Uint64 // answers of carpool's own
	timings  timings

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // sessions, accept loops, the sweeper

	roster roster
	swept  atomic.Int64 // when the sweeper last turned, by now

	mu    sync.Mutex // guards changes of loops
	loops atomic.Pointer[[]*acceptLoop]
}

// acceptLoop is one Serve.
type acceptLoop struct {
	listener *sock.Listener
	lane     Lane
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
	// Durations is how long the exchanges took that asked for an upstream connection,
	// and Phases where that time went: of each Phase those that it took part in. What
	// became a tunnel is in neither.
	Durations histogram.Snapshot
	Phases    [NumPhases]histogram.Snapshot
	// Rules are the figures of Config.Egress.
	Rules []RuleStats
	// HopErrors counts what kept Config.Hop from being used, by error type of RFC 9209;
	// nil without one. Those that did not occur are not in it.
	HopErrors map[string]uint64
	// MaxClients is the limit on client connections; 0 is none.
	MaxClients int
	// Lanes are the figures of those that lead to one origin (LaneTo), in the order in
	// which their listeners came.
	Lanes []LaneStats
}

// LaneStats are the figures of a lane to one origin.
type LaneStats struct {
	// Port is that of the lane's first listener.
	Port uint16
	// Origin is where it leads, as scheme://host:port.
	Origin string
	// Requests counts those that went on to the origin.
	Requests uint64
}

const defaultMaxHeaderBytes = 64 << 10

// New returns a Proxy, which runs until Close.
func New(cfg Config) (*Proxy, error) {
	if cfg.MaxHeaderBytes == 0 {
		cfg.MaxHeaderBytes = defaultMaxHeaderBytes
	}
	if cfg.Egress == nil {
		cfg.Egress = NewEgress(EgressConfig{})
	}
	if cfg.Fault == nil {
		cfg.Fault = func(string, error) {}
	}
	p := &Proxy{
		cfg: cfg, start: time.Now(),
		roster: roster{most: cfg.MaxClients, asleep: map[uint64]*reins{}, dozing: map[uint64]*way{}},
	}
	p.loops.Store(new([]*acceptLoop))
	w, err := sock.NewWatcher(p.wake)
	if err != nil {
		return nil, err
	}
	p.roster.watcher = w
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.decider = newDecider(cfg.ConnectTunnelPorts)
	p.work.Add(1)
	go p.sweep()
	return p, nil
}

// ErrClosed is returned by Serve after Close.
var ErrClosed = errors.New("proxy: closed")

// Serve accepts connections on l until Close, which closes l. lane says how their
// requests name their origins.
func (p *Proxy) Serve(l *sock.Listener, lane Lane) error {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		_ = l.Close()
		return ErrClosed
	}
	loop := &acceptLoop{listener: l, lane: lane}
	loops := append(slices.Clone(*p.loops.Load()), loop)
	p.loops.Store(&loops)
	p.work.Add(1)
	p.mu.Unlock()
	defer p.work.Done()
	s := p.newSession(lane)
	var room relief
	for {
		loop.turned.Store(p.swept.Load())
		if p.roster.full() && !p.roster.evictIdlest() {
			p.pause()
			continue
		}
		loop.turned.Store(accepting)
		err := l.Accept(&s.client.conn)
		loop.turned.Store(p.swept.Load())
		switch {
		case err == nil:
			room.helped()
			p.work.Add(1)
			p.roster.join(&s.reins)
			go s.reins.run()
			s = p.newSession(lane)
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

// makeRoom closes what is idle when descriptors are short: an upstream
// connection, or else the client that has been idle longest.
func (p *Proxy) makeRoom() bool {
	return p.cfg.Upstreams.EvictIdle() || p.roster.evictIdlest()
}

// CloseIdle closes the client connections that have been without a request for
// so long, or longer, and returns how many they were.
func (p *Proxy) CloseIdle(idle time.Duration) (closed int) {
	latest := p.now() - idle
	for n := closeAtATime; n == closeAtATime; closed += n {
		n = p.roster.closeIdle(latest)
		runtime.Gosched() // let them go before others are woken for it
	}
	return closed
}

// closeAtATime bounds how many sleeping sessions are given a goroutine at once
// only to end: their stacks are memory too.
const closeAtATime = 256

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

// wake is told by the watcher that there is something to read for a session.
func (p *Proxy) wake(id uint64) {
	defer p.contain("the watcher")
	p.roster.wakeID(id)
}

// Stats returns the figures as they are now.
func (p *Proxy) Stats() Stats {
	kinds := make(map[string]uint64, errorKinds)
	for k := range errorKinds {
		if k.answered() {
			kinds[k.String()] = p.errors[k].Load()
		}
	}
	clients, accepted := p.roster.figures()
	return Stats{
		Clients: clients, InFlight: int(p.inFlight.Load()), Tunnels: int(p.tunnels.Load()),
		Accepted: accepted, Refused: p.refused.Load(), Retries: p.retries.Load(), Panics: p.panics.Load(),
		Errors: kinds, Durations: p.timings.whole.Snapshot(), Phases: p.timings.snapshot(),
		Rules: p.cfg.Egress.Stats(), HopErrors: p.cfg.Hop.errors(), MaxClients: p.cfg.MaxClients, Lanes: p.laneStats(),
	}
}

// laneStats returns the figures of the lanes to one origin.
func (p *Proxy) laneStats() (all []LaneStats) {
	told := map[*tally]bool{nil: true}
	for _, loop := range *p.loops.Load() {
		t := loop.lane.tally
		if told[t] {
			continue
		}
		told[t] = true
		port := loop.listener.Addr().(*net.TCPAddr).Port
		all = append(all, LaneStats{uint16(port), t.origin.String(), t.requests.Load()})
	}
	return all
}

// Drain makes every answer from now on the last of its connection. Everything
// is served as before.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Busy reports whether a request or a tunnel is open. A tunnel of which one side
// has ended, and in which nothing has moved for a few seconds, is none.
func (p *Proxy) Busy() bool {
	open := p.inFlight.Load() + p.tunnels.Load()
	return open > 0 && open > p.roster.quiet()
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
		p.roster.cutAll()
		select {
		case <-ended:
			return p.roster.watcher.Close()
		case <-tick.C:
		}
	}
}

// sweepPeriod is how often sessions are looked over. An exchange is looked at
// from its second sweep on, so fast ones are never; a session that is idle for
// so many sweeps goes to sleep. One sweep in so many looks whether the upstream of a
// tunnel acknowledges what it was sent: that costs a system call.
const (
	sweepPeriod   = 250 * time.Millisecond
	sweepsToSleep = 4
	sweepsToProbe = 8
)

// sweep looks whether the clients of exchanges under way are still there, for
// nobody reads from them while their upstream thinks; and it sends sessions
// that have been idle for a while to sleep.
func (p *Proxy) sweep() {
	defer p.work.Done()
	tick := time.NewTicker(sweepPeriod)
	defer tick.Stop()
	var list []*reins
	stacks := 0
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		p.swept.Store(int64(p.now()))
		stacks = p.roster.freeStacks(stacks)
		list = p.roster.appendAwake(list)
		for _, s := range list { // what has ended meanwhile is in no phase that matters
			p.lookAfter(s)
		}
		clear(list)
		list = list[:0]
	}
}

// lookAfter contains what one session may do to the sweeper.
func (p *Proxy) lookAfter(r *reins) {
	defer p.contain("the sweeper")
	if then := r.lookAfter(p.now(), &p.cfg); then != nil {
		then()
	}
}
