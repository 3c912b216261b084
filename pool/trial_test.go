package pool_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// trialServer is a server of TLS that knows HTTP/2, and closes what it is asked.
func trialServer(t *testing.T, cert tls.Certificate) netip.AddrPort {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).HandshakeContext(context.Background())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestATrialTellsOfEachStepAndLeavesNothing(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	at := trialServer(t, ca.issue(t, nil))
	p := newPool(t, func(c *pool.Config) {
		c.RootCAs, c.MaxConns, c.MaxConnsPerHost = ca.roots(), 1, 1
		c.Resolver = names{"good.test": {at.Addr()}}
	})
	o := p.Origin(pool.Lookup{TLS: true, Host: []byte("good.test"), Port: at.Port()})
	for _, c := range []struct{ offer, want string }{{"", "http/1.1"}, {"h2", "h2"}} {
		var offer []string
		if c.offer != "" {
			offer = []string{c.offer}
		}
		x := o.Try(t.Context(), offer...)
		if x.Err != nil || x.Addr != at || x.Connect <= 0 || x.TLS <= 0 || len(x.Tried) != 1 || x.Tried[0].Addr != at || x.Tried[0].Err != nil {
			t.Fatalf("offering %q: %+v", c.offer, x)
		}
		if x.State == nil || x.State.NegotiatedProtocol != c.want || len(x.State.VerifiedChains) == 0 {
			t.Errorf("offering %q: %+v", c.offer, x.State)
		}
	}
	if s := stats(t, p); s.Opened+s.DialErrors > 0 || s.Idle+s.InUse > 0 {
		t.Errorf("it counts as a request's: %+v", s)
	}
	if leases, slots := p.Open(); leases+slots > 0 {
		t.Errorf("%d connections are left, %d slots", leases, slots)
	}
}

func TestATrialTellsWhatFailed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	secure := trialServer(t, ca.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	u := newUpstreamAt(t, "127.0.0.1:0")
	errDenied := errors.New("denied")
	p := newPool(t, func(c *pool.Config) {
		c.RootCAs = ca.roots()
		c.Resolver = names{"refuses.test": loopback(9), "denied.test": loopback(3), "both.test": loopback(9, 1)}
		c.CheckAddr = func(a netip.AddrPort) error {
			if a.Addr() == loopback(3)[0] {
				return errDenied
			}
			return nil
		}
	})
	try := func(secured bool, host string, port uint16) pool.Trial {
		return p.Origin(pool.Lookup{TLS: secured, Host: []byte(host), Port: port}).Try(t.Context())
	}
	for name, c := range map[string]struct {
		x     pool.Trial
		stage pool.Stage
		is    func(error) bool
		tried int
	}{
		"no such name":   {try(false, "none.test", 80), pool.StageDNS, func(err error) bool { var d *net.DNSError; return errors.As(err, &d) }, 0},
		"refused":        {try(false, "refuses.test", u.addr.Port()), pool.StageConnect, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }, 2},
		"not allowed":    {try(false, "denied.test", u.addr.Port()), pool.StagePolicy, func(err error) bool { return errors.Is(err, errDenied) }, 1},
		"expired":        {try(true, "127.0.0.1", secure.Port()), pool.StageTLS, func(err error) bool { return strings.Contains(err.Error(), "expired") }, 1},
		"one is refused": {try(false, "both.test", u.addr.Port()), 0, nil, 0},
	} {
		var failed *pool.DialError
		switch {
		case c.stage == 0:
			if c.x.Err != nil || c.x.Addr != u.addr || c.x.TLS != 0 || c.x.State != nil {
				t.Errorf("%s: %+v", name, c.x)
			}
		case !errors.As(c.x.Err, &failed) || failed.Stage != c.stage || !c.is(c.x.Err) || len(c.x.Tried) != c.tried || c.x.State != nil:
			t.Errorf("%s: %+v", name, c.x)
		}
	}
}

func TestWhatThePoolHasForAnOriginIsTold(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	key := f.o.Key()
	if x, ok := f.pool.Inspect(pool.Key{Host: "other.test", Port: 80}); ok {
		t.Errorf("of nothing: %+v", x)
	}
	x, ok := f.pool.Inspect(key)
	if !ok || x.Idle+x.InUse > 0 || x.Next.Addr.IsValid() || len(x.Name.Addrs) > 0 || !x.Keeps {
		t.Errorf("before the first request: %+v", x)
	}
	if d := f.pool.Snapshot().DNS; d.LookUps > 0 {
		t.Error("the name was looked up")
	}
	l := acquire(t, f.o, pool.Ticket{})
	l.Hint(7, -1)
	l.Release()
	x, _ = f.pool.Inspect(key)
	if x.Idle != 1 || x.Opened != 1 || !x.Next.Idle || x.Next.Addr != l.Addr().Addr() || x.Next.Total != 2 || x.Hint != 7*time.Second {
		t.Errorf("with one idle: %+v", x)
	}
}
