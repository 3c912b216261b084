package nameserver_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// lookUp asks by Go's resolver.
func lookUp(t *testing.T, s *nameserver.Server, network, name string) ([]netip.Addr, error) {
	t.Helper()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Addr().String())
	}}
	return r.LookupNetIP(t.Context(), network, name)
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestGoReadsTheAnswers(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("one.test.", time.Second, "127.0.0.5", "127.0.0.6", "::1")
	s.Set("none.test.", time.Second)
	s.Alias("alias.test.", "one.test.", time.Second)
	for _, name := range []string{"one.test.", "ONE.test.", "alias.test."} {
		if got, err := lookUp(t, s, "ip4", name); err != nil || !slices.Equal(got, addrs("127.0.0.5", "127.0.0.6")) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if got, err := lookUp(t, s, "ip6", name); err != nil || !slices.Equal(got, addrs("::1")) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	var dns *net.DNSError
	for _, name := range []string{"none.test.", "nowhere.test."} {
		if _, err := lookUp(t, s, "ip4", name); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.Remove("one.test.")
	if _, err := lookUp(t, s, "ip4", "one.test."); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("removed: %v", err)
	}
	s.Fail(dnsmessage.RCodeServerFailure)
	if _, err := lookUp(t, s, "ip4", "none.test."); !errors.As(err, &dns) || dns.IsNotFound || !dns.IsTemporary {
		t.Errorf("failing: %v", err)
	}
	s.Fail(dnsmessage.RCodeSuccess)
	if n, all := s.Count("one.test.", dnsmessage.TypeA), s.Count("", dnsmessage.TypeAAAA); n != 3 || all != 3 {
		t.Errorf("counted %d and %d", n, all)
	}
	s.Forget()
	if len(s.Queries()) != 0 {
		t.Errorf("not forgotten: %v", s.Queries())
	}
}

func TestMisdeeds(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	for name, do := range map[string]func(nameserver.Query, *nameserver.Reply){
		"a lie before the truth": func(_ nameserver.Query, r *nameserver.Reply) { r.WrongID, r.WrongName = true, true },
		"truncated":              func(q nameserver.Query, r *nameserver.Reply) { r.Truncated = true },
		"held up":                func(q nameserver.Query, r *nameserver.Reply) { r.Wait = held },
		"dropped": func(q nameserver.Query, r *nameserver.Reply) {
			r.Drop = q.Type == dnsmessage.TypeAAAA
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := nameserver.New(t)
			s.Set("one.test.", time.Second, "127.0.0.5")
			s.Do(do)
			done := testkit.In(func() error {
				got, err := lookUp(t, s, "ip4", "one.test.")
				if err == nil && !slices.Equal(got, addrs("127.0.0.5")) {
					t.Errorf("got %v", got)
				}
				return err
			})
			if name == "held up" {
				testkit.Eventually(t, "the question is there", func() bool { return s.Count("", dnsmessage.TypeA) > 0 })
				close(held)
			}
			if err := testkit.Await(t, "the answer", done); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLongAnswersGoByTCP(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	var many []string
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	s.Set("many.test.", time.Second, many...)
	if got, err := lookUp(t, s, "ip4", "many.test."); err != nil || len(got) != 200 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	if q := s.Queries(); len(q) != 2 || q[0].TCP || !q[1].TCP || q[1].Before != 1 {
		t.Errorf("asked %v", q)
	}
}

func TestItDiesAndComesBack(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("one.test.", time.Second, "127.0.0.5")
	s.Stop()
	if _, err := lookUp(t, s, "ip4", "one.test."); err == nil {
		t.Error("an answer by a dead server")
	}
	s.Start()
	if got, err := lookUp(t, s, "ip4", "one.test."); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
