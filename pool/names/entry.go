package names

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/carpoolproxy/carpool/internal/list"
)

// How much a name is used.
const (
	off    = iota // it is looked up when somebody waits for it
	asleep        // it is looked up again at its next use
	idle          // it was not used since the last look-up
	inUse
)

const (
	// refreshAt is the share of its time after which an answer is asked for anew.
	refreshAt = 0.8
	// firstRefresh is the least time before a name's first answer is asked for anew,
	// which is at any time before refreshAt: names that begin together would go on
	// so.
	firstRefresh = time.Second
	// suspectAfter is the least time between look-ups for Suspect.
	suspectAfter = time.Second
	// firstRetry is after how long a look-up that has failed is made again. It
	// doubles with each that fails, up to lastRetry, and up to maxDelay where a
	// request waits for it. Where addresses are left it is not made before it would
	// be if none had failed, of which no more than maxPeriod counts.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	maxDelay   = time.Second
	maxPeriod  = 30 * time.Second
	// tiredAfter is after how long without use a name is no longer looked up while
	// that fails.
	tiredAfter = 30 * time.Second
	// patience is how long a request waits for a look-up where there are old
	// addresses (RFC 8767 section 5).
	patience = 1800 * time.Millisecond
	// walkEvery is after how many answers the search list is walked again although a
	// full name is known: an earlier one may exist by now.
	walkEvery = 8
)

// entry is what is known of one name.
type entry struct {
	ns    *Names
	host  string
	fixed bool                // the host says itself what its addresses are: nothing else counts
	set   atomic.Pointer[Set] // what requests may use; nil if nothing
	use   atomic.Uint32
	stale atomic.Bool // set is past its time

	handles []*Name           // guarded by Names.mu
	node    list.Node[*entry] // in Names.released, guarded by Names.mu

	telling sync.Mutex // held while changed is called, and guards told
	told    uint64     // the Gen that the handles were told of

	// mu guards what is below. Names.mu may be taken while it is held.
	mu       sync.Mutex
	last     *Set          // the last answer, nil if that was believed to be none
	memory   memory        // makes sets of answers
	fresh    time.Time     // until when last stands
	doubt    bool          // last stands although the name is said to have no addresses
	full     string        // the full name that has answered; "" is none
	answers  int           // since the search list was walked
	err      error         // what the last look-up failed with
	denied   time.Time     // until when it is believed that there are no addresses
	failures int           // in turn
	retry    time.Time     // not before that
	period   time.Duration // after which the last answer is asked for anew; 0 is none
	due      time.Time     // when that is, or when the look-up that failed is made again
	began    time.Time     // when the last look-up did
	used     time.Time     // before which there was a use
	since    time.Time     // when stale began
	flight   *flight       // the look-up under way, or about to begin
	suspect  bool          // make another when it has landed
	timer    *time.Timer
}

// flight is a look-up. It answers, and lands when nothing more can come.
type flight struct {
	answered, landed chan struct{}
	first            bool // there was no answer before
	begun            bool // it is under way; guarded by the entry's mutex
	set              *Set // these may be read once it has answered
	err              error
}

func (f *flight) hasAnswered() bool {
	select {
	case <-f.answered:
		return true
	default:
		return false
	}
}

var errClosed = errors.New("the names are closed")

// wake begins a look-up of a name that is used again.
func (e *entry) wake() {
	if !e.use.CompareAndSwap(asleep, inUse) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.flight == nil {
		e.startLocked(0)
	}
}

// join returns the look-up to wait for, which it begins if need be, or what is
// known already.
func (e *entry) join() (*flight, *Set, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); e.flight == nil && e.set.Load() == nil {
		if now.Before(e.denied) {
			return nil, nil, e.err
		}
		e.startLocked(min(e.retry.Sub(now), maxDelay))
	}
	return e.flight, e.set.Load(), nil
}

