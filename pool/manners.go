package pool

import "time"

// manners is what an origin has learned about how its server treats
// connections, and what follows for who may use one. All of it follows from
// what was seen and when: nothing here looks at a clock or at a connection.
// The zero value knows nothing bad.
type manners struct {
	// never says that the operator lets no connection be kept.
	never bool
	// most is how long the operator lets a connection be idle and still be used; 0
	// is without bound.
	most   time.Duration
	limit  idleLimit
	haste  haste
	strays strays
	crowd  crowd
}

// A server that closes connections soon after an answer has no idle limit: it
// restarts, it counts requests, or it closes after every answer.
const (
	// brief is below what a close of an idle connection says nothing of a limit.
	brief = 900 * time.Millisecond
	// settled is how long a connection has been idle when it has outlived what
	// comes shortly after an answer: such a close, or late bytes.
	settled = brief + 100*time.Millisecond
)

// closedAfter notes that the upstream closed a connection that was idle for so
// long, or that this turned out when it was used again. idle is 0 if it was
// closed as the answer came, or handed from one request to the next.
func (m *manners) closedAfter(idle, now time.Duration) {
	if idle < brief {
		m.haste.closed()
		return
	}
	m.limit.closedAfter(idle, now)
}

// survived notes that a connection carried another exchange after being idle
// for so long.
func (m *manners) survived(idle time.Duration) {
	m.haste.survived()
	m.limit.survived(idle)
}

// strayed notes that bytes came that no request had asked for.
func (m *manners) strayed(now time.Duration) { m.strays.came(now) }

// keeps reports whether connections are kept after an exchange at all.
func (m *manners) keeps(now time.Duration) bool { return !m.never && !m.strays.banned(now) }

// rest is how long a connection must have been idle for a request to take it;
// 0 for any that was not closed. One that has to rest is not handed straight
// from one request to the next.
func (m *manners) rest(replayable bool, now time.Duration) time.Duration {
	if m.strays.suspected(now) || !replayable && m.haste.hasty() {
		return settled
	}
	return 0
}

// usable is how long a connection may have been idle for a request to take it,
// as far as the upstream is known; hint is what it said itself, 0 for nothing.
func (m *manners) usable(hint time.Duration, replayable bool) time.Duration {
	bound := time.Duration(1<<63 - 1)
	if m.most > 0 {
		bound = m.most
	}
	for _, known := range [...]time.Duration{hint, m.limit.learned} {
		if known == 0 {
			continue
		}
		safe := known - margin(known)
		if !replayable {
			safe = known / 2
		}
		bound = min(bound, safe)
	}
	return bound
}

// crowded reports whether the server is known to serve only so many connections at
// a time that more than are needed are in the way of one another.
func (m *manners) crowded(now time.Duration) bool { return m.crowd.bound(now) > 0 }

// alone reports whether connections to one address are better not used in turn: the
// server has few workers, or closes what it has answered on, or connections have to
// rest.
func (m *manners) alone(now time.Duration) bool {
	return m.crowded(now) || m.haste.hasty() || m.strays.suspected(now)
}

// outworn reports whether a connection that has been idle for so long is past
// what any request may take by the limit that was learned.
func (m *manners) outworn(idle time.Duration) bool { return idle > m.usable(0, true) }

// haste measures how often an upstream closes connections shortly after an
// answer, of which nothing in the answer told. A close counts for as much as
// fifty exchanges that went well, so one in about fifty is enough for a server
// to be called hasty. Closes between which nothing went well count for two at
// most: a process that ends closes all its connections, of which each may have
// served thousands, and the first exchange that goes well refutes it.
type haste struct {
	score int
	run   int // closes since an exchange went well
}

const (
	hasteOfClose = 50
	hasteEnough  = 2 * hasteOfClose
	hasteMost    = 4 * hasteOfClose
)

func (h *haste) closed() {
	if h.run++; h.run <= 2 {
		h.score = min(h.score+hasteOfClose, hasteMost)
	}
}

func (h *haste) survived() {
	h.run = 0
	if h.score > 0 {
		h.score--
	}
}

func (h *haste) hasty() bool { return h.score >= hasteEnough }

// strays remembers that an upstream sent bytes that no request had asked for.
// Nothing tells a late one of them from an answer to the next request if it
// looks like an answer. So connections to such an upstream are not kept for a
// while, a longer one each time it happens again; and for some minutes after
// that they are used only after a rest, in which strays are noticed.
type strays struct {
	term  time.Duration // how long the last ban was; 0: there was none
	until time.Duration // when it ends
}

const (
	firstBan = 10 * time.Second
	lastBan  = 20 * time.Minute
	// probation is how long after a ban strays are still reckoned with.
	probation = 10 * time.Minute
)

func (s *strays) came(now time.Duration) {
	switch {
	case s.banned(now): // of a connection that is closed anyway
	case s.suspected(now):
		s.term = min(2*s.term, lastBan)
	default:
		s.term = firstBan
	}
	s.until = now + s.term
}

func (s *strays) banned(now time.Duration) bool { return s.term > 0 && now < s.until }

func (s *strays) suspected(now time.Duration) bool { return s.term > 0 && now < s.until+probation }
