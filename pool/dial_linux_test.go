package pool_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// X4 and X5 of the catalogue.
func TestAnAddressThatAnswersNothingIsPassedByAndAvoided(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	dead := netip.AddrPortFrom(loopback(7)[0], u.addr.Port())
	testkit.Blackhole(t, dead)
	tried := make(chan netip.AddrPort, 100)
	p := newPool(t, reuse, func(c *pool.Config) {
		c.Resolver = names{"two.test": {dead.Addr(), u.addr.Addr()}}
		c.CheckAddr = func(a netip.AddrPort) error { tried <- a; return nil }
	})
	o := p.Origin(pool.Lookup{Host: []byte("two.test"), Port: u.addr.Port()})
	start := time.Now()
	l := acquire(t, o, pool.Ticket{Fresh: true})
	if took := time.Since(start); l.Addr() != u.addr || took < 200*ms || took > 5*time.Second {
		t.Errorf("connected to %v after %v", l.Addr(), took)
	}
	l.Discard(pool.NotKept)
	if a, b := <-tried, <-tried; a != dead || b != u.addr {
		t.Errorf("tried %v, then %v", a, b)
	}
	acquire(t, o, pool.Ticket{Fresh: true}).Discard(pool.NotKept)
	if a := <-tried; a != u.addr || len(tried) > 0 {
		t.Errorf("the next time %v was tried first, %d more", a, len(tried))
	}
}

func TestAnOriginThatAnswersNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	dead := netip.AddrPortFrom(loopback(8)[0], u.addr.Port())
	testkit.Blackhole(t, dead)
	p := newPool(t, func(c *pool.Config) { c.DialTimeout = 50 * ms })
	err := failure(t, p.Origin(pool.Lookup{Host: []byte("127.0.0.8"), Port: dead.Port()}))
	var timeout net.Error
	if err.Stage != pool.StageConnect || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, at %s", err, err.Stage)
	}
}

// Time may be up before all addresses have had their turn: nothing is known of
// the rest.
func TestAddressesThatWereNotTriedAreNotAvoided(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	addrs := loopback(21, 22, 23)
	testkit.Blackhole(t, netip.AddrPortFrom(addrs[0], u.addr.Port()))
	p := newPool(t, reuse, func(c *pool.Config) {
		c.DialTimeout, c.Resolver = 50*ms, names{"many.test": addrs}
	})
	o := p.Origin(pool.Lookup{Host: []byte("many.test"), Port: u.addr.Port()})
	if err := failure(t, o); err.Stage != pool.StageConnect || o.Avoided() != 1 {
		t.Errorf("%v, %d addresses are avoided", err, o.Avoided())
	}
}

// X16 of the catalogue. This test must not run beside others.
func TestAnIdleConnectionMakesRoomWhenDescriptorsAreShort(t *testing.T) {
	a, b := newUpstream(t), newUpstream(t)
	p := newPool(t)
	fill(t, a, a.origin(p), 3)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	lowered := limit
	lowered.Cur = lowestFree(t)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lowered); err != nil {
		t.Skip(err)
	}
	l, err := b.origin(p).Acquire(&pool.Ticket{})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	evicted := uint64(0)
	for _, s := range p.Snapshot().Origins {
		evicted += s.Closed[pool.Evicted]
	}
	if evicted == 0 {
		t.Error("there was no shortage")
	}
}

// lowestFree returns the descriptor that would be given out next.
func lowestFree(t testing.TB) uint64 {
	t.Helper()
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if fd < 3 {
		t.Fatalf("descriptor %d", fd)
	}
	return uint64(fd)
}
