package pool_test

import (
	"testing"
	"time"

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

func TestX4WhatCanBeSentTwiceTriesABenchedEndpointFirst(t *testing.T) {
	var b pool.Bench
	if !b.Admits(false, 3, 0) {
		t.Error("one that plays admits not all")
	}
	b.Begin(sec)
	for _, c := range []struct {
		replayable bool
		busy       int
		after      time.Duration // its time is over
		want       bool
	}{
		{true, 0, -1, false}, {false, 0, -1, false},
		{true, 0, 0, true}, {true, 1, 0, false}, {false, 0, 0, false},
		{false, 0, sec - 1, false}, {false, 0, sec, true}, {false, 1, sec, false},
	} {
		now := b.Until() + c.after
		if got := b.Admits(c.replayable, c.busy, now); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if b.End(); !b.Admits(false, 3, sec) {
		t.Error("it does not play again")
	}
}
