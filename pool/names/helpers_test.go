package names_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
	"github.com/carpoolproxy/carpool/pool/names"
)

const ms = time.Millisecond

var (
	four = netip.MustParseAddr("192.0.2.1")
	six  = netip.MustParseAddr("2001:db8::1")
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// server is the n-th name server of a scripted Names.
func server(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 50 + n}), 53)
}

// newNames returns a Names with the settings that carpool has, unless they are
// changed. It is closed at the end of the test.
func newNames(t testing.TB, change func(*names.Config)) *names.Names {
	t.Helper()
	cfg := names.Config{Timeout: 10 * time.Second, MinTTL: 5 * time.Second, MaxTTL: 5 * time.Minute, Stale: 5 * time.Minute}
	if change != nil {
		change(&cfg)
	}
	ns := names.New(cfg)
	t.Cleanup(ns.Close)
	return ns
}

// asking returns a Names that asks a name server of the tests, and nothing else.
func asking(t testing.TB, s *nameserver.Server, lines ...string) *names.Names {
	t.Helper()
	return newNames(t, func(c *names.Config) {
		c.ResolvConf, c.Hosts, c.NSSwitch = s.ResolvConf(append([]string{"search ."}, lines...)...), "/dev/null", "/dev/null"
	})
}

// script are name servers without a network, for tests whose clock is their own.
type script struct {
	mu      sync.Mutex
	answer  func(server netip.AddrPort, name string, kind dnsmessage.Type) names.Answer
	queries []string // name and type
	times   []time.Time
}

// say changes what is answered.
func (s *script) say(f func(server netip.AddrPort, name string, kind dnsmessage.Type) names.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// sayAddrs has all names have these addresses, for so long.
func (s *script) sayAddrs(ttl time.Duration, list ...string) {
	all := addrs(list...)
	s.say(func(_ netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer { return answer(ttl, kind, all...) })
}

// sayCode has all queries answered with a code.
func (s *script) sayCode(code dnsmessage.RCode) {
	s.say(func(netip.AddrPort, string, dnsmessage.Type) names.Answer {
		return names.Answer{After: ms, Code: code}
	})
}

// onlyA has all names have these addresses, and AAAA unanswered.
func (s *script) onlyA(ttl time.Duration, list ...string) {
	all := addrs(list...)
	s.say(func(_ netip.AddrPort, _ string, kind dnsmessage.Type) names.Answer {
		if kind == dnsmessage.TypeAAAA {
			return names.Answer{After: names.Never}
		}
		return answer(ttl, kind, all...)
	})
}

// silence has no query answered.
func (s *script) silence() {
	s.say(func(netip.AddrPort, string, dnsmessage.Type) names.Answer { return names.Answer{After: names.Never} })
}

// answer is one with those of the addresses that are of this kind.
func answer(ttl time.Duration, kind dnsmessage.Type, all ...netip.Addr) names.Answer {
	a := names.Answer{TTL: ttl, After: ms}
	for _, one := range all {
		if one.Is4() == (kind == dnsmessage.TypeA) {
			a.Addrs = append(a.Addrs, one)
		}
	}
	return a
}

// asked returns how many queries for A there were, and forgets them.
func (s *script) asked() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queries {
		if q[len(q)-2:] == " A" {
			n++
		}
	}
	s.queries, s.times = nil, nil
	return n
}

// scripted returns a Names that asks a script. It is to be called in a bubble of
// testing/synctest.
func scripted(t testing.TB, s *script, change func(*names.Config), lines ...string) *names.Names {
	t.Helper()
	var servers []netip.AddrPort
	for n := range byte(3) {
		servers = append(servers, server(n))
	}
	ns := newNames(t, func(c *names.Config) {
		c.ResolvConf, c.Hosts, c.NSSwitch = nameserver.ResolvConf(t, append([]string{"search ."}, lines...), servers...), "/dev/null", "/dev/null"
		if change != nil {
			change(c)
		}
	})
	ns.Script(func(server netip.AddrPort, name string, kind dnsmessage.Type) names.Answer {
		s.mu.Lock()
		f := s.answer
		s.queries = append(s.queries, name+" "+kind.String()[len("Type"):])
		s.times = append(s.times, time.Now())
		s.mu.Unlock()
		return f(server, name, kind)
	})
	return ns
}

// wait returns the addresses of a name, which has to have some.
func wait(t testing.TB, n *names.Name) []netip.Addr {
	t.Helper()
	s, err := n.Wait(context.Background())
	if err != nil {
		t.Fatalf("%s: %v", n.Host(), err)
	}
	return s.Addrs
}

// has fails the test unless the name has these addresses now, in whatever order.
func has(t testing.TB, n *names.Name, list ...string) {
	t.Helper()
	var got []netip.Addr
	if s := n.Set(); s != nil {
		got = slices.Clone(s.Addrs)
	}
	want := addrs(list...)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("%s has %v, want %v", n.Host(), got, want)
	}
}

// class tells errors apart as users see them.
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
	return "failure"
}
