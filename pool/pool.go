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
//
// An origin has endpoints, one for each address of its name. A request takes an idle
// connection on the less loaded of two (pick.go, load.go) of those that this instance
// uses, which are as few as the rate keeps warm (roster.go, balance.go, rank.go). One
// that fails sits on the bench (bench.go), and one that the name has lost is left
// (moved.go). A dial goes where the fewest connections lead (order.go). Some wait for tunnels
// (sparetunnel.go).
package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/histogram"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool/names"
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
	// Reuse has requests use the connection that was used last, wherever it leads, and
	// dials try a name's addresses in the order of the answer. Else they are spread
	// over as many addresses, and behind one over as many connections in turn, as
	// their rate keeps warm.
	Reuse bool
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
	// SpareTunnels is how many connections wait, at most, for the next tunnel to an
	// origin (see Origin.ExpectTunnel); 0 lets none wait.
	SpareTunnels int
	// DNSTimeout, DNSMinTTL, DNSMaxTTL and DNSStale say how addresses of names are
	// found and remembered (see names.Config).
	DNSTimeout, DNSMinTTL, DNSMaxTTL, DNSStale time.Duration
	// ResolvConf is the file that names the name servers; "" is the system's.
	ResolvConf string
	// DNSNote, if not nil, is told of names whose old addresses are used because the
	// name servers fail. It may be called from any goroutine.
	DNSNote func(names.Note)
	// DNSAsked, if not nil, is told of each question to a name server, as
	// names.Config.Asked is.
	DNSAsked func(names.Asked)
	// DialTimeout bounds connecting and the TLS handshake together; more than 0.
	DialTimeout time.Duration
	// DeadTimeout is after how long a peer that answers nothing at all, not even
	// keep-alive probes, is given up.
	DeadTimeout time.Duration
	// NoReuse, if not nil, says of which origins no connection is kept after an
	// exchange. It is asked once for each origin, and may be called from any
	// goroutine.
	NoReuse func(Key) bool
	// CheckWarm, if not nil, says whether connections may be kept open to an origin
	// that no request has asked for. It may be called from any goroutine.
	CheckWarm func(Key) error
	// HTTP2 has https origins spoken to in HTTP/2 where they can.
	HTTP2 bool
	// H2C, if not nil, says which http origins are spoken to in HTTP/2 without asking
	// them. It is asked once for each origin, and may be called from any goroutine.
	H2C func(Key) bool
	// MaxHeader bounds a head that is received in HTTP/2; 0 is 64 KiB.
	MaxHeader int
	// RootCAs verify https origins; nil means the system's.
	RootCAs *x509.CertPool
	// Certificate, if not nil, is shown to those https origins that ask for one and of
	// which ShowTo says so. ShowTo may be called from any goroutine, and always says
	// the same of an origin; nil is of none.
	Certificate *tls.Certificate
	ShowTo      func(Key) bool
	// CheckAddr, if not nil, says whether an address may be connected to. It is
	// asked with the very address that is dialled.
	CheckAddr func(netip.AddrPort) error
	// Hop, if not nil, is the next proxy on the way to the origins whose Way says so.
	// Where it is stays the same; what its Connect does may change.
	Hop *Hop
	// Resolver, if not nil, finds the addresses of names instead of the system's name
	// servers.
	Resolver names.Resolver
	// Identity tells this instance from others, a pod's name, say: each uses other
	// addresses of an origin first, so that all of them together use all. It is the
	// same for all with the same Identity.
	Identity string
	// Fault, if not nil, is told of what should not happen: a panic, which costs
	// one connection.
	Fault func(what string, err error)
}

// Key says which connections can stand in for one another.
type Key struct {
	// TLS is whether the origin is spoken to in TLS, verified for Host.
	TLS bool
	// Host is a name in lower case, or an IP address without brackets.
	Host string
	Port uint16
	// Way is how connections get there.
	Way Way
}

// String returns the origin as scheme://host:port, after "next hop " if it is that.
func (k Key) String() string {
	s := "http://"
	if k.TLS {
		s = "https://"
	}
	if k.Way == ToHop {
		s = "next hop " + s
	}
	return s + k.Authority()
}

// Authority returns host:port.
func (k Key) Authority() string { return net.JoinHostPort(k.Host, strconv.Itoa(int(k.Port))) }

// Lookup is a Key as it is found in a request: its host is bytes, which are not
// kept.
type Lookup struct {
	TLS  bool
	Host []byte
	Port uint16
	Way  Way
}

// Lookup returns what finds the origin.
func (k Key) Lookup() Lookup { return Lookup{k.TLS, []byte(k.Host), k.Port, k.Way} }

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
	names   *names.Names
	hopTLS  *tls.Config   // nil if the next hop is not spoken to in TLS, or there is none
	suspect func(*Origin) // asks for an origin's addresses again
	panics  atomic.Uint64
	spares  atomic.Int64  // spare tunnels, of all origins, and dials for them
	tick    *time.Ticker  // the janitor's
	tended  atomic.Int64  // when the janitor last turned, by now
	ended   atomic.Uint64 // see Ended

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // the janitor and the dials

	// mu guards what is below. It is never held across I/O. An Origin's mutex may be
	// taken while it is held, never the other way round.
	mu      sync.Mutex
	known   known
	longest longest
	warmed  []*Origin // those kept warm
	budget  budget

	credentials credentials
	leases      map[uint64]*Lease // by id, for the watcher
	carriers    map[*carrier]struct{}
	lastID      uint64

	waits, dials histogram.Histogram
}

