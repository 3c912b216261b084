package proxy

import (
	"os"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
)

// reins are the half of a session that other goroutines may pull: the sweeper, the
// roster, and Proxy.Close. They only ever interrupt: reads and writes under way on
// the session's two connections fail, and gone tells the session why.
type reins struct {
	// Set once.
	conn   *sock.Conn
	ticket *pool.Ticket
	run    func() // the session's turn on a goroutine; bound once, for a method value allocates

	seat // in the roster

	// mu guards what is below. Holding it keeps the session from closing its
	// connection or giving back its lease. It is never held across I/O that can
	// wait.
	mu       sync.Mutex
	phase    phase
	since    time.Duration // in this phase
	sweeps   int           // seen in this exchange
	gone     bool          // the client is, or the proxy is closing
	drowsy   bool          // idle long enough to go to sleep
	lease    *pool.Lease
	patient  bool // the lease's peer is to be looked after
	dead     bool // and was found dead
	answered bool // the head of the final response is there
	waiting  *pool.Origin
	flow     *flow // of what is tunnelled
	quiet    bool  // a tunnel that a drain need not wait for
}

type phase uint8

const (
	busy     phase = iota // with its own affairs
	idle                  // waiting for the next request
	carrying              // in an exchange
	tunnelling
)

// rest makes the session idle again, since when it was before.
func (r *reins) rest() {
	r.mu.Lock()
	r.phase = idle
	r.mu.Unlock()
}

// enter changes the phase and reports whether the session may go on. When it does so
// is asked of an idle one alone.
func (r *reins) enter(ph phase, now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase, r.sweeps = ph, 0
	if ph == idle {
		r.since = now
	}
	return !r.gone
}

// idleSince returns since when the session has been waiting for a request.
func (r *reins) idleSince() (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, r.phase == idle && !r.gone
}

// evict ends an idle session that is awake; one that sleeps has to be woken.
func (r *reins) evict() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase != idle || !r.conn.Interrupt() {
		return false
	}
	r.gone = true
	return true
}

// cut ends whatever the session is doing. It returns the tunnel that it may be, whose
// directions have to be woken.
func (r *reins) cut() *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.conn.Interrupt()
	r.interruptLocked()
	return r.flow
}

// cutFlow ends the session's tunnel.
func (r *reins) cutFlow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutFlowLocked()
}

func (r *reins) cutFlowLocked() {
	r.flow.cut = true
	r.conn.Interrupt()
	r.interruptLocked()
}

// interruptLocked ends the exchange or tunnel under way.
func (r *reins) interruptLocked() {
	if r.lease != nil {
		r.lease.Interrupt()
	}
	if r.waiting != nil {
		r.waiting.Cancel(r.ticket)
	}
}

// lookAfter is called once per sweep: it ends an exchange whose client has
// gone, and a tunnel of which nothing is left, and sends an idle session to
// sleep. If the upstream may not have turned to an exchange because another
// connection is in its way, it returns what ends that (see pool.Lease.Stalled), and
// of a tunnel that is to end what wakes its directions.
func (r *reins) lookAfter(now time.Duration, cfg *Config) (then func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweeps++
	switch {
	case r.phase == carrying && r.sweeps >= 2 && (r.gone || r.conn.PeerGone()):
		r.gone = true
		r.interruptLocked()
	case r.phase == carrying && r.patient && r.lease != nil && r.lease.Silent():
		r.dead = true
		r.lease.Interrupt()
	case r.phase == carrying && r.sweeps >= 2 && r.lease != nil:
		return r.lease.Stalled()
	case r.phase == tunnelling && r.flow != nil:
		if r.watchFlowLocked(now, cfg) {
			return r.flow.rouse
		}
	case r.phase == idle && r.sweeps >= sweepsToSleep && sock.CanWatch && cfg.ClientIdleTimeout == 0 && !r.gone:
		r.drowsy = r.conn.Interrupt()
	}
	return nil
}

// isGone reports whether nobody waits for the answer any more.
func (r *reins) isGone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// reined reports why the lease may have been interrupted: the client has gone, or
// the upstream was found dead.
func (r *reins) reined() (gone, dead bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone, r.dead
}

// hold makes a lease known to those who may interrupt it.
func (r *reins) hold(l *pool.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease, r.waiting, r.patient, r.dead, r.answered = l, nil, false, false, false
}

// letGo takes the lease from them. It reports why they may have interrupted it.
func (r *reins) letGo() (gone, dead bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone, dead = r.gone, r.dead
	r.lease, r.waiting, r.patient, r.dead = nil, nil, false, false
	return gone, dead
}

// beginFlow begins the time in which either side may be silent, or closed for
// writing.
func (r *reins) beginFlow(f *flow, now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.since = now
	r.phase, r.flow, r.sweeps = tunnelling, f, 0
}

