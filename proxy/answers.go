package proxy

import "github.com/carpoolproxy/carpool/pool"

// What the counters of an origin mean (pool.Stats.Tally). Those from 1 to 5 count
// answers by the first digit of their status.
const (
	// OwnAnswers counts answers that carpool made itself because something was
	// wrong; they are counted by their status too.
	OwnAnswers = 0
	// AnswerKinds is how many counters there are.
	AnswerKinds = 6
)

// countAnswer counts an answer that a client got. A status beyond 599 has no
// counter.
func countAnswer(o *pool.Origin, status int) {
	if class := status / 100; class < AnswerKinds {
		o.Tally(class)
	}
}
