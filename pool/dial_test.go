package pool_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// vacant returns a port that nobody listens on yet.
func vacant(t testing.TB) uint16 {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// failure returns the DialError that Acquire fails with.
func failure(t testing.TB, o *pool.Origin) *pool.DialError {
	t.Helper()
	l, err := o.Acquire(&pool.Ticket{})
	if err == nil {
		l.Discard(pool.NotKept)
		t.Fatal("connected")
	}
	var failed *pool.DialError
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, not a DialError", err)
	}
	return failed
}

var errDenied = errors.New("denied by the test")

// X1 and X5 of the catalogue.
func TestAFailedDialTellsItsStage(t *testing.T) {
	closed := testkit.Refused(t).Port()
	deny := func(addrs ...netip.Addr) func(netip.AddrPort) error {
		return func(a netip.AddrPort) error {
			for _, d := range addrs {
				if a.Addr() == d {
					return errDenied
				}
			}
			return nil
		}
	}
	known := names{"one.test": loopback(1), "two.test": loopback(1, 2), "none.test": nil}
	for name, c := range map[string]struct {
		host  string
		check func(netip.AddrPort) error
		stage string
		is    func(error) bool
	}{
		"no such name": {"unknown.test", nil, "dns", func(err error) bool {
			var e *net.DNSError
			return errors.As(err, &e) && e.IsNotFound
		}},
		"a name without addresses": {"none.test", nil, "dns", func(err error) bool {
			var e *net.DNSError
			return errors.As(err, &e) && e.IsNotFound
		}},
		"refused":              {"127.0.0.1", nil, "connect", isErr(syscall.ECONNREFUSED)},
		"refused, by name":     {"one.test", nil, "connect", isErr(syscall.ECONNREFUSED)},
		"refused everywhere":   {"two.test", nil, "connect", isErr(syscall.ECONNREFUSED)},
		"denied":               {"127.0.0.1", deny(loopback(1)...), "policy", isErr(errDenied)},
		"denied everywhere":    {"two.test", deny(loopback(1, 2)...), "policy", isErr(errDenied)},
		"denied, then refused": {"two.test", deny(loopback(1)...), "policy", isErr(errDenied)},
		"refused, then denied": {"two.test", deny(loopback(2)...), "policy", isErr(errDenied)},
		"denied, then descriptors are short": {"two.test", func(a netip.AddrPort) error {
			if a.Addr() == loopback(2)[0] {
				return syscall.EMFILE
			}
			return errDenied
		}, "policy", isErr(errDenied)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, reuse, func(cfg *pool.Config) { cfg.Resolver, cfg.CheckAddr = known, c.check })
			o := p.Origin(pool.Lookup{Host: []byte(c.host), Port: closed})
			err := failure(t, o)
			if err.Stage.String() != c.stage || !c.is(err) || !strings.HasPrefix(err.Error(), c.stage+": ") {
				t.Errorf("got %v, at %s", err, err.Stage)
			}
			if s := stats(t, p); s.DialErrors != 1 || s.Opened != 0 {
				t.Errorf("%d opened, %d failed", s.Opened, s.DialErrors)
			}
		})
	}
}

func isErr(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func TestAResolverThatDoesNotAnswerIsGivenUp(t *testing.T) {
	p := newPool(t, func(c *pool.Config) { c.Resolver, c.DNSTimeout = &stuckResolver{}, 30*ms })
	err := failure(t, p.Origin(pool.Lookup{Host: []byte("stuck.test"), Port: 80}))
	if err.Stage != pool.StageDNS || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, at %s", err, err.Stage)
	}
}

