package pool_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

func TestWhereARequestWouldGoIsExplained(t *testing.T) {
	f := newFleet(t, 3, func(c *pool.Config) { c.Identity = "a pod" })
	explain := func() pool.Explanation {
		t.Helper()
		x, err := f.o.Explain(context.Background(), false)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	prefers := pool.Rank("a pod", f.addrs)
	x := explain()
	if x.Idle || x.Addr != prefers[0] || x.Total != 3 || len(x.Addrs) != 3 || x.Addrs[0].Addr != prefers[0] || !x.Addrs[0].Chosen {
		t.Errorf("before the first request: %+v", x)
	}
	if s := stats(t, f.pool); s.Opened != 0 {
		t.Error("a connection was opened for it")
	}
	l := acquire(t, f.o, pool.Ticket{})
	if l.Addr().Addr() != x.Addr {
		t.Errorf("it went to %v, not to %v", l.Addr(), x.Addr)
	}
	if x := explain(); x.Idle || x.Addr != prefers[1] {
		t.Errorf("with one in use: %+v", x)
	}
	l.Release()
	if x := explain(); !x.Idle || x.Addr != l.Addr().Addr() || !strings.Contains(x.Why, "3 in all") {
		t.Errorf("with one idle: %+v", x)
	}
	f.o.Avoid(prefers[0], 0)
	if x := explain(); x.Addrs[0].Benched == "" || x.Addrs[0].Chosen {
		t.Errorf("benched: %+v", x)
	}
}

func TestWhatCannotBeLookedUpIsNotExplained(t *testing.T) {
	p := newPool(t, func(c *pool.Config) { c.Resolver = names{} })
	_, err := p.Origin(pool.Lookup{Host: []byte("none.test"), Port: 80}).Explain(context.Background(), true)
	var dns *net.DNSError
	if !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("got %v", err)
	}
}
