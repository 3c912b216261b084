package pool

import "time"

// idleLimit learns after how long an upstream closes idle connections, from
// the closes that were seen.
//
// One close proves nothing: a server that restarts closes all its connections
// at whatever age they have. Two that agree, seen at different times, are
// taken for the server's limit. It is forgotten as soon as a connection is
// seen to outlive it, so what was learned wrongly does not stay.
type idleLimit struct {
	learned time.Duration // 0: not known

	candidate time.Duration // what the last closes agree on
	seen      int           // how often, 0: no candidate
	at        time.Duration // when it was seen last
}

const (
	// enoughCloses is how many closes have to agree.
	enoughCloses = 2
	// sameEvent is how close together in time closes count as one.
	sameEvent = 100 * time.Millisecond
)

// slack is how far apart two closes of the same limit can be: servers' timers
// are coarse.
func slack(d time.Duration) time.Duration { return d/10 + 100*time.Millisecond }

// margin is how long before a known limit a connection is no longer used: the
// server's timer may be early, and a request takes a while to arrive.
func margin(limit time.Duration) time.Duration {
	return min(max(limit/10, 500*time.Millisecond), limit/2)
}

// closedAfter notes that the upstream closed a connection that was idle so
// long, or that this turned out when it was used again.
func (l *idleLimit) closedAfter(idle, now time.Duration) {
	agrees := l.seen > 0 && (idle-l.candidate).Abs() <= slack(l.candidate)
	if l.seen > 0 && now-l.at < sameEvent {
		if agrees {
			l.candidate = min(l.candidate, idle)
		}
		return
	}
	l.at = now
	if !agrees {
		l.candidate, l.seen = idle, 1
		return
	}
	l.candidate = min(l.candidate, idle)
	if l.seen++; l.seen >= enoughCloses {
		l.learned = l.candidate
	}
}

// survived notes that a connection is still open, or was when it was used
// again, after being idle so long.
func (l *idleLimit) survived(idle time.Duration) {
	if l.learned > 0 && outlives(idle, l.learned) {
		l.learned = 0
	}
	if l.seen > 0 && outlives(idle, l.candidate) {
		l.seen = 0
	}
}

// refutedBy reports whether survived would change anything.
func (l *idleLimit) refutedBy(idle time.Duration) bool {
	return l.learned > 0 && outlives(idle, l.learned) || l.seen > 0 && outlives(idle, l.candidate)
}

func outlives(idle, limit time.Duration) bool { return idle > limit+2*slack(limit) }