// overhear is told that the upstream of a tunnel has spoken, or ended. That decides,
// and ends the wait for the client's word, unless the client has spoken HTTP: then it
// reports false.
func (r *reins) overhear(f *flow) (tunnel bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.meaning == unclear {
		f.meaning = otherwise
		_ = r.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return f.meaning == otherwise
}

// settle is told what the client of a tunnel has spoken, if that is not decided
// already, and returns what is decided.
func (r *reins) settle(f *flow, is speech) speech {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.meaning == unclear {
		f.meaning = is
	}
	r.resumeLocked()
	if f.cut { // by a deadline that may just have been overwritten
		r.conn.Interrupt()
	}
	return f.meaning
}

// resume lets the session wait for its client again, after a time limit, and reports
// whether it may.
func (r *reins) resume() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumeLocked()
	return !r.gone
}

// resumeLocked keeps a cut that came before in force.
func (r *reins) resumeLocked() {
	if !r.gone {
		_ = r.conn.SetReadDeadline(time.Time{})
	}
}

// endFlow ends it, before the tunnel is counted as ended, and returns what is
// to be said of it.
func (r *reins) endFlow() (detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flow != nil {
		detail = r.flow.overdue
	}
	if r.dead {
		detail = problemDead.text
	}
	r.flow, r.quiet = nil, false
	return detail
}

// watchFlowLocked ends a tunnel in which nothing moves any more, or of which one
// side is gone altogether: the client, when nobody reads from it who would notice,
// or the upstream, when it acknowledges nothing. It reports whether it did. One that is
// silent it sends to sleep.
func (r *reins) watchFlowLocked(now time.Duration, cfg *Config) (cut bool) {
	silence, half := r.flow.silence(now), r.flow.halfClosed()
	limit, detail := cfg.TunnelIdleTimeout, "nothing moved any more (CARPOOL_TUNNEL_IDLE_TIMEOUT)"
	if half {
		limit, detail = cfg.TunnelHalfClosedTimeout, "one side had ended and nothing moved any more (CARPOOL_TUNNEL_HALF_CLOSED_TIMEOUT)"
	}
	r.quiet = half && silence >= quietAfter
	if limit > 0 && silence >= limit && r.flow.overdue == "" {
		r.flow.overdue = detail
	}
	r.dead = r.dead || r.sweeps%sweepsToProbe == 0 && r.lease != nil && r.lease.Silent()
	switch {
	case r.flow.overdue != "" || r.dead || half && r.conn.Broken():
		r.cutFlowLocked()
		return true
	case silence >= drowsyAfter && r.flow.meaning == otherwise && sock.CanWatch && !r.gone && !r.flow.cut:
		for _, w := range r.flow.ways {
			if !w.drowsy { // or it sleeps already, or has ended
				w.drowsy = true
				_ = w.src.SetReadDeadline(time.Unix(1, 0)) // what it writes goes on
			}
		}
	}
	return false
}

// mayDoze reports whether a direction of the tunnel, which was interrupted, was so to
// fall asleep and for nothing else.
func (r *reins) mayDoze(w *way) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return w.drowsy && !r.gone && !w.t.flow.cut
}

// wakeUp lets a direction that has slept read again. A cut that came before stays in
// force.
func (r *reins) wakeUp(w *way) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.drowsy && !r.gone && !w.t.flow.cut {
		w.drowsy = false
		_ = w.src.SetReadDeadline(time.Time{})
	}
}

// isQuiet reports whether a drain need not wait for this session's tunnel.
func (r *reins) isQuiet() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quiet
}

// begin makes a request that is about to wait for a connection known, and reports
// whether it may go on.
func (r *reins) begin(o *pool.Origin) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase, r.sweeps, r.waiting = carrying, 0, o
	return !r.gone
}

// beginAgain does so for a request that is sent once more.
func (r *reins) beginAgain(o *pool.Origin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = o
}

// setPatient says whether the sweeper is to see to it that the upstream lives.
func (r *reins) setPatient(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.patient = on
}

// awaitHead bounds the wait for a response head after a request of which the
// last part went out late: the head may be there already.
func (r *reins) awaitHead(lease *pool.Lease, t time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.answered {
		return nil
	}
	return lease.SetReadDeadline(time.Now().Add(t))
}

// headCame lifts the bound that awaitHead has set, or keeps it from being set.
func (r *reins) headCame(lease *pool.Lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = true
	if r.gone {
		return os.ErrDeadlineExceeded
	}
	return lease.SetReadDeadline(time.Time{})
}

// close closes the client's connection, by a reset if abort says so, and lets go
// of everything.
func (r *reins) close(abort bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if abort {
		_ = r.conn.Abort()
	} else {
		_ = r.conn.Close()
	}
	r.phase, r.gone, r.drowsy, r.lease, r.waiting, r.flow, r.quiet = busy, false, false, nil, nil, nil, false
}

// abandon gives up, after a panic, what the session had borrowed.
func (r *reins) abandon() {
	r.mu.Lock()
	lease := r.lease
	r.lease = nil
	r.mu.Unlock()
	if lease != nil {
		lease.Discard(pool.BadAnswer)
	}
}
