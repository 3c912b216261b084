package pool_test

import (
	"net/netip"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

func TestAcquireAndReleaseDoNotAllocate(t *testing.T) {
	if testkit.Race {
		t.Skip("cannot be counted under the race detector")
	}
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	acquire(t, o, pool.Ticket{}).Release()
	k := pool.Ticket{Replayable: true}
	if n := testing.AllocsPerRun(200, func() {
		l, err := o.Acquire(&k)
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Neither over many addresses nor in turn.
func TestAChoiceDoesNotAllocate(t *testing.T) {
	if testkit.Race {
		t.Skip("cannot be counted under the race detector")
	}
	for name, c := range map[string]struct{ addrs, chosen, width int }{
		"one address":                         {1, 1, 1},
		"one address, in turn":                {1, 1, 8},
		"few addresses of many":               {40, 3, 3},
		"all addresses":                       {40, 40, 40},
		"few addresses, each of them in turn": {3, 3, 12},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c.addrs)
			f.open(t, 4)
			f.o.Choose(c.chosen, c.width)
			k := pool.Ticket{Replayable: true}
			if n := testing.AllocsPerRun(500, func() {
				l, err := f.o.Acquire(&k)
				if err != nil {
					t.Fatal(err)
				}
				l.Release()
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkAcquireAndRelease(b *testing.B) {
	u := newUpstream(b)
	p := newPool(b)
	o := u.origin(p)
	acquire(b, o, pool.Ticket{}).Release()
	k := pool.Ticket{Replayable: true}
	b.ReportAllocs()
	for b.Loop() {
		l, err := o.Acquire(&k)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

func BenchmarkAcquireAndReleaseTLS(b *testing.B) {
	s, _, o := newSecure(b)
	l, _ := s.connect(b, o, pool.Ticket{})
	l.Release()
	k := pool.Ticket{Replayable: true}
	b.ReportAllocs()
	for b.Loop() {
		l, err := o.Acquire(&k)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

func BenchmarkAcquireAndReleaseInParallel(b *testing.B) {
	u := newUpstream(b)
	p := newPool(b)
	o := u.origin(p)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		k := pool.Ticket{Replayable: true}
		for pb.Next() {
			l, err := o.Acquire(&k)
			if err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}

// opening opens a connection to one more origin each time, where so many have one.
func opening(b *testing.B, origins int) {
	u := newUpstreamAt(b, "0.0.0.0:0")
	p := newPool(b)
	p.StopJanitor()
	p.SetMaxOrigins(origins)
	addr := func(i int) []byte {
		return netip.AddrFrom4([4]byte{127, byte(i >> 16), byte(i >> 8), byte(i)}).AppendTo(nil)
	}
	for i := range origins {
		o := p.Origin(pool.Lookup{Host: addr(i + 1), Port: u.addr.Port()})
		acquire(b, o, pool.Ticket{}).Release()
	}
	next := origins
	b.ReportAllocs()
	for b.Loop() {
		next++
		o := p.Origin(pool.Lookup{Host: addr(next), Port: u.addr.Port()})
		acquire(b, o, pool.Ticket{}).Release()
	}
}

// Both cost the same.
func BenchmarkOneMoreOriginThan100(b *testing.B)   { opening(b, 100) }
func BenchmarkOneMoreOriginThan10000(b *testing.B) { opening(b, 10000) }

// A name with very many addresses, each with a connection, costs what others cost.
func BenchmarkAcquireAndReleaseOf1000Addresses(b *testing.B) {
	f := newFleet(b, 250)
	f.o.Choose(250, 0)
	f.open(b, 1)
	more := f.addrs
	for i := range 750 {
		more = append(more, netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}))
	}
	f.o.Moved(more...)
	k := pool.Ticket{Replayable: true}
	b.ReportAllocs()
	for b.Loop() {
		l, err := f.o.Acquire(&k)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
