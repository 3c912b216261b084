package pool_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// The greatest number of the last three minutes, to a slot of thirty seconds, is
// what a peak remembers, whatever came before.
func TestAPeakIsTheGreatestNumberOfTheWindow(t *testing.T) {
	const window, slot = 180 * sec, 30 * sec
	type change struct {
		at time.Duration
		n  int
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		p := pool.NewPeak(50 * sec)
		history, now, n := []change{{0, 0}}, time.Duration(0), 0
		for range 300 {
			switch now += time.Duration(r.Int64N(int64(r.IntN(100)+1) * int64(sec))); {
			case r.IntN(2) == 0:
				n++
				p.Needs(n, now)
			case n > 0:
				p.Needs(n, now)
				n--
			}
			history = append(history, change{now, n})
			p.Needs(n, now)
			// What was begun before the window may have gone on into it.
			least, most := n, n
			for i, c := range history {
				end := now
				if i+1 < len(history) {
					end = history[i+1].at
				}
				if end >= now-window {
					least = max(least, c.n)
				}
				if end >= now-window-slot {
					most = max(most, c.n)
				}
			}
			if got := p.Recent(); got < least || got > most {
				t.Fatalf("%d, want from %d to %d", got, least, most)
			}
		}
	}
}

func TestAPeakIsRememberedForIdleTimeoutAtLeast(t *testing.T) {
	for name, c := range map[string]struct {
		idleTimeout, past time.Duration
		want              int
	}{
		"a usual one, soon":     {50 * sec, 179 * sec, 7},
		"a usual one, later":    {50 * sec, 211 * sec, 0},
		"a long one, soon":      {time.Hour, 59 * time.Minute, 7},
		"a long one, later":     {time.Hour, 71 * time.Minute, 0},
		"none, for ever":        {0, 1000 * time.Hour, 7},
		"a very short one":      {ms, 179 * sec, 7},
		"after a year of sleep": {50 * sec, 365 * 24 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := pool.NewPeak(c.idleTimeout)
			p.Needs(7, 1000*sec)
			p.Needs(0, 1000*sec+c.past)
			if got := p.Recent(); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

// Connections that were in use for long were needed until they came back.
func TestAPeakCountsWhatWasInUseForLong(t *testing.T) {
	p := pool.NewPeak(50 * sec)
	p.Needs(200, 0)
	p.Needs(200, time.Hour) // the first of them comes back
	p.Needs(0, time.Hour+100*sec)
	if got := p.Recent(); got != 200 {
		t.Errorf("%d", got)
	}
}

func TestWhatABurstNeededGoesInSmallSteps(t *testing.T) {
	p := pool.NewPeak(50 * sec)
	p.Needs(200, 0)
	open, steps := 230, []int(nil)
	for now := time.Duration(0); now < 10*time.Minute; now += sec {
		p.Needs(2, now)
		n := p.Surplus(open)
		if open -= n; n > 0 {
			steps = append(steps, n)
		}
		if now < 170*sec && open < 200 {
			t.Fatalf("after %v %d are left", now, open)
		}
		if n > 30 {
			t.Fatalf("%d at once", n)
		}
	}
	if open != 3 || len(steps) < 8 {
		t.Errorf("%d are left, in steps of %v", open, steps)
	}
}

// Where connections are replaced there is one more for a moment.
func TestAReplacementIsNoSurplus(t *testing.T) {
	for needed := range 20 {
		p := pool.NewPeak(50 * sec)
		p.Needs(needed, 0)
		if n := p.Surplus(needed + 1); n != 0 {
			t.Errorf("%d were needed, one more is there, and %d are too many", needed, n)
		}
		if n := p.Surplus(needed + 20); n == 0 {
			t.Errorf("%d were needed, twenty more are there, and none is too many", needed)
		}
	}
}

// Used in turn, or lately, or not at all: what nobody needed for minutes goes.
func TestConnectionsBeyondTheRecentPeakAreRetired(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t, reuse)
	p.StopJanitor()
	o := u.origin(p)
	fill(t, u, o, 20)
	for range 5 {
		o.Tidy()
	}
	if s := stats(t, p); s.Idle != 20 {
		t.Fatalf("%d of what was needed just now are kept", s.Idle)
	}
	o.ForgetPeak()
	a, b := acquire(t, o, pool.Ticket{}), acquire(t, o, pool.Ticket{})
	a.Release()
	b.Release()
	for range 40 {
		o.Tidy()
	}
	if s := stats(t, p); s.Idle != 3 || s.Closed[pool.NotNeeded] != 17 || o.Peak() != 2 {
		t.Errorf("%d idle, a peak of %d, closed %v", s.Idle, o.Peak(), s.Closed)
	}
}

// A tunnel's connection comes from no idle one, and makes none.
func TestTunnelsAreNoPartOfThePeak(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	for range 5 {
		defer acquire(t, o, pool.Ticket{Virgin: true}).Discard(pool.Tunnelled)
	}
	acquire(t, o, pool.Ticket{}).Release()
	acquire(t, o, pool.Ticket{}).Discard(pool.NotKept)
	if got := o.Peak(); got != 1 {
		t.Errorf("a peak of %d", got)
	}
}
