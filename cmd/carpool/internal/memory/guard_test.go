package memory_test

import (
	"errors"
	"math"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
)

const mib = 1 << 20

// group is a Source that a test sets.
type group struct {
	limit, used, looks atomic.Int64
	broken             atomic.Bool
}

func (g *group) Limit() int64 { return g.limit.Load() }

func (g *group) Used() (int64, error) {
	g.looks.Add(1)
	if g.broken.Load() {
		return 0, errors.New("broken")
	}
	return g.used.Load(), nil
}

func (g *group) Close() {}

// rig is a Guard at work, in a bubble.
type rig struct {
	*memory.Guard
	group
	relieved     int
	began, ended int
	refused      uint64
}

func newRig(t *testing.T, limit, used int64) *rig {
	r := &rig{}
	r.limit.Store(limit)
	r.used.Store(used)
	r.Guard = memory.NewGuard(memory.Config{
		Source:  &r.group,
		Relieve: func(time.Duration) { r.relieved++ },
		Began:   func(memory.Stats) { r.began++ },
		Ended:   func(_ memory.Stats, refused uint64, _ time.Duration) { r.ended++; r.refused = refused },
	})
	r.Start()
	t.Cleanup(r.Guard.Close)
	return r
}

// after lets the guard do what it does in some time.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func TestWithoutALimitNothingIsRefusedOrLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0, 1<<40)
		for range 1000 {
			if !r.AdmitRequest(1) || !r.AdmitBuffer() {
				t.Fatal("refused")
			}
		}
		after(time.Minute)
		if r.looks.Load() != 0 || r.relieved != 0 || r.Stats() != (memory.Stats{}) {
			t.Errorf("%d looks, relieved %d times, %+v", r.looks.Load(), r.relieved, r.Stats())
		}
	})
}

func TestMemoryIsLookedAtOnceInManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 100*mib, 10*mib)
		for range 1279 { // half of 80 MiB by 32 KiB, less what is reserved for the one that runs
			if !r.AdmitRequest(1) {
				t.Fatal("refused")
			}
		}
		if n := r.looks.Load(); n != 1 {
			t.Errorf("%d looks, want 1", n)
		}
		for range 2 {
			r.AdmitRequest(1)
		}
		if n := r.looks.Load(); n != 2 {
			t.Errorf("%d looks after as many as could have taken half of the memory, want 2", n)
		}
	})
}

func TestWhatRunsHasSomethingReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !newRig(t, 100*mib, 80*mib).AdmitRequest(1000) || newRig(t, 100*mib, 80*mib).AdmitRequest(2000) {
			t.Error("10 MiB are left: a thousand requests that run do not use them up, two thousand do")
		}
	})
}

func TestBuffersAreRefusedBeforeRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 100*mib, 85*mib)
		if !r.AdmitRequest(1) || r.AdmitBuffer() {
			t.Error("at 85 percent requests are to be taken, and buffers are not")
		}
		after(300 * time.Millisecond)
		if r.relieved == 0 {
			t.Error("idle connections were not closed")
		}
		if s := r.Stats(); s.Shedding || s.Refused != 0 || r.began != 0 {
			t.Errorf("a small buffer counts as shedding: %+v", s)
		}
		r.used.Store(50 * mib)
		after(300 * time.Millisecond)
		if !r.AdmitBuffer() {
			t.Error("no buffers although there is memory again")
		}
	})
}

func TestAnEpisodeEndsWithSomeDistanceAndIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 100*mib, 50*mib)
		r.AdmitRequest(1)
		r.used.Store(91 * mib)
		after(300 * time.Millisecond)
		for range 7 {
			if r.AdmitRequest(1) {
				t.Fatal("admitted at 91 percent")
			}
		}
		for _, used := range []int64{95, 89, 81} {
			r.used.Store(used * mib)
			after(2 * time.Second)
			if r.AdmitRequest(1) {
				t.Fatalf("admitted at %d percent, after more than 90", used)
			}
		}
		if s := r.Stats(); !s.Shedding || s.Refused != 10 || s.Used != 81*mib || s.Limit != 100*mib || r.began != 1 || r.ended != 0 {
			t.Errorf("meanwhile %+v, told %d times that it began and %d that it ended", s, r.began, r.ended)
		}
		if r.relieved < 6 {
			t.Errorf("relieved %d times in 6 seconds", r.relieved)
		}
		r.used.Store(79 * mib)
		after(300 * time.Millisecond)
		if !r.AdmitRequest(1) || r.Stats().Shedding || r.began != 1 || r.ended != 1 || r.refused != 10 {
			t.Errorf("at the end %+v, told %d, %d, refused %d", r.Stats(), r.began, r.ended, r.refused)
		}
	})
}

// A burst that is over at once, or whose memory was idle connections', is an
// episode all the same, of a second: log lines must not come faster.
func TestAnEpisodeLastsASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 100*mib, 91*mib)
		if r.AdmitRequest(1) {
			t.Fatal("admitted")
		}
		synctest.Wait()
		if r.began != 1 || r.relieved != 1 {
			t.Errorf("told %d times, relieved %d times, at once", r.began, r.relieved)
		}
		r.used.Store(10 * mib)
		after(900 * time.Millisecond)
		if r.AdmitRequest(1) {
			t.Error("admitted after 0.9 s")
		}
		after(400 * time.Millisecond)
		if !r.AdmitRequest(1) || r.ended != 1 {
			t.Error("not over after 1.3 s")
		}
	})
}

func TestAKernelThatDoesNotTellStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 100*mib, 95*mib)
		if r.AdmitRequest(1) {
			t.Fatal("admitted at 95 percent")
		}
		r.broken.Store(true)
		after(2 * time.Second)
		if !r.AdmitRequest(1) || !r.AdmitBuffer() {
			t.Error("refused although nothing is known")
		}
	})
}

// It changes the limit of the test's own process for a moment.
func TestTheCollectorIsToldOfTheLimitAndOfItsChanges(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	synctest.Test(t, func(t *testing.T) {
		var source group
		source.limit.Store(1000 * mib)
		g := memory.NewGuard(memory.Config{Source: &source, SetGoLimit: true})
		g.Start()
		defer g.Close()
		if got := debug.SetMemoryLimit(-1); got != 750*mib {
			t.Errorf("told %d, want three quarters", got)
		}
		source.limit.Store(2000 * mib)
		after(11 * time.Second)
		if got := debug.SetMemoryLimit(-1); got != 1500*mib {
			t.Errorf("told %d after the limit was doubled", got)
		}
		source.limit.Store(0)
		after(11 * time.Second)
		if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
			t.Errorf("told %d after the limit was lifted", got)
		}
	})
	var limited group
	limited.limit.Store(1000 * mib)
	memory.NewGuard(memory.Config{Source: &limited})
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("told %d although GOMEMLIMIT is set", got)
	}
}
