package pool_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
	"github.com/carpoolproxy/carpool/pool"
)

// askThese has a pool ask these name servers.
func askThese(t testing.TB, servers ...*nameserver.Server) func(*pool.Config) {
	var at []netip.AddrPort
	for _, s := range servers {
		at = append(at, s.Addr())
	}
	file := nameserver.ResolvConf(t, []string{"search ."}, at...)
	return func(c *pool.Config) { c.ResolvConf = file }
}

// X24 with name servers. What the system's resolver does by itself about a lost
// packet takes longer than the look-up may here.
func TestX24NameServersThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string][]func(q nameserver.Query) bool{
		"the first packets are lost": {func(q nameserver.Query) bool { return q.Before == 0 }},
		"the first two are lost":     {func(q nameserver.Query) bool { return q.Before <= 1 }},
		"A is lost":                  {func(q nameserver.Query) bool { return q.Type == dnsmessage.TypeA && q.Before == 0 }},
		"AAAA is never answered":     {func(q nameserver.Query) bool { return q.Type == dnsmessage.TypeAAAA }},
		"the first server is dead":   {func(nameserver.Query) bool { return true }, func(nameserver.Query) bool { return false }},
	} {
		t.Run("X24 "+name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			var servers []*nameserver.Server
			for _, dropped := range drop {
				s := nameserver.New(t)
				s.Set("lost.test.", time.Second, "127.0.0.1")
				s.Do(func(q nameserver.Query, r *nameserver.Reply) { r.Drop = dropped(q) })
				servers = append(servers, s)
			}
			p := newPool(t, func(c *pool.Config) { c.DNSTimeout = 4 * time.Second }, askThese(t, servers...))
			l := acquire(t, p.Origin(pool.Lookup{Host: []byte("lost.test"), Port: u.addr.Port()}), pool.Ticket{})
			if l.Discard(pool.NotKept); l.Addr() != u.addr {
				t.Errorf("connected to %v", l.Addr())
			}
		})
	}
}

// X24: A is taken without AAAA, but the host is reached by IPv6 alone.
func TestX24AddressesOfTheOtherFamilyComeLate(t *testing.T) {
	t.Parallel()
	u := newUpstreamAt(t, "[::1]:0")
	tried := make(chan struct{})
	var once sync.Once
	s := nameserver.New(t)
	s.Set("six.test.", time.Second, "127.0.0.1", "::1")
	s.Do(func(q nameserver.Query, r *nameserver.Reply) {
		if q.Type == dnsmessage.TypeAAAA {
			r.Wait = tried
		}
	})
	p := newPool(t, askThese(t, s), func(c *pool.Config) {
		c.CheckAddr = func(a netip.AddrPort) error {
			if a.Addr().Is4() {
				once.Do(func() { close(tried) })
				return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			return nil
		}
	})
	l := acquire(t, p.Origin(pool.Lookup{Host: []byte("six.test"), Port: u.addr.Port()}), pool.Ticket{})
	if l.Discard(pool.NotKept); l.Addr() != u.addr {
		t.Errorf("connected to %v", l.Addr())
	}
}

// Finding the addresses takes nothing of the time for connecting, and has a
// bound of its own.
func TestDNSHasATimeOfItsOwn(t *testing.T) {
	u := newUpstream(t)
	left := make(chan time.Duration, 10)
	p := newPool(t, func(c *pool.Config) {
		c.DialTimeout, c.DNSTimeout = time.Minute, time.Hour
		c.Resolver = look(func(ctx context.Context) ([]netip.Addr, error) {
			end, _ := ctx.Deadline()
			left <- time.Until(end)
			return loopback(1), nil
		})
	})
	acquire(t, p.Origin(pool.Lookup{Host: []byte("slow.test"), Port: u.addr.Port()}), pool.Ticket{}).Discard(pool.NotKept)
	if d := <-left; d < 30*time.Minute {
		t.Errorf("the look-up has %v", d)
	}
}

// look is a Resolver that answers every question alike.
type look func(context.Context) ([]netip.Addr, error)

func (l look) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) { return l(ctx) }

