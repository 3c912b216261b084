package pool

import "time"

// peak is how many connections an origin has needed at a time lately, and so how
// many are worth keeping. It is pure: it is told the time, and costs a request two
// comparisons. The zero value has an endless memory. The origin's mutex guards it.
//
// IDLE_TIMEOUT ends connections that nothing uses. Used in turn, though, a pool
// that a burst has made large stays large: one request a second is enough to keep
// fifty connections from being idle for long. So what is open beyond the greatest
// need of the recent past is closed, however lately it was used.
//
// The recent past is three minutes: for jobs that come each minute this closes
// nothing, and what a burst of 200 needed is gone a few minutes after it. Nothing is
// opened here either, so age and idle limits may end sooner what was needed: to
// replace connections again and again that nothing uses costs more than it saves.
// A longer memory would keep sockets open for an hour, in each upstream and from
// each pod, to save 200 handshakes an hour; who has such bursts and needs them fast
// names the upstream in WARM. It is never shorter than IDLE_TIMEOUT. So nothing is closed
// here sooner than IDLE_TIMEOUT after it was needed, and that setting means what it
// meant before.
type peak struct {
	width time.Duration // of a slot; 0: endless
	ends  time.Duration // when the slot ends that it is now
	now   int           // that slot's index
	most  [peakSlots + 1]int
}

const (
	peakWindow = 3 * time.Minute
	// peakSlots make up the window. One more, the one that goes on, is kept, so that
	// what is remembered is never less than the window.
	peakSlots = 6
)

// newPeak returns a peak for connections that may be idle for so long; 0 is for
// ever.
func newPeak(idleTimeout time.Duration) peak {
	if idleTimeout == 0 {
		return peak{}
	}
	return peak{width: max(peakWindow, idleTimeout) / peakSlots}
}

// needs notes that n connections are in use. It is called when the number has
// grown by one and when it is about to shrink, and may be called at other times.
func (p *peak) needs(n int, now time.Duration) {
	if now >= p.ends && p.width > 0 {
		p.turn(n, now)
	}
	p.most[p.now] = max(p.most[p.now], n)
}

// turn begins the slots that have begun since the last call, in which the number
// was what it is, or one less until just now.
func (p *peak) turn(n int, now time.Duration) {
	passed := int64((now-p.ends)/p.width) + 1
	p.ends += time.Duration(passed) * p.width
	for range min(passed, int64(len(p.most))) {
		p.now = (p.now + 1) % len(p.most)
		p.most[p.now] = max(n-1, 0)
	}
}

// recent returns the greatest number since the window began, as of the last call
// of needs.
func (p *peak) recent() (n int) {
	for _, m := range p.most {
		n = max(n, m)
	}
	return n
}

// surplus returns how many of so many open connections are to be closed now, at
// about a second after it was last asked. An eighth more than was needed may stay, and
// one at least: where connections are replaced the new one is there before the old
// one has gone. And an eighth goes at a time, so that neither upstream nor kernel
// sees all of a burst's connections end at once.
func (p *peak) surplus(open int) int {
	if p.width == 0 {
		return 0
	}
	n := p.recent()
	beyond := open - n - max(n/8, 1)
	if beyond <= 0 {
		return 0
	}
	return (beyond + 7) / 8
}
