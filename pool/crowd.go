package pool

import "time"

// crowd learns that a server serves only so many connections to an address at a
// time, idle ones included: it has one worker for each (Apache prefork), or one
// altogether (http.server of Python, firmware). A connection more is accepted by
// the kernel, and no byte of an answer comes on it until another one closes. Like
// manners it looks at no clock and at no connection. The zero value knows of no
// bound.
//
// A slow answer looks the same. So room is made, by closing what is idle, for the
// request of which nothing is known but that it waits: that costs a new connection
// later on. Something is learned only from what follows. An answer that comes
// promptly then, several times, teaches how many were too many. An answer that
// comes on a new connection while others are open shows that these were not: it
// widens the bound, and makes it rare that room is made at all. What was learned
// is forgotten after a while, and learned again, at the price of one wait, for
// longer.
//
// The bound only says which connections are kept. Requests beyond it get their
// connection and wait at the server, as they would without carpool: it knows best
// when it has time, no stream on one connection can keep the others from being
// opened, and what was learned wrongly makes no request wait.
type crowd struct {
	most  int           // connections to an address, as learned; 0: no bound is known
	until time.Duration // when that is forgotten
	term  time.Duration // for how long it was believed last

	trial trial
	right int // trials in a row that were followed by a prompt answer,
	held  int // and the fewest connections that were open besides in one of them

	atOnce int           // connections to an address seen to be served at a time
	seen   time.Duration // when
	next   time.Duration // where that many are: before this no room is made
	pause  time.Duration // how long this was put off last

	first typical // from a request on a new connection to the first byte of the answer
}

// trial is the last time that room was made, if it is not known yet what has
// come of it.
type trial struct {
	to   *endpoint // nil: there is no trial
	at   time.Duration
	held int // how many connections were open besides
}

const (
	// roomAfter is how long a request waits at least before room is made for it,
	// and rarelyAfter how long if the server was seen to serve as many connections
	// as there are.
	roomAfter   = 250 * time.Millisecond
	rarelyAfter = 4 * time.Second
	// promptly is how soon an answer comes at least that had waited for room.
	promptly = 100 * time.Millisecond
	// enoughTrials is how many trials have to agree.
	enoughTrials = 2
	// A bound is believed for firstTerm, and twice as long each time that it is
	// learned again, up to lastTerm.
	firstTerm = 5 * time.Minute
	lastTerm  = 80 * time.Minute
	// What was seen at a time holds for seenFor. More than enoughAtOnce need not be
	// told apart.
	seenFor      = 10 * time.Minute
	enoughAtOnce = 16
	// Between trials that lead to nothing, where they are rare, pass firstPause and
	// then twice as long each time, up to lastPause.
	firstPause = time.Second
	lastPause  = 10 * time.Minute
)

// bound returns how many connections to an address are kept while more are
// open; 0 is without bound.
func (c *crowd) bound(now time.Duration) int {
	if c.most == 0 || now >= c.until {
		return 0
	}
	return c.most
}

// slow is what is not yet long for an answer of this server.
func (c *crowd) slow() time.Duration { return min(max(2*c.first.value, roomAfter), rarelyAfter) }

// due reports whether room is to be made for a request that has been without a
// byte of an answer for so long, while so many connections besides are open.
func (c *crowd) due(waited time.Duration, held int, now time.Duration) bool {
	switch {
	case held == 0 || waited < c.slow():
		return false
	case c.serves(held+1, now):
		return waited >= rarelyAfter && now >= c.next
	}
	return true
}

// serves reports whether the server was lately seen to serve n at a time.
func (c *crowd) serves(n int, now time.Duration) bool { return c.served(now) >= min(n, enoughAtOnce) }

// served returns how many it was lately seen to serve at a time.
func (c *crowd) served(now time.Duration) int {
	if now-c.seen > seenFor {
		c.atOnce = 0
	}
	return c.atOnce
}

// tells reports whether it would be something new that n connections are served
// at a time.
func (c *crowd) tells(n int, now time.Duration) bool {
	return c.served(now) < min(n, enoughAtOnce)
}

// made notes that room was made at an address where so many connections are open
// besides those that wait for it.
func (c *crowd) made(e *endpoint, held int, now time.Duration) {
	c.trial = trial{e, now, held}
	if c.serves(held+1, now) {
		c.pause = min(max(2*c.pause, firstPause), lastPause)
		c.next = now + c.pause
	}
}

// answered notes the first byte on a new connection to an address, so long after
// its request was sent. held is on how many others an answer has come before, and
// served how many others the server is seen to serve now.
func (c *crowd) answered(e *endpoint, took time.Duration, held, served int, now time.Duration) {
	at := c.trial.at
	if c.reached(e, took, now) {
		took, held = now-at, 0
	}
	if held == 0 || took < c.slow() { // or else others may have been in its way
		c.first.add(took)
	}
	if served > 0 {
		c.together(served+1, now)
	}
}

// reached judges the trial that was made at an address, when the server has turned
// to the first connection that was waiting by then, which it has done for so long.
// It reports whether there was one.
func (c *crowd) reached(e *endpoint, waited, now time.Duration) bool {
	t := c.trial
	if t.to != e || now-waited+roomAfter > t.at {
		return false
	}
	c.trial = trial{}
	if now-t.at > max(promptly, c.slow()-roomAfter) {
		c.right = max(c.right-1, 0)
		return true
	}
	if c.right++; c.right == 1 || t.held < c.held {
		c.held = t.held
	}
	c.atOnce, c.next, c.pause = 0, 0, 0
	if c.right >= enoughTrials {
		c.believe(now)
	}
	return true
}

// believe begins the time in which what the trials have taught is believed.
func (c *crowd) believe(now time.Duration) {
	switch forgotten := c.until + c.term; {
	case c.term == 0 || now >= forgotten:
		c.term = firstTerm
	case now >= c.until:
		c.term = min(2*c.term, lastTerm)
	}
	c.most, c.until = c.held, now+c.term
}

// together notes that n connections were seen to be served at a time.
func (c *crowd) together(n int, now time.Duration) {
	if n >= c.served(now) {
		c.atOnce, c.seen = n, now
	}
	if n > c.held {
		c.right = 0
	}
	if b := c.bound(now); b > 0 && n > b {
		c.most = n
	}
}
