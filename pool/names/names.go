package names

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

// Names are the names that are known. It is safe for concurrent use.
type Names struct {
	cfg      Config
	system   *system
	exchange func(ctx context.Context, server netip.AddrPort, q question, onlyTCP bool) (reply, error)
	source   func(netip.Addr) netip.Addr // see prefer
	health   health
	turn     atomic.Uint32 // for resolv.conf's rotate
	slots    chan struct{} // one for each look-up under way
	count    counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // look-ups and what they do

	// mu guards what is below, and each entry's handles. No other lock is taken
	// while it is held.
	mu       sync.Mutex
	closed   bool
	byHost   map[string]*entry
	released list.List[*entry] // those without handles, the one let go longest ago first
}

// counters are Stats in the making.
type counters struct {
	lookUps, saved, stale, failed, queries, spared atomic.Uint64
	staleNow                                       atomic.Int64
}

// Stats are the figures of all names together.
type Stats struct {
	// LookUps counts look-ups that were made, Failed those that ended without an
	// answer. That a name does not exist is one.
	LookUps, Failed uint64
	// Saved counts uses of an answer that was there, Stale those of one that was past
	// its time.
	Saved, Stale uint64
	// Queries counts queries sent, Spared those that were not because the full name
	// was known.
	Queries, Spared uint64
	// Names is how many names are known now, StaleNames how many of them live on old
	// addresses.
	Names, StaleNames int
}

// New returns a Names, which runs until Close.
func New(cfg Config) *Names {
	cfg.fill()
	ns := &Names{
		cfg: cfg, system: newSystem(&cfg), source: source,
		slots: make(chan struct{}, cfg.AtOnce), byHost: map[string]*entry{},
	}
	w := &wire{room: cfg.Room, sent: func() { ns.count.queries.Add(1) }}
	ns.exchange = w.exchange
	ns.ctx, ns.cancel = context.WithCancel(context.Background())
	return ns
}

// Close ends all look-ups, with an error, and waits for them. Names know what they
// knew.
func (ns *Names) Close() {
	ns.cancel()
	ns.mu.Lock()
	ns.closed = true
	entries := make([]*entry, 0, len(ns.byHost))
	for _, e := range ns.byHost {
		entries = append(entries, e)
	}
	ns.mu.Unlock()
	for _, e := range entries {
		e.halt()
	}
	ns.work.Wait()
}

// Name returns a handle of a host: a name, or an IP address without brackets.
// changed, if not nil, is called each time addresses have come or gone, one call
// at a time, from any goroutine, and with no Addrs if the name has none any more;
// not for what is known already. It must not wait. The handle is to be given back
// by Release.
func (ns *Names) Name(host string, changed func(*Set)) *Name {
	n := &Name{changed: changed}
	if addrs := needsNoServer(host); addrs != nil {
		n.entry = &entry{ns: ns, host: host, fixed: true, last: &Set{Addrs: addrs, whole: true}}
		n.entry.use.Store(off)
		n.entry.set.Store(n.entry.last)
		return n
	}
	host = strings.ToLower(host)
	ns.mu.Lock()
	defer ns.mu.Unlock()
	e := ns.byHost[host]
	if e == nil {
		ns.makeRoomLocked()
		e = &entry{ns: ns, host: host}
		e.node.Value = e
		e.use.Store(off)
		ns.byHost[host] = e
	}
	if e.node.Listed() {
		e.node.Leave()
	}
	e.handles = append(e.handles, n)
	n.entry = e
	return n
}

// needsNoServer returns the addresses of an address, and of localhost (RFC 6761
// section 6.3).
func needsNoServer(host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return nil
}

// makeRoomLocked forgets the names without a handle that were let go longest ago,
// if there are as many as there may be.
func (ns *Names) makeRoomLocked() {
	for ns.released.Len() >= ns.cfg.MaxNames {
		n := ns.released.Front()
		n.Leave()
		delete(ns.byHost, n.Value.host)
	}
}

// release takes a handle back.
func (ns *Names) release(n *Name) {
	e := n.entry
	ns.mu.Lock()
	defer ns.mu.Unlock()
	i := slices.Index(e.handles, n)
	if i < 0 {
		return
	}
	e.handles = slices.Delete(e.handles, i, i+1)
	if len(e.handles) == 0 && ns.byHost[e.host] == e {
		ns.makeRoomLocked()
		ns.released.PushBack(&e.node)
	}
}

// forget forgets a name, and reports true, unless somebody has a handle of it.
func (ns *Names) forget(e *entry) bool {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if len(e.handles) > 0 {
		return false
	}
	if e.node.Listed() {
		e.node.Leave()
		delete(ns.byHost, e.host)
	}
	return true
}

// handles returns the handles of a name as they are now.
func (ns *Names) handles(e *entry) []*Name {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return slices.Clone(e.handles)
}

// bound returns the context of a look-up.
func (ns *Names) bound() (context.Context, context.CancelFunc) {
	if ns.cfg.Timeout == 0 {
		return context.WithCancel(ns.ctx)
	}
	return context.WithTimeout(ns.ctx, ns.cfg.Timeout)
}

// launch begins a look-up, and reports false after Close.
func (ns *Names) launch(e *entry, f *flight) bool {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return false
	}
	ns.work.Go(func() { e.fly(f) })
	return true
}

// Stats returns the figures as they are now.
func (ns *Names) Stats() Stats {
	c := &ns.count
	s := Stats{
		LookUps: c.lookUps.Load(), Failed: c.failed.Load(), Saved: c.saved.Load(), Stale: c.stale.Load(),
		Queries: c.queries.Load(), Spared: c.spared.Load(), StaleNames: int(c.staleNow.Load()),
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	s.Names = len(ns.byHost)
	return s
}

// caught tells of a panic.
func (ns *Names) caught(where string, r any) error {
	if ns.cfg.Caught != nil {
		return ns.cfg.Caught(where, r)
	}
	return fmt.Errorf("%v", r)
}

// contain is deferred where nobody waits for what is done.
func (ns *Names) contain(where string) {
	if r := recover(); r != nil {
		_ = ns.caught(where, r)
	}
}

// jitter varies a time by a fifth, so that what began together does not go on so.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
