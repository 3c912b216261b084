package pool_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/pool"
)

// scripted is a Resolver that answers each question, of which it has the n-th
// here, after a time.
type scripted func(network string) (after time.Duration, addrs []netip.Addr, err error)

func (s scripted) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	after, addrs, err := s(network)
	if after < 0 {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "time-out", Name: host, IsTimeout: true}
	}
	select {
	case <-time.After(after):
		return addrs, err
	case <-ctx.Done():
		return nil, &net.DNSError{Err: "time-out", Name: host, IsTimeout: true}
	}
}

const never = -1

var (
	four = netip.MustParseAddr("192.0.2.1")
	six  = netip.MustParseAddr("2001:db8::1")
	both = []netip.Addr{six, four}

	noSuchName = &net.DNSError{Err: "no such host", IsNotFound: true}
	serverFail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

// X24: what is waited for, and for how long, with a clock that does not lie.
func TestX24HowLongALookUpWaits(t *testing.T) {
	silent := scripted(func(string) (time.Duration, []netip.Addr, error) { return never, nil, nil })
	answers := func(after time.Duration, addrs []netip.Addr, err error) scripted {
		return func(string) (time.Duration, []netip.Addr, error) { return after, addrs, err }
	}
	noAAAA := func(after time.Duration) scripted {
		return func(network string) (time.Duration, []netip.Addr, error) {
			if network == "ip4" {
				return after, []netip.Addr{four}, nil
			}
			return never, nil, nil
		}
	}
	for name, c := range map[string]struct {
		resolvers []pool.Resolver
		addrs     []netip.Addr
		whole     bool
		err       error
		took      time.Duration
	}{
		"at once":                      {[]pool.Resolver{answers(2*ms, both, nil)}, both, true, nil, 2 * ms},
		"slow":                         {[]pool.Resolver{answers(99*ms, both, nil)}, both, true, nil, 99 * ms},
		"AAAA is never answered":       {[]pool.Resolver{noAAAA(5 * ms)}, []netip.Addr{four}, false, nil, 55 * ms},
		"the first server is dead":     {[]pool.Resolver{silent, answers(5*ms, both, nil)}, both, true, nil, 305 * ms},
		"dead, and no AAAA":            {[]pool.Resolver{silent, noAAAA(5 * ms)}, []netip.Addr{four}, false, nil, 355 * ms},
		"two servers are dead":         {[]pool.Resolver{silent, silent, answers(5*ms, both, nil)}, both, true, nil, 1005 * ms},
		"no such name":                 {[]pool.Resolver{answers(2*ms, nil, noSuchName)}, nil, false, noSuchName, 2 * ms},
		"no such name, slowly":         {[]pool.Resolver{answers(700*ms, nil, noSuchName), silent}, nil, false, noSuchName, 700 * ms},
		"a name without addresses":     {[]pool.Resolver{answers(2*ms, nil, nil)}, nil, false, noSuchName, 2 * ms},
		"the server fails":             {[]pool.Resolver{answers(2*ms, nil, serverFail)}, nil, false, serverFail, 2 * ms},
		"dead, and no such name":       {[]pool.Resolver{silent, answers(5*ms, nil, noSuchName)}, nil, false, noSuchName, 10 * time.Second},
		"the slow one knows the name":  {[]pool.Resolver{answers(900*ms, both, nil), answers(5*ms, nil, noSuchName)}, both, true, nil, 900 * ms},
		"fails, and the other answers": {[]pool.Resolver{answers(400*ms, nil, serverFail), answers(600*ms, both, nil)}, both, true, nil, 900 * ms},
		"nobody answers":               {[]pool.Resolver{silent}, nil, false, &net.DNSError{IsTimeout: true}, 10 * time.Second},
	} {
		t.Run("X24 "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				addrs, whole, err := pool.LookUp(t.Context(), 10*time.Second, "name.test", c.resolvers...)
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if !slices.Equal(addrs, c.addrs) || whole != c.whole || class(err) != class(c.err) {
					t.Errorf("got %v, %v, %v", addrs, whole, err)
				}
			})
		})
	}
}

// class tells errors of resolvers apart as users see them.
func class(err error) string {
	var dns *net.DNSError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &dns) && dns.IsNotFound:
		return "not found"
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "time-out"
	}
	return err.Error()
}

// An answer for one family is held to it, whatever the resolver makes of it.
func TestOnlyIPv4IsTakenFromAnAnswerForIPv4(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs, whole, err := pool.LookUp(t.Context(), time.Second, "name.test", scripted(func(network string) (time.Duration, []netip.Addr, error) {
			if network == "ip" {
				return never, nil, nil
			}
			return 0, both, nil
		}))
		if err != nil || whole || !slices.Equal(addrs, []netip.Addr{four}) {
			t.Errorf("got %v, %v, %v", addrs, whole, err)
		}
	})
}

