package pool

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// Warmth is how many connections are worth having open to an origin before there
// are requests for them.
type Warmth struct {
	Key
	// Conns is how many, in use or idle; 1 or more.
	Conns int
}

const (
	// warmDials is how many dials are under way at a time for one origin's warmth.
	warmDials = 4
	// steadyAfter is how long a connection has been open that is worth having before
	// there is a request for it.
	steadyAfter = 5 * time.Second
	// warmLead is how long before its end a connection is replaced: the janitor looks
	// once a second, and a dial takes a while.
	warmLead = 2 * janitorPeriod
	// Waits between attempts to get warm again, in which nothing is dialled. After an
	// eviction it is the second at least: memory or descriptors are short.
	firstWarmWait   = time.Second
	evictedWarmWait = 10 * time.Second
	lastWarmWait    = time.Minute
	// primedFor is how long origins are kept warm that were used before a restart.
	primedFor = 20 * time.Second
	// primeEvery is how long after one such origin it is the next one's turn.
	primeEvery = 50 * time.Millisecond
)

// warmth is what keeps connections open to an origin that no request has asked
// for. The origin's mutex guards it. The zero value keeps none.
//
// It never has more than other limits leave: MaxConnsPerHost, MaxIdlePerHost,
// MaxConns, and not one where connections are not kept. Its dials wait for no
// slot, and none is made while a request waits for one. A connection of its own is
// evicted like any other when descriptors or memory are short.
type warmth struct {
	want   int           // for good
	primed int           // for a while,
	until  time.Duration // which ends then
	listed bool          // the janitor looks at this origin

	next time.Duration // nothing is dialled before
	wait time.Duration // how long the last wait was; 0: all is well
	cold error         // what has been told of, until it is over
	told func(error)   // nil: nobody is told

	tried chan struct{} // closed when all are there, or could not be had; nil: nobody waits
}