func TestATunnelIsDialledUnderTheSameRules(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) {
		c.Resolver = names{"here.test": loopback(1)}
		c.CheckAddr = func(a netip.AddrPort) error {
			if a != u.addr {
				return errDenied
			}
			return nil
		}
	})
	l, err := borrowTunnel(p, "here.test", u.addr.Port())
	if err != nil {
		t.Fatal(err)
	}
	l.Discard(pool.Tunnelled)
	var failed *pool.DialError
	if _, err := borrowTunnel(p, "here.test", testkit.Refused(t).Port()); !errors.As(err, &failed) || failed.Stage != pool.StagePolicy {
		t.Errorf("got %v", err)
	}
	if _, err := borrowTunnel(p, "gone.test", 80); !errors.As(err, &failed) || failed.Stage != pool.StageDNS {
		t.Errorf("got %v", err)
	}
}

// X4 of the catalogue.
func TestTheNextAddressIsTriedAndTheDeadOneAvoided(t *testing.T) {
	u := newUpstream(t)
	tried := make(chan netip.AddrPort, 100)
	p := newPool(t, reuse, func(c *pool.Config) {
		c.Resolver = names{"two.test": append(loopback(9), u.addr.Addr())}
		c.CheckAddr = func(a netip.AddrPort) error { tried <- a; return nil }
	})
	o := p.Origin(pool.Lookup{Host: []byte("two.test"), Port: u.addr.Port()})
	for i, want := range [][]netip.Addr{loopback(9, 1), loopback(1)} {
		l := acquire(t, o, pool.Ticket{Fresh: true})
		l.Discard(pool.NotKept)
		if l.Addr() != u.addr {
			t.Errorf("connected to %v", l.Addr())
		}
		for _, w := range want {
			if a := testkit.Await(t, "an address is tried", tried); a.Addr() != w {
				t.Errorf("dial %d tried %v, want %v", i, a, w)
			}
		}
		if len(tried) > 0 {
			t.Errorf("dial %d also tried %v", i, <-tried)
		}
	}
}

func TestADeniedAddressIsNotTakenForDead(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) {
		c.Resolver = names{"two.test": loopback(9)}
		c.CheckAddr = func(netip.AddrPort) error { return errDenied }
	})
	o := p.Origin(pool.Lookup{Host: []byte("two.test"), Port: u.addr.Port()})
	if failure(t, o); o.Avoided() != 0 {
		t.Error("it is avoided")
	}
}

func TestAddressesAreTriedWithTheFamiliesTakingTurns(t *testing.T) {
	addrs := func(s string) []netip.Addr {
		var list []netip.Addr
		for f := range strings.FieldsSeq(s) {
			list = append(list, netip.MustParseAddr(f))
		}
		return list
	}
	for name, c := range map[string]struct{ in, dead, want string }{
		"one":              {"127.0.0.1", "", "127.0.0.1"},
		"six first":        {"::1 ::2 ::3 127.0.0.1 127.0.0.2", "", "::1 127.0.0.1 ::2 127.0.0.2 ::3"},
		"four first":       {"127.0.0.1 127.0.0.2 ::1", "", "127.0.0.1 ::1 127.0.0.2"},
		"mapped":           {"::ffff:127.0.0.1 ::1", "", "127.0.0.1 ::1"},
		"dead ones last":   {"::1 ::2 127.0.0.1 127.0.0.2", "::1 127.0.0.1", "::2 127.0.0.2 ::1 127.0.0.1"},
		"all of them dead": {"127.0.0.1 127.0.0.2", "127.0.0.1 127.0.0.2", "127.0.0.1 127.0.0.2"},
		"long dead":        {"127.0.0.1 127.0.0.2", "", "127.0.0.1 127.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, reuse)
			o := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
			o.Avoid(netip.MustParseAddr("127.0.0.1"), time.Minute)
			for _, d := range addrs(c.dead) {
				o.Avoid(d, 0)
			}
			var got []string
			for _, a := range o.Order(addrs(c.in)...) {
				got = append(got, a.Addr().String())
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func TestAddressesThatWereDeadLongAgoAreForgotten(t *testing.T) {
	p := newPool(t)
	o := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
	for i := range 100 {
		o.Avoid(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), time.Minute)
	}
	if o.Avoid(netip.MustParseAddr("127.0.0.1"), 0); o.Avoided() != 1 {
		t.Errorf("%d are remembered", o.Avoided())
	}
}
