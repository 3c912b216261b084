package names_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
	"github.com/carpoolproxy/carpool/pool/names"
)

func TestWhatIsAskedAndAnsweredIsTold(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("orders.shop.test.", 30*time.Second, "10.0.0.7")
	s.Do(func(q nameserver.Query, r *nameserver.Reply) {
		if q.Name == "fails." {
			r.RCode = dnsmessage.RCodeServerFailure
		}
	})
	var mu sync.Mutex
	var told []names.Asked
	ns := names.New(names.Config{
		ResolvConf: s.ResolvConf("search shop.test", "options ndots:5 attempts:1"), Hosts: os.DevNull, NSSwitch: os.DevNull, MinTTL: time.Second, MaxTTL: time.Minute,
		Asked: func(a names.Asked) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, a)
		},
	})
	defer ns.Close()
	of := func(name, kind string) (list []names.Asked) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range told {
			if a.Name == name && a.Type == kind {
				list = append(list, a)
			}
		}
		return list
	}
	ns.Explain(t.Context(), "orders")
	got := of("orders.shop.test.", "A")
	if len(got) != 1 || got[0].Code != "NOERROR" || got[0].Server != s.Addr() || got[0].TTL != 30*time.Second || got[0].Err != nil || got[0].Took <= 0 ||
		!slices.Equal(got[0].Addrs, []netip.Addr{netip.MustParseAddr("10.0.0.7")}) {
		t.Errorf("%+v", got)
	}
	if six := of("orders.shop.test.", "AAAA"); len(six) != 1 || six[0].Code != "NOERROR" || len(six[0].Addrs) > 0 {
		t.Errorf("%+v", six)
	}
	ns.Explain(t.Context(), "fails.")
	if got := of("fails.", "A"); len(got) == 0 || got[0].Code != "SERVFAIL" {
		t.Errorf("%+v", got)
	}
	ns.Explain(t.Context(), "nowhere.")
	if got := of("nowhere.", "A"); len(got) == 0 || got[0].Code != "NXDOMAIN" {
		t.Errorf("%+v", got)
	}
	s.Stop()
	ns.Explain(t.Context(), "late.")
	if got := of("late.", "A"); len(got) == 0 || got[0].Code != "" || got[0].Err == nil {
		t.Errorf("of a dead server: %+v", got)
	}
}

func TestWhereAddressesAreFromIsExplained(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("served.test.", time.Minute, "10.0.0.7")
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("10.0.0.8 listed.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ns := names.New(names.Config{ResolvConf: s.ResolvConf(), Hosts: hosts, NSSwitch: os.DevNull, MinTTL: time.Second})
	defer ns.Close()
	for host, want := range map[string]struct{ file, full string }{
		"listed.test": {hosts, ""}, "served.test": {"", "served.test."}, "localhost": {}, "10.0.0.9": {}, "nowhere.test": {},
	} {
		if x := ns.Explain(t.Context(), host); x.File != want.file || x.Full != want.full {
			t.Errorf("%s: %+v", host, x)
		}
	}
}

func TestWhatIsKnownOfANameIsExplainedWithoutALookUp(t *testing.T) {
	t.Parallel()
	s := nameserver.New(t)
	s.Set("served.test.", time.Minute, "10.0.0.7")
	ns := names.New(names.Config{ResolvConf: s.ResolvConf(), Hosts: os.DevNull, NSSwitch: os.DevNull, MinTTL: time.Second, MaxTTL: time.Minute})
	defer ns.Close()
	n := ns.Name("served.test", nil)
	defer n.Release()
	if x := n.Explain(); len(x.Addrs) > 0 || x.Err != nil || len(s.Queries()) > 0 {
		t.Errorf("%+v, asked %v", x, s.Queries())
	}
	if _, err := n.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x := n.Explain(); len(x.Addrs) != 1 || x.Full != "served.test." || x.Left <= 0 {
		t.Errorf("%+v", x)
	}
	s.Fail(dnsmessage.RCodeServerFailure)
	gone := ns.Name("gone.test", nil)
	defer gone.Release()
	_, err := gone.Wait(t.Context())
	if x := gone.Explain(); err == nil || !errors.Is(x.Err, err) {
		t.Errorf("%+v, want %v", x, err)
	}
}
