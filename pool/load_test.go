package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// answering returns a load with so many answers, one each 100 ms.
func answering(n int, took time.Duration) *pool.Load {
	var l pool.Load
	for i := range n {
		l.Answered(took, time.Duration(i)*100*ms)
	}
	return &l
}

// share is how often of a hundred times the first of two is used.
func share(a, b *pool.Load, busyA, busyB int, now time.Duration) (n int) {
	for i := range 100 {
		if pool.Lighter(a, b, busyA, busyB, float64(i)/100, now) {
			n++
		}
	}
	return n
}

func TestTheLessLoadedOfTwoIsUsed(t *testing.T) {
	failing := func(times int) *pool.Load {
		l := answering(10, ms)
		for range times {
			l.Failed(sec)
		}
		return l
	}
	for name, c := range map[string]struct {
		a, b         *pool.Load
		busyA, busyB int
		now          time.Duration
		least, most  int // how often of a hundred times a is used
	}{
		"nothing is known":                     {answering(0, 0), answering(0, 0), 0, 0, sec, 49, 51},
		"nothing but requests in flight":       {answering(0, 0), answering(0, 0), 1, 2, sec, 100, 100},
		"requests in flight come first":        {answering(10, sec), answering(10, ms), 0, 1, sec, 100, 100},
		"latency shifts":                       {answering(10, 10*ms), answering(10, 30*ms), 1, 1, sec, 74, 76},
		"it shifts not all":                    {answering(10, 10*sec), answering(10, ms), 0, 0, sec, 5, 7},
		"one that is unknown gets its share":   {answering(0, 0), answering(10, 40*ms), 0, 0, sec, 49, 51},
		"one failure says nothing":             {failing(1), answering(10, ms), 0, 0, sec, 49, 51},
		"two shift nearly all":                 {failing(2), answering(10, ms), 0, 0, sec, 0, 1},
		"so also if it has less in flight":     {failing(2), answering(10, ms), 0, 3, sec, 0, 3},
		"and more as they go on":               {failing(9), answering(10, ms), 0, 90, sec, 0, 3},
		"two that fail share":                  {failing(3), failing(3), 0, 0, sec, 49, 51},
		"a failure is forgotten":               {failing(9), answering(10, ms), 0, 0, 3 * time.Minute, 49, 51},
		"the latency of an answer that is off": {answering(10, -sec), answering(10, ms), 0, 0, sec, 49, 51},
	} {
		t.Run(name, func(t *testing.T) {
			if n := share(c.a, c.b, c.busyA, c.busyB, c.now); n < c.least || n > c.most {
				t.Errorf("it is used %d times of a hundred, want %d to %d", n, c.least, c.most)
			}
		})
	}
}

func TestALatencyDecays(t *testing.T) {
	l := answering(100, 100*ms)
	if got := l.Latency(); got != 100*ms {
		t.Fatalf("it is %v", got)
	}
	l.Answered(10*sec, 10*sec) // one that is slow for what it was asked
	if got := l.Latency(); got > 300*ms {
		t.Errorf("one slow answer makes it %v", got)
	}
	for i := range 600 {
		l.Answered(ms, 10*sec+time.Duration(i)*100*ms)
	}
	if got := l.Latency(); got > 5*ms {
		t.Errorf("a minute later it is %v", got)
	}
}

func TestFiveFailuresInARowAreEnoughForTheBench(t *testing.T) {
	var l pool.Load
	for i := range 12 {
		benched := l.Failed(sec)
		if i == 5 {
			l.Answered(ms, sec)
		} else if want := i == 4 || i >= 10; benched != want {
			t.Errorf("after failure %d: %v", i+1, benched)
		}
	}
}
