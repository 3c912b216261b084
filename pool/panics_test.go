package pool_test

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// A panic in what opens a connection fails who waits for it, and nobody else.
func TestPanicsOfDialsAreContained(t *testing.T) {
	for name, broken := range map[string]func(*pool.Config, *atomic.Bool){
		"in the check of an address": func(c *pool.Config, on *atomic.Bool) {
			c.CheckAddr = func(netip.AddrPort) error {
				if on.Load() {
					panic("this is a test")
				}
				return nil
			}
		},
		"in a look-up": func(c *pool.Config, on *atomic.Bool) {
			c.Resolver = look(func(context.Context) ([]netip.Addr, error) {
				if on.Load() {
					panic("this is a test")
				}
				return loopback(1), nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var on atomic.Bool
			var faults atomic.Int64
			u := newUpstream(t)
			p := newPool(t, atMost(1), func(c *pool.Config) {
				c.Resolver = names{"here.test": loopback(1)}
				c.Fault = func(what string, err error) {
					if strings.HasPrefix(what, "panic in ") && err.Error() == "this is a test" {
						faults.Add(1)
					}
				}
				broken(c, &on)
			})
			o := p.Origin(pool.Lookup{Host: []byte("here.test"), Port: u.addr.Port()})
			on.Store(true)
			for range 2 { // it gives its slot back
				if err := failure(t, o); !strings.Contains(err.Error(), "this is a test") {
					t.Errorf("failed with %v", err)
				}
			}
			on.Store(false)
			acquire(t, o, pool.Ticket{}).Release()
			if n := p.Snapshot().Panics; n != 2 || faults.Load() != 2 {
				t.Errorf("%d panics are counted, %d told", n, faults.Load())
			}
		})
	}
}

func TestPanicsOfTheWatcherAreContained(t *testing.T) {
	told := make(chan string, 1)
	p := newPool(t, func(c *pool.Config) { c.Fault = func(what string, _ error) { told <- what } })
	p.Stumble()
	if what := testkit.Await(t, "the panic is told", told); what != "panic in the watcher" {
		t.Errorf("told of a %s", what)
	}
}

func TestPanicsOfTheJanitorAreContained(t *testing.T) {
	t.Parallel()
	told := make(chan string, 100)
	p := newPool(t, func(c *pool.Config) { c.Fault = func(what string, _ error) { told <- what } })
	mend := p.Break()
	for range 2 { // it goes on
		if what := testkit.Await(t, "the panic is told", told); what != "panic in the janitor" {
			t.Errorf("told of a %s", what)
		}
	}
	mend()
	before := p.Lag()
	testkit.Eventually(t, "the janitor turns", func() bool { return p.Lag() < before || p.Lag() < 500*ms })
}