// The name server of the tests: what becomes of a question is up to answer,
// which gets it and how often it was asked before.
type nameServer struct {
	t      testing.TB
	conn   net.PacketConn
	answer func(q dnsmessage.Type, before int) bool // whether it is answered, by loopback
}

func newNameServer(t testing.TB, answer func(q dnsmessage.Type, before int) bool) *nameServer {
	t.Helper()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{t: t, conn: conn, answer: answer}
	done := make(chan struct{})
	var replies sync.WaitGroup
	go func() {
		defer close(done)
		asked := map[dnsmessage.Type]int{}
		for b := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(b[:n]) != nil {
				continue
			}
			kind := q.Questions[0].Type
			before := asked[kind]
			asked[kind]++
			replies.Go(func() { s.reply(q, before, from) })
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
		replies.Wait()
	})
	return s
}

func (s *nameServer) reply(q dnsmessage.Message, before int, to net.Addr) {
	kind := q.Questions[0].Type
	if !s.answer(kind, before) {
		return
	}
	h := dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true, RecursionDesired: true},
		Questions: q.Questions,
	}
	switch kind {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	case dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: netip.IPv6Loopback().As16()}}}
	}
	b, err := m.Pack()
	if err != nil {
		s.t.Errorf("packing an answer: %v", err)
		return
	}
	_, _ = s.conn.WriteTo(b, to)
}

// resolver is Go's, which asks this server.
func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// X24 with Go's resolver and a name server. What Go does by itself about a lost
// packet takes longer than the look-up may here.
func TestX24NameServersThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	always := func(dnsmessage.Type, int) bool { return true }
	for name, servers := range map[string][]func(dnsmessage.Type, int) bool{
		"the first packets are lost": {func(_ dnsmessage.Type, before int) bool { return before > 0 }},
		"the first two are lost":     {func(_ dnsmessage.Type, before int) bool { return before > 1 }},
		"A is lost":                  {func(q dnsmessage.Type, before int) bool { return q == dnsmessage.TypeAAAA || before > 0 }},
		"AAAA is never answered":     {func(q dnsmessage.Type, _ int) bool { return q == dnsmessage.TypeA }},
		"the first server is dead":   {func(dnsmessage.Type, int) bool { return false }, always},
	} {
		t.Run("X24 "+name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			p := newPool(t, func(c *pool.Config) { c.DNSTimeout = 4 * time.Second })
			var s *nameServer
			var resolvers []pool.Resolver
			for i := range 3 {
				if i < len(servers) {
					s = newNameServer(t, servers[i])
				}
				resolvers = append(resolvers, s.resolver())
			}
			p.AskThese(resolvers...)
			l := acquire(t, p.Origin(pool.Lookup{Host: []byte("lost.test."), Port: u.addr.Port()}), pool.Ticket{})
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
	s := newNameServer(t, func(q dnsmessage.Type, _ int) bool {
		if q == dnsmessage.TypeAAAA {
			<-tried
		}
		return true
	})
	p := newPool(t, func(c *pool.Config) {
		c.CheckAddr = func(a netip.AddrPort) error {
			if a.Addr().Is4() {
				once.Do(func() { close(tried) })
				return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			return nil
		}
	})
	p.AskThese(s.resolver())
	l := acquire(t, p.Origin(pool.Lookup{Host: []byte("six.test."), Port: u.addr.Port()}), pool.Ticket{})
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

// RFC 6761 section 6.3.
func TestLocalhostNeedsNoServer(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"localhost", "localhost.", "LocalHost", "LOCALHOST."} {
		addrs, whole, err := pool.LookUp(t.Context(), time.Second, host, look(func(context.Context) ([]netip.Addr, error) {
			t.Errorf("%s: a resolver is asked", host)
			return nil, noSuchName
		}))
		if err != nil || !whole || !slices.Equal(addrs, []netip.Addr{netip.IPv6Loopback(), loopback(1)[0]}) {
			t.Errorf("%s: %v, %v, %v", host, addrs, whole, err)
		}
	}
}

func TestTheNextNameServerIsAskedInstead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# nameserver 192.0.2.9\nsearch a.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver\noptions ndots:5\nnameserver 192.0.2.2"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list := pool.NameServers(file)
	if want := "192.0.2.1:53 [2001:db8::1]:53 192.0.2.2:53"; strings.Join(list, " ") != want {
		t.Fatalf("got %q", list)
	}
	for _, c := range []struct {
		from string
		n    int
		want string
	}{
		{list[0], 1, list[1]}, {list[0], 2, list[2]}, {list[2], 1, list[0]}, {list[1], 3, list[1]}, {"192.0.2.7:53", 1, "192.0.2.7:53"},
	} {
		if got := pool.Turn(list, c.from, c.n); got != c.want {
			t.Errorf("%d behind %s is %s, want %s", c.n, c.from, got, c.want)
		}
	}
	if list := pool.NameServers(file + ".not"); list != nil || pool.Turn(list, "127.0.0.1:53", 1) != "127.0.0.1:53" {
		t.Errorf("without a file: %q", list)
	}
}