// keeps has a pool remember addresses as carpool does, but for a short time.
func keeps(c *pool.Config) {
	c.DNSMinTTL, c.DNSMaxTTL, c.DNSStale, c.DNSTimeout = 30*ms, time.Minute, time.Minute, 2*time.Second
}

// X2: what the upstream's name resolved to serves while the name servers are gone.
func TestX2ConnectionsAreOpenedWhileTheNameServersAreGone(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s := nameserver.New(t)
	s.Set("orders.test.", 0, "127.0.0.1")
	p := newPool(t, keeps, askThese(t, s))
	o := p.Origin(pool.Lookup{Host: []byte("orders.test"), Port: u.addr.Port()})
	acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
	s.Stop()
	testkit.Eventually(t, "old addresses are used", func() bool {
		acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
		return p.Snapshot().DNS.Stale > 0
	})
	s.Start()
	testkit.Eventually(t, "new ones are", func() bool {
		acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
		return p.Snapshot().DNS.StaleNames == 0
	})
}

// X3: idle connections to an address that the name no longer has are closed.
func TestX3AnAddressThatIsGone(t *testing.T) {
	t.Parallel()
	first := newUpstream(t)
	second := newUpstreamAt(t, netip.AddrPortFrom(loopback(5)[0], first.addr.Port()).String())
	s := nameserver.New(t)
	s.Set("orders.test.", 0, "127.0.0.1")
	p := newPool(t, keeps, askThese(t, s))
	o := p.Origin(pool.Lookup{Host: []byte("orders.test"), Port: first.addr.Port()})
	acquire(t, o, pool.Ticket{}).Release()
	s.Set("orders.test.", 0, "127.0.0.5")
	testkit.Eventually(t, "connections to the old address are closed", func() bool {
		acquire(t, o, pool.Ticket{Replayable: true}).Release()
		return stats(t, p).Closed[pool.AddressGone] > 0
	})
	for range 20 {
		l := acquire(t, o, pool.Ticket{Replayable: true})
		if l.Release(); l.Addr() != second.addr {
			t.Errorf("a request goes to %v", l.Addr())
		}
	}
}

// A connection that cannot be opened has the name looked up at once, whatever its
// TTL.
func TestAFailedDialAsksForTheAddressesAgain(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s := nameserver.New(t)
	s.Set("orders.test.", time.Hour, "127.0.0.1")
	p := newPool(t, askThese(t, s), func(c *pool.Config) { c.DNSMinTTL, c.DNSMaxTTL = time.Minute, time.Hour })
	o := p.Origin(pool.Lookup{Host: []byte("orders.test"), Port: u.addr.Port()})
	acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
	before := s.Count("orders.test.", dnsmessage.TypeA)
	dead := p.Origin(pool.Lookup{Host: []byte("orders.test"), Port: 1})
	if _, err := dead.Acquire(&pool.Ticket{}); err == nil {
		t.Fatal("there is something at port 1")
	}
	testkit.Eventually(t, "it asks again", func() bool { return s.Count("orders.test.", dnsmessage.TypeA) > before })
}

func TestTheFiguresOfDNS(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	s := nameserver.New(t)
	s.Set("orders.test.", time.Hour, "127.0.0.1")
	p := newPool(t, askThese(t, s), func(c *pool.Config) { c.DNSMinTTL, c.DNSMaxTTL = time.Minute, time.Hour })
	for range 3 {
		acquire(t, p.Origin(pool.Lookup{Host: []byte("orders.test"), Port: u.addr.Port()}), pool.Ticket{}).Discard(pool.NotKept)
	}
	if d := p.Snapshot().DNS; d.LookUps != 1 || d.Saved != 2 || d.Queries != 2 || d.Names != 1 || d.Failed != 0 {
		t.Errorf("%+v", d)
	}
	x := p.ExplainName("orders.test")
	if x.Full != "orders.test." || !slices.Equal(x.Addrs, loopback(1)) || x.Err != nil || x.Stale || x.Left < time.Minute/2 {
		t.Errorf("%+v", x)
	}
	if x := p.ExplainName("nowhere.test"); x.Err == nil || len(x.Addrs) > 0 {
		t.Errorf("%+v", x)
	}
}
