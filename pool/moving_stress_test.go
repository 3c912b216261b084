package pool_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// echo has an upstream answer each byte with the same byte.
func (u *upstream) echo(t testing.TB) {
	t.Helper()
	var serving sync.WaitGroup
	stop := make(chan struct{})
	serving.Go(func() {
		for {
			select {
			case c := <-u.conns:
				serving.Go(func() { _, _ = io.Copy(c, c) })
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() { // after the pool has closed its ends
		close(stop)
		serving.Wait()
	})
}

// pingPong makes one exchange.
func pingPong(l *pool.Lease) error {
	var b [1]byte
	if _, err := l.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(l, b[:])
	return err
}

// mover changes the addresses of an origin that is in use.
type mover struct {
	t      *testing.T
	o      *pool.Origin
	all    []netip.Addr
	latest atomic.Pointer[[]netip.Addr] // nil while it changes
	turn   chan struct{}                // it is time for a change
}

// ride makes an exchange, on an address that was there all the time.
func (m *mover) ride(k *pool.Ticket) {
	before := m.latest.Load()
	l, err := m.o.Acquire(k)
	if err != nil {
		m.t.Error(err)
		return
	}
	if now := m.latest.Load(); before != nil && now == before && !slices.Contains(*now, l.Addr().Addr()) {
		m.t.Errorf("a request went to %v, which had gone; reused: %v, there are %v", l.Addr(), l.Reused(), *now)
	}
	switch err := pingPong(l); {
	case err != nil:
		m.t.Error(err)
		l.Discard(pool.BadAnswer)
	case rand.IntN(20) == 0:
		l.Discard(pool.ClientGone)
	default:
		l.Release()
	}
	if rand.IntN(25) == 0 {
		select {
		case m.turn <- struct{}{}:
		default: // it is about to change
		}
	}
}

// change gives the origin some of the addresses.
func (m *mover) change() {
	set := slices.Clone(m.all)
	rand.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
	set = set[:1+rand.IntN(len(set)-1)]
	m.latest.Store(nil)
	m.o.Moved(set...)
	m.latest.Store(&set)
}

// changes changes them at each turn, until done, and returns how often.
func (m *mover) changes(done <-chan struct{}) (n int) {
	for ; ; n++ {
		select {
		case <-done:
			return n
		case <-m.turn:
			m.change()
		}
	}
}

// X3 of the catalogue: addresses come and go under load. No request goes to one that
// had gone when it came, none fails, and all is accounted for.
func TestX3AddressesMoveUnderLoad(t *testing.T) {
	for name, change := range map[string]func(*pool.Config){
		"without limits":  func(*pool.Config) {},
		"few connections": func(c *pool.Config) { c.MaxConnsPerHost, c.MaxIdlePerHost = 5, 3 },
		"few in all":      func(c *pool.Config) { c.MaxConns = 6 },
		"short-lived":     func(c *pool.Config) { c.MaxRequests = 7 },
		"aging":           func(c *pool.Config) { c.MaxAge, c.AgeJitter = 20*ms, 0.5 },
		"reuse":           reuse,
	} {
		t.Run("X3 "+name, func(t *testing.T) {
			u := newUpstreamAt(t, "0.0.0.0:0")
			u.echo(t)
			m := &mover{t: t, all: loopback(1, 2, 3, 4, 5, 6, 7, 8), turn: make(chan struct{}, 1)}
			p := newPool(t, func(c *pool.Config) { c.Resolver = moving{&m.latest, m.all} }, change)
			m.o = p.Origin(pool.Lookup{Host: []byte("moving.test"), Port: u.addr.Port()})
			done := make(chan struct{})
			moved := testkit.In(func() int { return m.changes(done) })
			var wg sync.WaitGroup
			for range 12 {
				wg.Go(func() {
					var k pool.Ticket
					for range 300 {
						k.Replayable, k.Fresh = rand.IntN(2) == 0, rand.IntN(20) == 0
						if m.ride(&k); rand.IntN(30) == 0 {
							p.Snapshot()
							m.o.Tidy()
						}
					}
				})
			}
			wg.Wait()
			close(done)
			if n := testkit.Await(t, "the last change", moved); n < 3 {
				t.Errorf("only %d changes", n)
			}
			m.ride(new(pool.Ticket)) // after which nothing that has gone is a last resort
			s := &stress{t: t, p: p, origins: []*pool.Origin{m.o}}
			testkit.Eventually(t, "all is at rest", s.atRest)
			m.o.Tidy()
			for _, a := range p.Snapshot().Origins[0].Addrs {
				if a.Open > 0 && !slices.Contains(*m.latest.Load(), a.Addr) {
					t.Errorf("%+v, though it has gone", a)
				}
			}
		})
	}
}

// moving is a Resolver that answers with the latest addresses, while these change
// with all that there are.
type moving struct {
	latest *atomic.Pointer[[]netip.Addr]
	all    []netip.Addr
}

// LookupNetIP implements pool.Resolver.
func (m moving) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if set := m.latest.Load(); set != nil {
		return *set, nil
	}
	return m.all, nil
}

// farm is servers of one name on addresses of their own, which can be killed.
type farm struct {
	t       testing.TB
	port    uint16
	mu      sync.Mutex
	servers map[netip.Addr]*server
}

type server struct {
	net.Listener
	serving sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

func newFarm(t testing.TB, addrs []netip.Addr) *farm {
	t.Helper()
	f := &farm{t: t, port: vacant(t), servers: map[netip.Addr]*server{}}
	for _, a := range addrs {
		f.start(a)
	}
	t.Cleanup(func() {
		for a := range f.servers {
			f.kill(a)
		}
	})
	return f
}

func (f *farm) start(a netip.Addr) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, f.port).String())
	if err != nil {
		f.t.Error(err)
		return
	}
	s := &server{Listener: l}
	s.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.serving.Go(func() { _, _ = io.Copy(c, c); _ = c.Close() })
		}
	})
	f.mu.Lock()
	f.servers[a] = s
	f.mu.Unlock()
}

