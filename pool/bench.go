package pool

import (
	"math/rand/v2"
	"time"
)

// bench is where an endpoint sits that was found dead or failing. Its time there
// doubles each time it is found so again. When it is over the endpoint is on
// trial: it is used by one request at a time until one has gone well, and at first
// only by such as can be sent twice. Like manners it looks at no clock. The zero
// value is of an endpoint that plays.
//
// No bench keeps a request from being sent: where all endpoints sit on it none
// does.
type bench struct {
	why   string        // "": it plays
	until time.Duration // from then on it is on trial
	term  time.Duration // how long it sat last
}

// Why endpoints are benched.
const (
	benchRefused    = "cannot be connected to"
	benchSilent     = "does not answer a dial"
	benchDead       = "gave no sign of life"
	benchFailing    = "fails"
	benchOverloaded = "overloaded"
)

const (
	firstBench = time.Second
	lastBench  = 40 * time.Second // and half as much again, by chance
)

// begin has the endpoint sit, longer than the last time. What fails while it sits
// is part of the same event.
func (b *bench) begin(why string, now time.Duration) {
	if b.sits(now) {
		return
	}
	b.term = min(max(2*b.term, firstBench), lastBench)
	b.why, b.until = why, now+b.term+rand.N(b.term/2)
}

// keep has the endpoint sit for so long, lastBench at most.
func (b *bench) keep(why string, d, now time.Duration) {
	if d = min(d, lastBench); now+d > b.until {
		b.why, b.until = why, now+d
	}
}

// end has it play again.
func (b *bench) end() { *b = bench{} }

// connected notes that the endpoint could be connected to.
func (b *bench) connected() {
	if b.why != benchFailing && b.why != benchOverloaded {
		b.end()
	}
}

// sits reports whether the endpoint is to be left alone.
func (b *bench) sits(now time.Duration) bool { return b.why != "" && now < b.until }

// tried reports whether the endpoint is on trial.
func (b *bench) tried(now time.Duration) bool { return b.why != "" && now >= b.until }

// admits reports whether a request may use the endpoint, which has so many
// requests by now. There may be none that can be sent twice: after a while another
// will do.
func (b *bench) admits(replayable bool, busy int, now time.Duration) bool {
	return b.why == "" || now >= b.until && busy == 0 && (replayable || now >= b.until+b.term)
}