// await waits for a look-up, but not for long if there are old addresses.
func (e *entry) await(ctx context.Context, f *flight) (*Set, error) {
	var enough <-chan time.Time
	if e.hasOld() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	for {
		select {
		case <-f.answered:
			return f.set, f.err
		case <-enough:
			if s := e.makeDo(f); s != nil {
				return s, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (e *entry) hasOld() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.oldLocked(time.Now())
}

// oldLocked reports whether there are addresses that may be used past their time.
func (e *entry) oldLocked(now time.Time) bool {
	return e.last != nil && now.Before(e.endLocked())
}

// endLocked returns until when the addresses may be used.
func (e *entry) endLocked() time.Time { return e.fresh.Add(e.ns.cfg.Stale) }

// makeDo returns old addresses, which are used from now on, while a look-up does
// not answer; nil if it has, or there are none.
func (e *entry) makeDo(f *flight) *Set {
	now := time.Now()
	e.mu.Lock()
	var note *Note
	if e.flight == f && !f.hasAnswered() && e.oldLocked(now) {
		note = e.serveOldLocked(timedOut(e.host), now)
		e.armByLocked(e.endLocked(), now)
	}
	s := e.set.Load()
	e.mu.Unlock()
	e.note(note)
	return s
}

// under returns the look-up under way, nil if there is none.
func (e *entry) under() *flight {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.flight
}

// startLocked begins a look-up after a while, at once if that is not more than 0.
func (e *entry) startLocked(after time.Duration) {
	f := &flight{answered: make(chan struct{}), landed: make(chan struct{}), first: e.period == 0}
	e.flight = f
	now := time.Now()
	if e.stale.Load() && e.oldLocked(now) {
		e.set.Store(e.last)
	}
	if e.set.Load() != nil {
		e.armByLocked(e.endLocked(), now)
	}
	begin := func() {
		if !e.ns.launch(e, f) {
			f.err = errClosed
			close(f.answered)
			close(f.landed)
		}
	}
	if after <= 0 {
		begin()
	} else {
		time.AfterFunc(after, begin)
	}
}

// fly is a look-up, from its begin to its end.
func (e *entry) fly(f *flight) {
	ctx, cancel := e.ns.bound()
	defer cancel()
	r := e.lookUp(ctx, f)
	if e.settle(f, &r, r.knows); r.late == nil {
		return
	}
	timer := time.NewTimer(lateWait)
	defer timer.Stop()
	p := family{}
	select {
	case p = <-r.late:
	case <-timer.C:
	case <-ctx.Done():
	}
	if r.late = nil; p.asked {
		r.put(p)
		e.settle(f, &r, func(a netip.Addr) bool { return a.Is4() == (p.kind == dnsmessage.TypeA) })
	} else {
		e.land(f)
	}
}

// lookUp asks for the addresses. A panic is an error.
func (e *entry) lookUp(ctx context.Context, f *flight) (r found) {
	ns := e.ns
	defer func() {
		if p := recover(); p != nil {
			r = found{err: ns.caught("a look-up", p)}
		}
	}()
	select {
	case ns.slots <- struct{}{}:
		defer func() { <-ns.slots }()
	case <-ctx.Done():
		return found{err: timedOut(e.host)}
	}
	ns.count.lookUps.Add(1)
	e.mu.Lock()
	e.began, f.begun = time.Now(), true
	known := memo{e.full, e.answers < walkEvery}
	e.mu.Unlock()
	r = ns.lookUp(ctx, e.host, known)
	ns.count.spared.Add(uint64(r.spared))
	return r
}

// land ends a flight.
func (e *entry) land(f *flight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.landLocked(f)
}

func (e *entry) landLocked(f *flight) {
	e.flight = nil
	close(f.landed)
	if e.suspect && e.set.Load() != nil {
		e.startLocked(time.Until(e.began.Add(suspectAfter)))
	}
	e.suspect = false
}

// settle takes what a look-up has found, and tells of it. Of the addresses that
// knows reports false of nothing new was heard.
func (e *entry) settle(f *flight, r *found, knows func(netip.Addr) bool) {
	defer e.ns.contain("a look-up")
	now := time.Now()
	var note *Note
	e.mu.Lock()
	set, err := (*Set)(nil), r.err
	switch {
	case err == nil:
		set, note = e.answeredLocked(r, knows, f.first, now)
	case isNotFound(err):
		set, note = e.deniedLocked(err, now)
	case e.ns.ctx.Err() == nil:
		e.ns.count.failed.Add(1)
		set, note = e.failedLocked(err, now)
	}
	if !f.hasAnswered() {
		if f.set = set; set == nil {
			f.err = err
		}
		close(f.answered)
	}
	if r.late == nil {
		e.landLocked(f)
	}
	e.mu.Unlock()
	e.tell()
	e.note(note)
}

// answeredLocked takes addresses, the first or later ones.
func (e *entry) answeredLocked(r *found, knows func(netip.Addr) bool, first bool, now time.Time) (*Set, *Note) {
	cfg := &e.ns.cfg
	if e.set.Load() == nil {
		e.memory.restart()
	}
	s := e.memory.take(r.addrs(e.ns.source), knows, now)
	s.whole = r.four.asked && r.six.asked
	hold := cfg.hold(r.ttl())
	if e.memory.doubts && !e.memory.rotates() { // so that it is known soon
		hold = min(hold, jitter(max(cfg.MinTTL, time.Second)))
	}
	if e.answers++; r.full != e.full || e.answers > walkEvery {
		e.full, e.answers = r.full, 0
	}
	e.last, e.fresh, e.doubt, e.used = s, now.Add(hold), false, now
	e.err, e.failures, e.retry, e.denied = nil, 0, time.Time{}, time.Time{}
	if hold <= 0 {
		e.set.Store(nil)
		e.use.Store(off)
	} else {
		e.set.Store(s)
		e.use.Store(idle)
		e.period = time.Duration(refreshAt * float64(hold))
		e.due = now.Add(e.period)
		after := e.period
		if least := min(after, firstRefresh); first {
			after = least + time.Duration(rand.Float64()*float64(after-least))
		}
		e.armLocked(after)
	}
	return s, e.currentLocked(nil, now)
}

// deniedLocked takes that there are no addresses. It is believed at the second
// time, if there were some.
func (e *entry) deniedLocked(err error, now time.Time) (*Set, *Note) {
	hold := jitter(e.ns.cfg.MinTTL)
	e.err, e.failures, e.full, e.retry = err, 0, "", time.Time{}
	if e.set.Load() != nil && !e.doubt && hold > 0 {
		e.doubt, e.fresh = true, now.Add(hold)
		e.period, e.due = hold, now.Add(hold)
		e.use.Store(idle)
		e.armLocked(hold)
		return e.last, nil
	}
	e.memory.clear()
	e.last, e.doubt, e.denied = nil, false, now.Add(hold)
	return nil, e.dropLocked(now)
}

// failedLocked takes that nothing is known of the addresses.
func (e *entry) failedLocked(err error, now time.Time) (*Set, *Note) {
	after := jitter(min(firstRetry<<min(e.failures, 10), lastRetry))
	e.failures++
	e.err, e.retry = err, now.Add(after)
	if !e.oldLocked(now) {
		return nil, e.dropLocked(now)
	}
	if e.use.Swap(idle) == inUse {
		e.used = now
	}
	// Unless they are given up before: then requests would wait.
	if usual := min(e.period, maxPeriod); now.Add(usual).Before(e.endLocked()) {
		after = max(after, usual)
	}
	e.due = now.Add(after)
	e.armByLocked(e.due, now)
	return e.last, e.serveOldLocked(err, now)
}

// serveOldLocked has the last addresses used, although they may be past their time,
// and notes it if they are.
func (e *entry) serveOldLocked(err error, now time.Time) *Note {
	e.set.Store(e.last)
	if now.Before(e.fresh) || e.stale.Swap(true) {
		return nil
	}
	e.since = now
	e.ns.count.staleNow.Add(1)
	return &Note{Host: e.host, Stale: true, Err: err}
}

// dropLocked has requests wait for the next look-up.
func (e *entry) dropLocked(now time.Time) *Note {
	e.set.Store(nil)
	e.use.Store(off)
	return e.currentLocked(e.err, now)
}

// currentLocked notes that no old addresses are used any more, and why.
func (e *entry) currentLocked(err error, now time.Time) *Note {
	if !e.stale.Swap(false) {
		return nil
	}
	e.ns.count.staleNow.Add(-1)
	return &Note{Host: e.host, For: now.Sub(e.since), Err: err}
}

// armByLocked arms the timer for then, or for when the addresses are past their
// time if look-ups fail, or given up, whichever comes first.
func (e *entry) armByLocked(then, now time.Time) {
	after := min(then.Sub(now), e.endLocked().Sub(now))
	if e.failures > 0 && now.Before(e.fresh) {
		after = min(after, e.fresh.Sub(now))
	}
	e.armLocked(after)
}

func (e *entry) armLocked(after time.Duration) {
	if e.timer == nil {
		e.timer = time.AfterFunc(max(after, 0), e.tick)
	} else {
		e.timer.Reset(max(after, 0))
	}
}

// halt stops the timer.
func (e *entry) halt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
	}
}

// tick does what time brings about: it asks again, notes that addresses are old,
// gives them up, or lets an unused name sleep, or forgets it.
func (e *entry) tick() {
	defer e.ns.contain("a look-up")
	e.mu.Lock()
	note, sleeps := e.tickLocked(time.Now())
	if sleeps && e.ns.forget(e) {
		note = e.currentLocked(e.err, time.Now())
	}
	e.mu.Unlock()
	e.note(note)
}

func (e *entry) tickLocked(now time.Time) (_ *Note, sleeps bool) {
	failing := e.failures > 0 && now.Sub(e.used) < tiredAfter
	switch {
	case e.set.Load() == nil || e.ns.ctx.Err() != nil:
	case !e.oldLocked(now) && (e.flight != nil || e.failures > 0):
		return e.dropLocked(now), false
	case e.flight != nil && e.flight.hasAnswered(): // it waits for the rest
		e.armByLocked(now.Add(firstRefresh), now)
	case e.flight != nil || e.failures > 0 && now.Before(e.due):
		then := e.due
		if e.flight != nil {
			then = e.endLocked()
		}
		e.armByLocked(then, now)
		if e.failures > 0 {
			return e.serveOldLocked(e.err, now), false
		}
	case e.use.Load() == inUse || failing:
		e.startLocked(0)
	case now.Before(e.due): // the first time, which is early
		e.armLocked(e.due.Sub(now))
	case now.Before(e.fresh):
		e.armLocked(e.fresh.Sub(now))
	case e.use.CompareAndSwap(idle, asleep):
		e.set.Store(nil)
		return nil, true
	default: // used this very moment
		e.startLocked(0)
	}
	return nil, false
}

// tell tells the handles of addresses that have come or gone, if they are
// remembered.
func (e *entry) tell() {
	e.telling.Lock()
	defer e.telling.Unlock()
	e.mu.Lock()
	s, kept := &Set{Gen: e.memory.gen}, true
	if e.last != nil {
		s, kept = e.last, e.set.Load() != nil
	}
	e.mu.Unlock()
	if !kept || s.Gen == e.told {
		return
	}
	e.told = s.Gen
	for _, n := range e.ns.handles(e) {
		if n.changed != nil {
			n.changed(s)
		}
	}
}

func (e *entry) note(n *Note) {
	if n != nil && e.ns.cfg.Note != nil {
		e.ns.cfg.Note(*n)
	}
}

// knows reports whether an answer would have named an address that is not in it.
func (f *found) knows(a netip.Addr) bool {
	if a.Is4() {
		return f.four.asked
	}
	return f.six.asked
}