// kill ends a server as the end of its process would.
func (f *farm) kill(a netip.Addr) {
	f.mu.Lock()
	s := f.servers[a]
	f.mu.Unlock()
	if s == nil {
		return
	}
	_ = s.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// X14 of the catalogue, the pool's part: servers end and come back, one after the
// other. A request always gets a connection, and one that is sent again on a fresh one
// elsewhere succeeds.
func TestX14ARollingRestartLosesNoRequestThatCanBeSentAgain(t *testing.T) {
	addrs := loopback(1, 2, 3, 4, 5)
	f := newFarm(t, addrs)
	p := newPool(t, func(c *pool.Config) { c.Resolver = names{"rolling.test": addrs} })
	o := p.Origin(pool.Lookup{Host: []byte("rolling.test"), Port: f.port})
	exchange := func(k pool.Ticket) (netip.Addr, error) {
		l, err := o.Acquire(&k)
		if err != nil {
			return netip.Addr{}, err
		}
		if err := pingPong(l); err != nil {
			l.Discard(pool.BadAnswer)
			return l.Addr().Addr(), err
		}
		l.Release()
		return netip.Addr{}, nil
	}
	var wg sync.WaitGroup
	var sent, repeated atomic.Int64
	done := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				sent.Add(1)
				failed, err := exchange(pool.Ticket{Replayable: true})
				if err == nil {
					continue
				}
				if !failed.IsValid() {
					t.Errorf("no connection: %v", err)
					return
				}
				repeated.Add(1)
				if _, err := exchange(pool.Ticket{Replayable: true, Fresh: true, Avoid: failed}); err != nil {
					t.Errorf("sent again: %v", err)
				}
			}
		})
	}
	for _, a := range addrs {
		some := sent.Load() + 500
		testkit.Eventually(t, "requests are sent", func() bool { return sent.Load() > some })
		f.kill(a)
		some = sent.Load() + 500
		testkit.Eventually(t, "requests are sent meanwhile", func() bool { return sent.Load() > some })
		f.start(a)
	}
	close(done)
	wg.Wait()
	t.Logf("%d sent, %d of them twice", sent.Load(), repeated.Load())
}
