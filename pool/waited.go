package pool

import "time"

// Waited is where the time went in which a request waited for a connection. The
// zero value is of one that did not wait.
type Waited struct {
	// DNS, Connect and TLS are the steps of the dial that ended the wait, with a
	// connection or with an error, as far as they took place in it. TLS is 0 for
	// origins without it, and has the time to the settings of HTTP/2 in it. All are 0 if it was ended by a connection that came free.
	// Queue is the rest.
	Queue, DNS, Connect, TLS time.Duration
}

// total is the whole wait.
func (w *Waited) total() time.Duration { return w.Queue + w.DNS + w.Connect + w.TLS }

// Waited says how the last Acquire with t has waited, be it in vain.
func (t *Ticket) Waited() Waited { return t.spent }

// course is when a dial was through with its steps, on the pool's clock; 0 for those
// that it has not come to. The zero value is of no dial.
type course struct {
	began   time.Duration
	through [StageHTTP2 + 1]time.Duration
}

// of divides a wait from one time to another into the steps that took place in it.
func (c *course) of(since, until time.Duration) (w Waited) {
	w.Queue = until - since
	from := c.began
	for _, step := range [...]struct {
		stage Stage
		took  *time.Duration
	}{{StageDNS, &w.DNS}, {StageConnect, &w.Connect}, {StageTLS, &w.TLS}, {StageHTTP2, &w.TLS}} {
		to := c.through[step.stage]
		if d := min(to, until) - max(from, since); d > 0 {
			*step.took += d
			w.Queue -= d
		}
		from = to
	}
	return w
}

// FirstByte returns how long after the connection was lent the first byte came on
// it, or, if none has come, how long ago that is.
func (l *Lease) FirstByte() time.Duration {
	if r := &l.report; r.answered {
		return r.took
	}
	return l.origin.pool.now() - l.report.began
}
