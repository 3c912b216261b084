package pool_test

import (
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

func TestX4ABenchGrows(t *testing.T) {
	var b pool.Bench
	now, want := sec, sec
	for range 10 {
		b.Begin(now)
		sits := b.Until() - now
		if sits < want || sits > want*3/2 {
			t.Errorf("it sits for %v, want %v and up to half as much again", sits, want)
		}
		b.Begin(now + sits/2) // what fails meanwhile is part of it
		if b.Until() != now+sits {
			t.Error("what fails while it sits makes it longer")
		}
		now, want = b.Until(), min(2*want, pool.LastBench)
	}
	b.End()
	b.Begin(now)
	if sits := b.Until() - now; sits > 3*sec/2 {
		t.Errorf("after it went well it sits for %v", sits)
	}
}

func TestX4OnlyWhatCanBeSentTwiceTriesABenchedEndpoint(t *testing.T) {
	var b pool.Bench
	if !b.Admits(false, 3, 0) {
		t.Error("one that plays admits not all")
	}
	b.Begin(sec)
	for _, c := range []struct {
		replayable bool
		busy       int
		late, want bool
	}{
		{true, 0, false, false}, {false, 0, false, false},
		{true, 0, true, true}, {true, 1, true, false}, {false, 0, true, false},
	} {
		now := b.Until() - 1
		if c.late {
			now++
		}
		if got := b.Admits(c.replayable, c.busy, now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if b.End(); !b.Admits(false, 3, sec) {
		t.Error("it does not play again")
	}
}
