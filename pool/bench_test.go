package pool_test

import (
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
