package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// learnCrowd has room made as often as it takes to learn a bound of held.
func learnCrowd(c *pool.Crowd, held int, now time.Duration) {
	for range pool.EnoughTrials {
		c.Made(held, now)
		c.Answered(time.Second, 0, now+ms)
	}
}

func TestP27ABoundIsLearnedFromPromptAnswersAlone(t *testing.T) {
	for name, test := range map[string]struct {
		after  time.Duration // the answer comes so long after room was made
		others int           // that are served beside it
		held   []int
		want   int
	}{
		"prompt":                {ms, 0, []int{1, 1}, 1},
		"once":                  {ms, 0, []int{1}, 0},
		"the fewest":            {ms, 0, []int{5, 3, 4}, 3},
		"several workers":       {ms, 2, []int{3, 3}, 3},
		"late":                  {5 * time.Second, 0, []int{1, 1, 1, 1}, 0},
		"but others are served": {ms, 1, []int{1, 1, 1, 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var c pool.Crowd
			for _, held := range test.held {
				c.Made(held, time.Minute)
				c.Answered(ms, 0, time.Minute) // these say nothing of the trial
				c.AnsweredElsewhere(time.Second, time.Minute)
				c.Answered(time.Second+test.after, test.others, time.Minute+test.after)
			}
			if got := c.Bound(2 * time.Minute); got != test.want {
				t.Errorf("a bound of %d, want %d", got, test.want)
			}
		})
	}
}

func TestP27ABoundIsForgottenAndWidened(t *testing.T) {
	var c pool.Crowd
	learnCrowd(&c, 1, time.Minute)
	if got := c.Bound(time.Minute + pool.FirstTerm - time.Second); got != 1 {
		t.Errorf("a bound of %d", got)
	}
	end := time.Minute + pool.FirstTerm + time.Second
	if got := c.Bound(end); got != 0 {
		t.Errorf("a bound of %d, later", got)
	}
	c.Made(1, end) // once more is enough, and for longer
	c.Answered(time.Second, 0, end+ms)
	if got := c.Bound(end + 2*pool.FirstTerm - time.Second); got != 1 {
		t.Errorf("a bound of %d, learned again", got)
	}
	c.Answered(ms, 2, end+time.Second)
	if got := c.Bound(end + time.Second); got != 3 {
		t.Errorf("a bound of %d, want the 3 that were served at a time", got)
	}
}

func TestP27RoomIsMadeWhenItIsDue(t *testing.T) {
	var c pool.Crowd
	now := time.Hour
	due := func(waited time.Duration, held int, want bool) {
		t.Helper()
		if got := c.Due(waited, held, now); got != want {
			t.Errorf("%v beside %d: %v, want %v", waited, held, got, want)
		}
	}
	due(pool.RoomAfter, 1, true)
	due(pool.RoomAfter-ms, 1, false)
	due(time.Hour, 0, false)
	for range 4 { // all answers take that long
		c.Answered(time.Second, 0, now)
	}
	due(time.Second, 1, false)
	due(2*time.Second, 1, true)

	c.Answered(ms, 1, now) // two are served at a time
	due(2*time.Second, 2, true)
	due(2*time.Second, 1, false)
	due(pool.RarelyAfter, 1, true)
	now += pool.SeenFor + ms
	due(2*time.Second, 1, true)
}

// What many streams at a normal server cost is bounded: the pauses between trials
// that lead to nothing grow.
func TestP27RoomIsMadeEverMoreRarelyWhereItDoesNotHelp(t *testing.T) {
	var c pool.Crowd
	trials := 0
	for now := time.Duration(0); now < 24*time.Hour; now += pool.FirstPause {
		c.Answered(ms, 3, now)
		if c.Due(time.Minute, 2, now) {
			trials++
			c.Made(2, now)
			c.Answered(2*time.Minute, 2, now+time.Minute)
		}
	}
	if most := 12 + int(24*time.Hour/pool.LastPause); trials > most {
		t.Errorf("%d trials in a day, want at most %d", trials, most)
	}
}