// New returns a Pool, which runs until Close.
func New(cfg Config) (*Pool, error) {
	p := &Pool{cfg: cfg, start: time.Now(), leases: map[uint64]*Lease{}, carriers: map[*carrier]struct{}{}}
	if cfg.MaxHeader == 0 {
		p.cfg.MaxHeader = 64 << 10
	}
	p.credentials = credentials{cfg.RootCAs, cfg.Certificate}
	p.known.most, p.known.byKey = maxOrigins, map[Key]*Origin{}
	p.budget.init(cfg.MaxConns)
	w, err := sock.NewWatcher(p.hungUp)
	if err != nil {
		return nil, err
	}
	p.watcher = w
	p.names = names.New(p.namesConfig())
	if cfg.Hop != nil {
		p.hopTLS = p.credentials.config(cfg.Hop.Key, cfg.ShowTo)
	}
	p.suspect = func(o *Origin) { o.name.Suspect() }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.work.Add(1)
	p.tick = time.NewTicker(janitorPeriod)
	go func() {
		defer p.work.Done()
		defer p.tick.Stop()
		p.keepUp("the janitor", p.janitor)
	}()
	return p, nil
}

// Close closes idle connections, fails what waits, and waits for the pool's
// goroutines. Connections in use are closed when they are given back.
func (p *Pool) Close() error {
	p.tick.Stop()
	p.cancel()
	for _, o := range p.all() {
		o.failWaiting(ErrClosed)
	}
	p.work.Wait()
	p.names.Close()
	for _, o := range p.all() {
		o.drop(func(*Lease) bool { return true }, Shutdown)
	}
	p.awaitShared()
	return p.watcher.Close()
}

// now is the pool's clock: time since it began, which no clock step changes.
func (p *Pool) now() time.Duration { return time.Since(p.start) }

// Origin returns the origin that is asked for. It does not allocate for one that
// it knows.
func (p *Pool) Origin(k Lookup) *Origin {
	p.mu.Lock()
	if o := p.known.byKey[Key{k.TLS, string(k.Host), k.Port, k.Way}]; o != nil {
		p.mu.Unlock()
		return o
	}
	shut := p.makeRoomLocked()
	o := newOrigin(p, Key{k.TLS, string(k.Host), k.Port, k.Way})
	p.known.add(o)
	p.mu.Unlock()
	for _, l := range shut {
		l.shut()
	}
	return o
}

// all returns the origins as they are now.
func (p *Pool) all() []*Origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allLocked()
}

func (p *Pool) allLocked() []*Origin {
	list := make([]*Origin, 0, len(p.known.byKey))
	for _, o := range p.known.byKey {
		list = append(list, o)
	}
	return list
}

// hungUp is told by the watcher that the peer of a connection has closed it.
func (p *Pool) hungUp(id uint64) {
	defer p.contain("the watcher")
	p.mu.Lock()
	l := p.leases[id]
	p.mu.Unlock()
	if l != nil {
		l.origin.hungUp(l)
	}
}

func (p *Pool) janitor() {
	var list []*Origin
	var carriers []*carrier
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.tick.C:
		}
		p.tended.Store(int64(p.now()))
		p.mu.Lock()
		list = append(list, p.longest...)
		p.mu.Unlock()
		for _, o := range list {
			p.look(o)
		}
		clear(list)
		list = list[:0]
		carriers = p.tendShared(carriers)
		p.tendWarm()
		p.mu.Lock()
		p.forgetLocked(lookedOver, originTTL)
		p.mu.Unlock()
		p.relieve() // by pinned ones that were midway as they became idle
	}
}

// look sees to the idle connections of an origin.
func (p *Pool) look(o *Origin) {
	o.tidy(p.now())
	p.mu.Lock()
	p.longest.refresh(o)
	p.mu.Unlock()
}

// EvictIdle closes the connection that has been idle longest, whatever its
// origin, and reports whether there was one. It is called when descriptors
// are short.
func (p *Pool) EvictIdle() bool {
	p.mu.Lock()
	l := p.longest.take()
	p.mu.Unlock()
	if l == nil {
		return false
	}
	l.close(Evicted)
	return true
}

// CloseIdle closes the connections that have been idle for so long, or longer,
// and returns how many they were. It is called when memory is short.
func (p *Pool) CloseIdle(idle time.Duration) (n int) {
	latest := p.now() - idle
	p.mu.Lock()
	origins := slices.Clone(p.longest)
	p.mu.Unlock()
	for _, o := range origins {
		n += o.drop(func(l *Lease) bool { return l.idleSince <= latest }, Evicted)
	}
	return n
}

// Lag returns how long ago the janitor has turned: a second or so, however slow
// upstreams are. Many seconds mean that the pool is stuck. It waits for nothing
// itself.
func (p *Pool) Lag() time.Duration { return p.now() - time.Duration(p.tended.Load()) }

// Ended returns how many connections the pool has closed, tunnels' included, or
// failed to open.
func (p *Pool) Ended() uint64 { return p.ended.Load() }

// enlist makes a new connection known to the watcher.
func (p *Pool) enlist(l *Lease) error {
	p.mu.Lock()
	p.lastID++
	l.id = p.lastID
	if l.carrier != nil { // it is read from all the time
		p.mu.Unlock()
		return nil
	}
	p.leases[l.id] = l
	p.mu.Unlock()
	return p.watcher.Add(l.conn, l.id)
}

func (p *Pool) delist(l *Lease) {
	p.mu.Lock()
	delete(p.leases, l.id)
	p.mu.Unlock()
}
