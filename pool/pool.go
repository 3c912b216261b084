// Package pool keeps upstream connections and lends them out, one exchange at
// a time. It knows origins, addresses and TLS, and nothing of what is said on a
// connection: who borrows one tells what was learned when giving it back.
//
// The life of a connection:
//
//	Origin.Acquire ──► in use ──► Lease.Release ──► idle ──► Origin.Acquire …
//	     │ dial                   Lease.Discard       │ hang-up, stray bytes,
//	     ▼                             ▼              ▼ too old, too many
//	  waiting                        closed         closed
package pool

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// Config is what a Pool is held to. The zero value of a limit is no limit,
// unless its comment says otherwise.
type Config struct {
	// IdleTimeout is how long a connection may be idle and still be used again.
	IdleTimeout time.Duration
	// MaxAge is how old a connection may be when a request is put on it; each
	// connection's own bound is up to AgeJitter (0 to 1) of it less.
	MaxAge    time.Duration
	AgeJitter float64
	// MaxRequests is how many requests one connection carries.
	MaxRequests int
	// MaxIdlePerHost is how many idle connections an origin keeps; 0 keeps none.
	MaxIdlePerHost int
	// MaxConnsPerHost bounds the connections of an origin, idle or not.
	MaxConnsPerHost int
	// MaxConns bounds the connections of the pool. Idle ones make room.
	MaxConns int
	// MaxPendingPerHost bounds the requests that wait although no connection is
	// being opened for them; 0 lets none wait.
	MaxPendingPerHost int
	// PendingTimeout is how long such a request waits; more than 0.
	PendingTimeout time.Duration
	// DialTimeout bounds resolving, connecting and the TLS handshake together;
	// more than 0.
	DialTimeout time.Duration
	// DeadTimeout is after how long a peer that answers nothing at all, not even
	// keep-alive probes, is given up.
	DeadTimeout time.Duration
	// RootCAs verify https origins; nil means the system's.
	RootCAs *x509.CertPool
	// CheckAddr, if not nil, says whether an address may be connected to. It is
	// asked with the very address that is dialled.
	CheckAddr func(netip.AddrPort) error
	// Resolver finds the addresses of names; nil means net.DefaultResolver.
	Resolver Resolver
}

// Resolver is the part of net.Resolver that the pool needs.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Key says which connections can stand in for one another.
type Key struct {
	// TLS is whether the origin is spoken to in TLS, verified for Host.
	TLS bool
	// Host is a name in lower case, or an IP address without brackets.
	Host string
	Port uint16
}

// String returns the origin as scheme://host:port.
func (k Key) String() string {
	scheme := "http://"
	if k.TLS {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(k.Host, strconv.Itoa(int(k.Port)))
}

const (
	// maxOrigins is how many origins are kept before unused ones make room.
	maxOrigins = 4096
	// maxLabels is how many origins have statistics of their own.
	maxLabels = 200
	// originTTL is how long an origin without connections is remembered.
	originTTL = 10 * time.Minute
	// janitorPeriod is how often idle connections are looked over.
	janitorPeriod = time.Second
)

// Pool keeps connections by origin. It is safe for concurrent use.
type Pool struct {
	cfg     Config
	start   time.Time
	watcher *sock.Watcher
	slots   chan struct{} // one element for each connection open or being opened; nil for no bound
	starved atomic.Int32  // dials that wait for a slot
	tended  atomic.Int64  // when the janitor last turned, by now
	ended   atomic.Uint64 // see Ended

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // the janitor and the dials

	// mu guards the maps. It is never held across I/O. An Origin's mutex may be
	// taken while it is held, never the other way round.
	mu      sync.Mutex
	origins map[Key]*Origin
	leases  map[uint64]*Lease // by id, for the watcher
	lastID  uint64
	labels  int
	other   Stats // of unlabelled origins that are gone
	gone    Stats // of labelled ones

	waits, dials histogram
}

// New returns a Pool, which runs until Close.
func New(cfg Config) (*Pool, error) {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	p := &Pool{cfg: cfg, start: time.Now(), origins: map[Key]*Origin{}, leases: map[uint64]*Lease{}}
	if cfg.MaxConns > 0 {
		p.slots = make(chan struct{}, cfg.MaxConns)
	}
	w, err := sock.NewWatcher(p.hungUp)
	if err != nil {
		return nil, err
	}
	p.watcher = w
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.work.Add(1)
	go p.janitor()
	return p, nil
}

// Close closes idle connections, fails what waits, and waits for the pool's
// goroutines. Connections in use are closed when they are given back.
func (p *Pool) Close() error {
	p.cancel()
	for _, o := range p.all() {
		o.failWaiting(ErrClosed)
	}
	p.work.Wait()
	for _, o := range p.all() {
		o.drop(func(*Lease) bool { return true }, Shutdown)
	}
	return p.watcher.Close()
}

// now is the pool's clock: time since it began, which no clock step changes.
func (p *Pool) now() time.Duration { return time.Since(p.start) }

// Origin returns the origin for a key whose host is given as bytes, which it
// does not keep. It does not allocate for an origin that it knows.
func (p *Pool) Origin(tls bool, host []byte, port uint16) *Origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.origins[Key{tls, string(host), port}]; o != nil {
		return o
	}
	if len(p.origins) >= maxOrigins {
		p.forgetLocked(0)
	}
	o := newOrigin(p, Key{tls, string(host), port})
	if p.labels < maxLabels {
		p.labels++
		o.label = o.key.String()
	}
	p.origins[o.key] = o
	return o
}