// Warm keeps connections open to these origins, from now on until Close, and
// returns when they are there, have failed once, or ctx ends. A connection that
// ends is replaced within a second or two. Where that fails it is tried again, after
// growing waits of a minute at most. Of two with the same Key the greater counts.
//
// told, if not nil, is told when connections to an origin cannot be had, once until
// they can, and then with nil. It may be called from any goroutine and must not
// wait.
func (p *Pool) Warm(ctx context.Context, list []Warmth, told func(Key, error)) {
	var origins []*Origin
	for _, w := range list {
		if err := p.checkWarm(w.Key); err != nil {
			if told != nil {
				told(w.Key, err)
			}
			continue
		}
		origins = append(origins, p.warm(w.Key, func(o *Origin) {
			o.warmth.want = max(o.warmth.want, w.Conns)
			if o.warmth.tried == nil {
				o.warmth.tried = make(chan struct{})
			}
			if told != nil {
				o.warmth.told = func(err error) { told(o.key, err) }
			}
		}))
	}
	for _, o := range origins {
		select {
		case <-o.warmTried():
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
}

// Prime opens connections to origins that are likely to be used soon, one origin
// after the other, without a word if it fails. Those that no request has taken after
// some seconds are like any other. It returns when it has begun with all, or ctx
// ends.
func (p *Pool) Prime(ctx context.Context, list []Warmth) {
	turn := time.NewTicker(primeEvery)
	defer turn.Stop()
	for _, w := range list {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
		if p.checkWarm(w.Key) != nil {
			continue
		}
		p.warm(w.Key, func(o *Origin) {
			o.warmth.primed, o.warmth.until = w.Conns, o.pool.now()+primedFor
		})
	}
}

func (p *Pool) checkWarm(k Key) error {
	if p.cfg.CheckWarm == nil {
		return nil
	}
	return p.cfg.CheckWarm(k)
}

// warm changes an origin's warmth and begins to see to it.
func (p *Pool) warm(k Key, change func(*Origin)) *Origin {
	for {
		o := p.Origin(k.Lookup())
		p.mu.Lock()
		o.mu.Lock()
		gone := o.gone.Load()
		if !gone {
			change(o)
			if !o.warmth.listed {
				o.warmth.listed = true
				p.warmed = append(p.warmed, o)
			}
		}
		o.mu.Unlock()
		p.mu.Unlock()
		if !gone {
			o.rewarm()
			return o
		}
	}
}

// Hottest returns the origins that have needed most connections at a time lately,
// most first, and how many; of those only whose connections were used more than
// once, since others are not served by one that is open.
func (p *Pool) Hottest(most int) []Warmth {
	var hot []Warmth
	for _, o := range p.all() {
		o.mu.Lock()
		o.peak.needs(o.carrying, p.now())
		n, reused := o.peak.recent(), o.stats.Reused > 0
		o.mu.Unlock()
		if n > 0 && reused {
			hot = append(hot, Warmth{o.key, n})
		}
	}
	// Package sort: slices would add its sorting of these large values to the binary.
	sort.Slice(hot, func(i, j int) bool {
		a, b := &hot[i], &hot[j]
		return cmp.Or(cmp.Compare(b.Conns, a.Conns), cmp.Compare(a.String(), b.String())) < 0
	})
	return hot[:min(len(hot), most)]
}

// tendWarm sees to all warm origins, once a second.
func (p *Pool) tendWarm() {
	p.mu.Lock()
	list := slices.Clone(p.warmed)
	p.mu.Unlock()
	for _, o := range list {
		o.tendWarm(p.now())
	}
}

// tendWarm opens what is missing, and takes the origin off the list when its time
// is over.
func (o *Origin) tendWarm(now time.Duration) {
	o.mu.Lock()
	over := o.warmth.wanted(now) == 0
	told := o.recoverLocked(now)
	o.mu.Unlock()
	if over {
		o.pool.coolDown(o)
		return
	}
	if told != nil {
		told(nil)
	}
	o.rewarm()
}

// coolDown takes an origin off the list of those that are warm.
func (p *Pool) coolDown(o *Origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.warmth.wanted(p.now()) > 0 {
		return
	}
	o.warmth = warmth{}
	p.warmed = slices.DeleteFunc(p.warmed, func(w *Origin) bool { return w == o })
}

// wanted is how many connections are wanted, other limits aside.
func (w *warmth) wanted(now time.Duration) int {
	if now < w.until {
		return max(w.want, w.primed)
	}
	return w.want
}

// goalLocked is how many connections are kept open, as far as other limits go.
func (o *Origin) goalLocked(now time.Duration) int {
	n := o.warmth.wanted(now)
	if n == 0 || !o.manners.keeps(now) || o.manners.crowded(now) { // what is idle may have the only worker
		return 0
	}
	cfg := &o.pool.cfg
	n = min(n, cfg.MaxIdlePerHost)
	if cfg.MaxConnsPerHost > 0 {
		n = min(n, cfg.MaxConnsPerHost)
	}
	return n
}

// warmLocked counts connections that serve requests, idle ones included, and how
// many of them will still in a moment.
func (o *Origin) warmLocked(now time.Duration) (open, lasting int) {
	lasting = o.carrying + o.landing
	for n := o.idle.free.Front(); n != nil; n = n.Next() {
		if !o.endsLocked(n.Value, now) {
			lasting++
		}
	}
	return o.carrying + o.landing + o.idle.free.Len() + o.shared.resting(), lasting + o.shared.resting()
}

// endsLocked reports whether an idle connection is soon of no more use, or retired,
// where no other replaces it: one that was used has its replacement by age.
func (o *Origin) endsLocked(l *Lease, now time.Duration) bool {
	usable := o.manners.usable(l.hint, true)
	return l.requests == 0 && l.aged(now+warmLead) || now-l.idleSince > usable-min(warmLead, usable/4)
}

// rewarm begins the dials that are missing, as many at a time as there may be.
func (o *Origin) rewarm() {
	for range warmDials {
		if !o.pool.dialAhead(o, o.warmingLocked) {
			break
		}
	}
	o.mu.Lock()
	now := o.pool.now()
	open, _ := o.warmLocked(now)
	if open-o.landing >= o.goalLocked(now) || o.queue.dialing+o.landing == 0 { // or there are no more to be had
		o.warmth.settled()
	}
	o.mu.Unlock()
}

// warmingLocked begins a dial if one more is to begin now, or returns nil.
func (o *Origin) warmingLocked() *opening {
	if !o.coldLocked() {
		return nil
	}
	return o.queue.beginForNone()
}

// coldLocked reports whether one more dial is to begin now.
func (o *Origin) coldLocked() bool {
	now := o.pool.now()
	if w := &o.warmth; w.wanted(now) == 0 || now < w.next || o.queue.dialing >= warmDials {
		return false
	}
	open, lasting := o.warmLocked(now)
	goal := o.goalLocked(now)
	return lasting+o.queue.dialing < goal && open+o.queue.dialing <= 2*goal // none of them may last
}

// settled says to who waits that the first attempt is over.
func (w *warmth) settled() {
	if w.tried != nil {
		close(w.tried)
		w.tried = nil
	}
}

// warmTried returns a channel that is closed when the first attempt is over.
func (o *Origin) warmTried() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.warmth.tried != nil {
		return o.warmth.tried
	}
	over := make(chan struct{})
	close(over)
	return over
}

// warmLostLocked notes that a connection has ended. One that carried nothing and
// did not last was opened for nothing, and so would the next be. It returns what
// tells of that, nil if there is nothing to tell.
func (o *Origin) warmLostLocked(l *Lease, reason Reason, now time.Duration) (tell func()) {
	w := &o.warmth
	switch {
	case w.wanted(now) == 0:
		return nil
	case reason == Evicted:
		w.backOff(evictedWarmWait, now)
		return nil
	case l.requests > 0, l.carries, now-l.born >= steadyAfter, reason == Shutdown, reason == MaxIdle, reason == NotNeeded, reason == AddressGone, reason == TLSChanged:
		return nil
	}
	return w.failed(errors.New("a connection that has carried no request did not last: "+string(reason)), now)
}

// failed notes that a dial has failed, or has brought nothing that lasts. It
// returns what tells of it, nil if there is nothing to tell.
func (w *warmth) failed(err error, now time.Duration) (tell func()) {
	if w.wanted(now) == 0 {
		return nil
	}
	w.backOff(firstWarmWait, now)
	if w.cold != nil || w.told == nil {
		return nil
	}
	w.cold = err
	told := w.told
	return func() { told(err) }
}

// backOff puts off the next dial, for longer each time. What fails together, such
// as the connections to a server that ends, counts once.
func (w *warmth) backOff(least, now time.Duration) {
	if now < w.next {
		return
	}
	w.wait = min(max(2*w.wait, least), lastWarmWait)
	w.next = now + w.wait*3/4 + rand.N(w.wait/2)
}

// recoverLocked ends the waits when all connections are there and last. It returns
// who is to be told, nil if nobody is.
func (o *Origin) recoverLocked(now time.Duration) (told func(error)) {
	w := &o.warmth
	if w.wait == 0 || now < w.next {
		return nil
	}
	steady := o.carrying
	for n := o.idle.free.Front(); n != nil; n = n.Next() {
		if l := n.Value; l.requests > 0 || now-l.born >= steadyAfter {
			steady++
		}
	}
	if steady < max(o.goalLocked(now), 1) {
		return nil
	}
	w.wait = 0
	if w.cold == nil {
		return nil
	}
	w.cold = nil
	return w.told
}
