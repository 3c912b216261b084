package pool_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// upstream is a server that only accepts. Its tests hold the other ends.
type upstream struct {
	t     testing.TB
	addr  netip.AddrPort
	conns chan *net.TCPConn
}

func newUpstream(t testing.TB) *upstream { return newUpstreamAt(t, "127.0.0.1:0") }

func newUpstreamAt(t testing.TB, address string) *upstream {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, addr: netip.MustParseAddrPort(l.Addr().String()), conns: make(chan *net.TCPConn, 1000)}
	ended := testkit.In(func() []net.Conn {
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				return all
			}
			all = append(all, c)
			select {
			case u.conns <- c.(*net.TCPConn):
			default: // nobody asks for them
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		for _, c := range testkit.Await(t, "the upstream ends", ended) {
			_ = c.Close()
		}
	})
	return u
}

// next returns the connection that was accepted next.
func (u *upstream) next() *net.TCPConn {
	u.t.Helper()
	return testkit.Await(u.t, "a connection comes", u.conns)
}

// origin returns the pool's origin for this server.
func (u *upstream) origin(p *pool.Pool) *pool.Origin {
	return p.Origin(pool.Lookup{Host: []byte(u.addr.Addr().String()), Port: u.addr.Port()})
}

// newPool returns a pool with generous limits, and checks at the end of the
// test that all it has opened is closed.
func newPool(t testing.TB, change ...func(*pool.Config)) *pool.Pool {
	t.Helper()
	cfg := pool.Config{
		IdleTimeout: 90 * time.Second, MaxIdlePerHost: 1000, MaxPendingPerHost: 1000,
		PendingTimeout: 20 * time.Second, DialTimeout: 20 * time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	p, err := pool.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil && !errors.Is(err, os.ErrClosed) { // the test may have closed it
			t.Errorf("Close: %v", err)
		}
		checkBalance(t, p)
		if leases, slots := p.Open(); !t.Failed() && leases+slots > 0 {
			t.Errorf("after Close %d connections are open, %d slots taken", leases, slots)
		}
		if n := p.Carrying(); !t.Failed() && n != 0 {
			t.Errorf("after Close %d connections are said to be in use", n)
		}
	})
	return p
}

// reuse has the connection used that was used last, and the address dialled that
// comes first.
func reuse(c *pool.Config) { c.Reuse = true }

// checkBalance checks that the figures agree with one another. No dial may
// be under way.
func checkBalance(t testing.TB, p *pool.Pool) {
	t.Helper()
	for _, o := range p.Snapshot().Origins {
		var closed uint64
		for _, n := range o.Closed {
			closed += n
		}
		if o.InUse < 0 || o.Idle < 0 || o.Opened != closed+uint64(o.InUse+o.Idle) {
			t.Errorf("%s: %d opened, %d in use, %d idle, closed %v", o.Origin, o.Opened, o.InUse, o.Idle, o.Closed)
		}
	}
}

// stats returns the figures of the pool's only origin.
func stats(t testing.TB, p *pool.Pool) pool.Stats {
	t.Helper()
	s := p.Snapshot()
	if len(s.Origins) != 1 {
		t.Fatalf("%d origins", len(s.Origins))
	}
	return s.Origins[0].Stats
}

// closedFor waits until the origin has closed n connections for a reason.
func closedFor(t testing.TB, p *pool.Pool, reason pool.Reason, n uint64) {
	t.Helper()
	testkit.Eventually(t, "connections are closed: "+string(reason), func() bool { return stats(t, p).Closed[reason] >= n })
	if got := stats(t, p).Closed; got[reason] != n {
		t.Fatalf("closed %v, want %d for %s", got, n, reason)
	}
}

func acquire(t testing.TB, o *pool.Origin, k pool.Ticket) *pool.Lease {
	t.Helper()
	l, err := o.Acquire(&k)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// result is what an Acquire returned.
type result struct {
	lease *pool.Lease
	err   error
}

// waiter is an Acquire that waits.
type waiter struct {
	ticket pool.Ticket
	done   <-chan result
}

// enqueue starts an Acquire and returns when it waits.
func enqueue(t testing.TB, p *pool.Pool, o *pool.Origin, k pool.Ticket) *waiter {
	t.Helper()
	before := waiting(p)
	w := &waiter{ticket: k}
	w.done = testkit.In(func() result {
		l, err := o.Acquire(&w.ticket)
		return result{l, err}
	})
	testkit.Eventually(t, "the request waits", func() bool { return waiting(p) > before })
	return w
}

func waiting(p *pool.Pool) int {
	n := 0
	for _, o := range p.Snapshot().Origins {
		n += o.Waiting
	}
	return n
}

// lease returns the connection that the waiter gets.
func (w *waiter) lease(t testing.TB) *pool.Lease {
	t.Helper()
	r := testkit.Await(t, "the wait ends", w.done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.lease
}

// fails returns the error that the waiter gets.
func (w *waiter) fails(t testing.TB) error {
	t.Helper()
	r := testkit.Await(t, "the wait ends", w.done)
	if r.err == nil {
		r.lease.Discard(pool.ClientGone)
		t.Fatal("the waiter got a connection")
	}
	return r.err
}

// stillWaits fails the test if the waiter has a result.
func (w *waiter) stillWaits(t testing.TB) {
	t.Helper()
	select {
	case r := <-w.done:
		t.Fatalf("the wait has ended: %v", r.err)
	default:
	}
}

// fill makes n idle connections, the first of them the one idle longest, and
// returns the upstream's ends.
func fill(t testing.TB, u *upstream, o *pool.Origin, n int) []*net.TCPConn {
	t.Helper()
	var leases []*pool.Lease
	var peers []*net.TCPConn
	for range n {
		leases = append(leases, acquire(t, o, pool.Ticket{Fresh: true}))
		peers = append(peers, u.next())
	}
	for _, l := range leases {
		l.Release()
	}
	return peers
}

// joins reports whether the lease and the upstream's end are one connection.
func joins(l *pool.Lease, peer net.Conn) bool {
	return l.LocalAddr().String() == peer.RemoteAddr().String()
}

// gate is a CheckAddr that holds dials up until it is opened.
type gate struct {
	once  sync.Once
	open  chan struct{}
	tried chan netip.AddrPort
}

func newGate() *gate {
	return &gate{open: make(chan struct{}), tried: make(chan netip.AddrPort, 1000)}
}

func (g *gate) check(a netip.AddrPort) error {
	g.tried <- a
	<-g.open
	return nil
}

// release lets all dials go on, and may be called again.
func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// names is a Resolver that knows what it is told.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func loopback(last ...byte) []netip.Addr {
	var addrs []netip.Addr
	for _, b := range last {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, b}))
	}
	return addrs
}

// twoAddresses returns an origin with an upstream on each of two addresses, the
// first of which is tried first.
func twoAddresses(t *testing.T, deadTimeout time.Duration) (*pool.Pool, *pool.Origin, *upstream, *upstream) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no second loopback address here")
	}
	first := newUpstream(t)
	second := newUpstreamAt(t, netip.AddrPortFrom(loopback(5)[0], first.addr.Port()).String())
	p := newPool(t, reuse, func(c *pool.Config) {
		c.DeadTimeout = deadTimeout
		c.Resolver = names{"two.test": {first.addr.Addr(), second.addr.Addr()}}
	})
	return p, p.Origin(pool.Lookup{Host: []byte("two.test"), Port: first.addr.Port()}), first, second
}