// all returns the origins as they are now.
func (p *Pool) all() []*Origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allLocked()
}

func (p *Pool) allLocked() []*Origin {
	list := make([]*Origin, 0, len(p.origins))
	for _, o := range p.origins {
		list = append(list, o)
	}
	return list
}

// forgetLocked removes the origins that have had no use for so long.
func (p *Pool) forgetLocked(unused time.Duration) {
	now := p.now()
	for k, o := range p.origins {
		if !o.retire(now - unused) {
			continue
		}
		delete(p.origins, k)
		t, _ := o.snapshot()
		if o.label != "" {
			p.labels--
			p.gone.add(&t)
		} else {
			p.other.add(&t)
		}
	}
}

// hungUp is told by the watcher that the peer of a connection has closed it.
func (p *Pool) hungUp(id uint64) {
	p.mu.Lock()
	l := p.leases[id]
	p.mu.Unlock()
	if l != nil {
		l.origin.hungUp(l)
	}
}

func (p *Pool) janitor() {
	defer p.work.Done()
	tick := time.NewTicker(janitorPeriod)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		now := p.now()
		p.tended.Store(int64(now))
		for _, o := range p.all() {
			o.tidy(now)
		}
		p.mu.Lock()
		p.forgetLocked(originTTL)
		p.mu.Unlock()
	}
}

// EvictIdle closes the connection that has been idle longest, whatever its
// origin, and reports whether there was one. It is called when descriptors
// are short.
func (p *Pool) EvictIdle() bool {
	for {
		var oldest *Origin
		since := time.Duration(1<<63 - 1)
		for _, o := range p.all() {
			if t, ok := o.idleSince(); ok && t < since {
				oldest, since = o, t
			}
		}
		if oldest == nil {
			return false
		}
		done := false
		if oldest.drop(func(*Lease) bool {
			first := !done
			done = true
			return first
		}, Evicted) > 0 {
			return true
		} // else somebody has just taken it: look again
	}
}

// CloseIdle closes the connections that have been idle for so long, or longer,
// and returns how many they were. It is called when memory is short.
func (p *Pool) CloseIdle(idle time.Duration) (n int) {
	latest := p.now() - idle
	for _, o := range p.all() {
		n += o.drop(func(l *Lease) bool { return l.idleSince <= latest }, Evicted)
	}
	return n
}

// Lag returns how long ago the janitor has turned: a second or so, however slow
// upstreams are. Many seconds mean that the pool is stuck. It waits for nothing
// itself.
func (p *Pool) Lag() time.Duration { return p.now() - time.Duration(p.tended.Load()) }

// reserve takes a slot for a connection to be opened; idle connections make
// room for it.
func (p *Pool) reserve(ctx context.Context) error {
	if p.slots == nil {
		return nil
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	// While somebody is starved, connections that come back are not kept: that
	// comes first, or one could become idle unseen between the look and the wait.
	p.starved.Add(1)
	defer p.starved.Add(-1)
	for p.EvictIdle() {
		select {
		case p.slots <- struct{}{}:
			return nil
		default:
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.PendingTimeout)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ErrBudget
	}
}

// Ended returns how many connections the pool has closed, tunnels' included, or
// failed to open.
func (p *Pool) Ended() uint64 { return p.ended.Load() }

func (p *Pool) unreserve() {
	p.ended.Add(1)
	if p.slots != nil {
		<-p.slots
	}
}

// enlist makes a new connection known to the watcher.
func (p *Pool) enlist(l *Lease) error {
	p.mu.Lock()
	p.lastID++
	l.id = p.lastID
	p.leases[l.id] = l
	p.mu.Unlock()
	return p.watcher.Add(l.conn, l.id)
}

func (p *Pool) delist(l *Lease) {
	p.mu.Lock()
	delete(p.leases, l.id)
	p.mu.Unlock()
}
