package status

import (
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// recent knows when counters of what went wrong last went up, as far as they
// were looked at: every samplePeriod at least. It is safe for concurrent use.
type recent struct {
	mu   sync.Mutex // guards seen
	seen map[string]mark
}

// mark is what a counter was when it was looked at, and when it had gone up.
type mark struct {
	n  uint64
	at time.Time // zero: it is 0
}

// Names of counters.
func errorKey(kind string) string         { return "error " + kind }
func failedKey(origin string) string      { return "failed " + origin }
func serverErrorKey(origin string) string { return "5xx " + origin }

// note looks at the counters. Those that are there no more are forgotten.
func (r *recent) note(now time.Time, s *pool.Snapshot, p *proxy.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]mark, len(r.seen))
	note := func(key string, n uint64) {
		m := r.seen[key]
		if n > m.n {
			m.at = now
		}
		seen[key] = mark{n, m.at}
	}
	for kind, n := range p.Errors {
		note(errorKey(kind), n)
	}
	for i := range s.Origins {
		o := &s.Origins[i]
		note(failedKey(o.Origin), o.Tally[proxy.OwnAnswers])
		note(serverErrorKey(o.Origin), serverErrors(&o.Stats))
	}
	r.seen = seen
}

// last says how long ago a counter has gone up, "" if it never has.
func (r *recent) last(key string, now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.seen[key].at
	if at.IsZero() {
		return ""
	}
	passed := now.Sub(at)
	if passed <= samplePeriod {
		return "just now"
	}
	return duration(passed.Truncate(time.Second)) + " ago"
}
