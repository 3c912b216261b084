package pool

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool/h2"
)

// A connection in HTTP/2 carries many requests at a time. What is borrowed then is a
// stream: a Lease as any other, which has no bytes of its own but Stream2. The
// connection is one lease too, the carrier's, that nobody borrows: to the pool it is
// in use as long as it has streams, and idle between them, when idle limits, ages and
// evictions end it like any other.
//
// Which version an origin speaks turns out in the handshake (ALPN). So while that is
// not known, or a connection that carries many is about to be there, the requests
// that come wait for one dial and do not each begin one; for loneFor at most, and not
// after a dial has failed.

const (
	// loneFor is how long requests wait for one dial.
	loneFor = time.Second
	// manyStreams is how many requests at a time on each connection make another one
	// worth having, up to fewCarriers. Beyond that only the limit of the server counts.
	manyStreams = 32
	fewCarriers = 2
)

// shared are the connections of an origin that carry many requests at a time. The
// origin's mutex guards it, but for what is set once.
type shared struct {
	// Set once.
	offer bool // the origin may be spoken to in HTTP/2
	prior bool // it is, without asking it (H2C)

	plain    bool       // the last handshake chose HTTP/1.1
	carriers []*carrier // those that may get more requests, idle ones included
	renew    *carrier   // one that is to be replaced; nil: none
	turns    uint64     // counts requests
	figures  h2.Figures // of those that are no more
}

// carrier is a connection that carries many requests at a time.
type carrier struct {
	lease    *Lease
	conn     *h2.Conn
	finished chan struct{} // closed when nothing follows any more from its end

	// Guarded by the origin's mutex.
	joined  bool   // the origin knows it
	leaving Reason // why it gets no more requests; "": it does
	over    bool   // it has ended
	parting bool   // it is closed when it has
	streams int    // requests that it carries
	turn    uint64 // when it got the last one, of shared.turns
}

// resting is how many of the connections are idle.
func (s *shared) resting() (n int) {
	for _, c := range s.carriers {
		if c.lease.node.Listed() {
			n++
		}
	}
	return n
}

// shares reports whether a stream will do for the request.
func (t *Ticket) shares() bool { return !t.Virgin && !t.Connect && !t.Exclusive }

// HTTP2 returns the stream that is lent, nil if it is a whole connection.
func (l *Lease) HTTP2() *h2.Stream { return l.stream }

// MayShare reports whether requests to the origin may share connections, in which
// case a server can say that it has done nothing of one.
func (o *Origin) MayShare() bool { return o.shared.offer }

// Answered notes that the answer on a stream has begun.
func (l *Lease) Answered() {
	if r := &l.report; !r.answered {
		r.answered, r.took = true, l.origin.pool.now()-r.began
	}
}

// SetReadDeadline implements net.Conn.
func (l *Lease) SetReadDeadline(t time.Time) error {
	if l.stream != nil {
		l.stream.SetReadDeadline(t)
		return nil
	}
	return l.Stream.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (l *Lease) SetWriteDeadline(t time.Time) error {
	if l.stream != nil {
		l.stream.SetWriteDeadline(t)
		return nil
	}
	return l.Stream.SetWriteDeadline(t)
}

// share begins HTTP/2 on a new connection, and waits until the peer has said what it
// takes: a first burst is not to run into a limit that is on its way.
func (m *making) share(ctx context.Context) error {
	l := m.lease
	p := l.origin.pool
	c := &carrier{lease: l, finished: make(chan struct{})}
	c.conn = h2.New(h2.Config{Transport: l.Stream, MaxHeader: p.cfg.MaxHeader, Events: c})
	l.carrier = c
	p.mu.Lock()
	p.carriers[c] = struct{}{}
	p.mu.Unlock()
	go c.run()
	select {
	case <-c.conn.Ready():
		return c.conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run reads from a connection until it is over, and all has followed from that.
func (c *carrier) run() {
	p := c.lease.origin.pool
	defer close(c.finished)
	defer func() {
		p.mu.Lock()
		delete(p.carriers, c)
		p.mu.Unlock()
	}()
	defer p.contain("an HTTP/2 connection")
	c.conn.Run()
}

// awaitShared waits until nothing is done any more by connections that carry nothing.
func (p *Pool) awaitShared() {
	p.mu.Lock()
	list := slices.Collect(maps.Keys(p.carriers))
	p.mu.Unlock()
	for _, c := range list {
		o := c.lease.origin
		o.mu.Lock()
		busy := c.streams > 0
		o.mu.Unlock()
		if !busy {
			<-c.finished
		}
	}
}

// closeConn closes a connection, of whatever kind, when nobody uses it.
func (l *Lease) closeConn() {
	if l.carrier != nil {
		l.carrier.conn.Close()
	}
	_ = l.conn.Close() // TLS needs no close_notify: the framing is HTTP's
}

// rideLocked lends a stream, nil if there is none that the request may have. Of the
// connections that may be used it takes the one with the fewest requests, of these
// one to an address in use, and of these the one whose turn it is. due reports that
// another one is worth having.
func (o *Origin) rideLocked(t *Ticket, now time.Duration) (l *Lease, due bool) {
	s := &o.shared
	if len(s.carriers) == 0 || !o.manners.keeps(now) {
		return nil, false
	}
	q := o.requestLocked(t, now)
	best := o.sharedForLocked(t, &q)
	due = s.renew != nil
	if best == nil {
		return nil, due
	}
	return o.boardLocked(best, now), due || s.crowded()
}

// sharedForLocked returns the connection that a request shares, nil if there is none.
func (o *Origin) sharedForLocked(t *Ticket, q *request) (best *carrier) {
	chance := rand.Float64()
	for _, c := range o.shared.carriers {
		ok, renew := o.admitsLocked(c, t, q)
		if renew {
			o.shared.renew = c
		}
		if ok && (best == nil || better(c, best, chance, q.now)) {
			best = c
		}
	}
	return best
}

// better reports whether of two connections the first is to be used.
func better(a, b *carrier, chance float64, now time.Duration) bool {
	ea, eb := a.lease.endpoint, b.lease.endpoint
	switch {
	case ea.chosen != eb.chosen:
		return ea.chosen
	case ea != eb && ea.load.fine(now)+eb.load.fine(now) > 0:
		return lighter(&ea.load, &eb.load, ea.busy(), eb.busy(), chance, now)
	case a.streams != b.streams:
		return a.streams < b.streams
	}
	return a.turn < b.turn
}

// admitsLocked reports whether a request may go on a connection, and whether that is
// to be replaced.
func (o *Origin) admitsLocked(c *carrier, t *Ticket, q *request) (ok, renew bool) {
	l := c.lease
	idle := l.node.Listed()
	switch {
	case c.leaving != "", c.streams == 0 && !idle, idle && !q.fits(l):
		return false, false
	case l.endpoint.leaving, q.bench && !l.endpoint.bench.admits(q.replayable, l.endpoint.busy(), q.now):
		return false, false
	case t.Fresh && l.id <= t.tried && o.mayDialLocked(): // it has just failed there
		return false, false
	}
	if l.secured != o.tls {
		c.leaving = TLSChanged
		return false, false
	}
	if most := o.pool.cfg.MaxRequests; most > 0 && l.requests >= most {
		c.leaving = MaxRequests
		return false, false
	}
	if l.aged(q.now) {
		var is bool
		if is, renew = o.overdueLocked(l, q.now); is {
			c.leaving = MaxAge
			return false, false
		}
	}
	return c.streams < c.conn.Limit(), renew
}

// crowded reports whether another connection is worth having.
func (s *shared) crowded() bool {
	usable, many := 0, true
	for _, c := range s.carriers {
		most := c.conn.Limit() * 3 / 4
		if c.leaving != "" || most == 0 {
			continue
		}
		if usable++; c.streams < min(most, manyStreams) {
			return false
		}
		many = many && c.streams >= most
	}
	return usable > 0 && (usable < fewCarriers || many)
}

var streamLeases = sync.Pool{New: func() any { return new(Lease) }}

// boardLocked puts a request on a connection, nil if that takes none after all.
func (o *Origin) boardLocked(c *carrier, now time.Duration) *Lease {
	st := c.conn.Open()
	if st == nil {
		return nil
	}
	of := c.lease
	idled := time.Duration(0)
	if of.node.Listed() {
		idled = now - of.idleSince
		of.node.Leave()
	}
	if c.streams == 0 {
		o.carryLocked(of, now)
	} else {
		of.endpoint.riding++
	}
	c.streams++
	o.shared.turns++
	c.turn = o.shared.turns
	l := streamLeases.Get().(*Lease)
	*l = Lease{
		origin: o, carrier: c, stream: st, id: of.id, addr: of.addr, endpoint: of.endpoint, requests: of.requests, idled: idled,
		carries: true, // as the connection does
	}
	l.reused, l.report.began = l.requests > 0, now
	l.heard.Store(true)
	of.requests++
	return l
}

// alight gives a stream back. reason says why what was on it did not come to a good
// end, "" if it did.
func (l *Lease) alight(reason Reason) {
	l.comeBack()
	c, o := l.carrier, l.origin
	l.stream.Close()
	rival, _ := o.pool.rival(o)
	now := o.pool.now()
	broke := reason == PeerDead || reason == BadAnswer
	o.mu.Lock()
	o.settleLocked(l)
	l.report.failed = l.report.failed || broke || reason == TimedOut
	o.endpoints.settle(l, reason == "", now)
	c.streams--
	if c.streams > 0 {
		l.endpoint.riding--
	}
	o.serveRidersLocked(course{}, now)
	ends, rests := o.restsLocked(c, rival != nil, now)
	wants := o.wantsLocked()
	o.mu.Unlock()
	switch {
	case ends != "":
		c.lease.close(ends)
	case rests:
		o.pool.list(o)
		o.pool.relieve()
	}
	if wants {
		o.pool.claim(o)
	}
	if broke {
		o.suspect()
	}
	*l = Lease{}
	streamLeases.Put(l)
}

// restsLocked makes a connection idle that carries no request any more, or returns
// why it is to be closed. rival says that another origin waits for its slot.
func (o *Origin) restsLocked(c *carrier, rival bool, now time.Duration) (ends Reason, rests bool) {
	l := c.lease
	if c.streams > 0 || l.node.Listed() || !c.joined {
		return "", false
	}
	switch ends = o.endsSharedLocked(c, now); {
	case ends != "":
	case rival, o.pool.cfg.MaxIdlePerHost == 0, o.gone.Load():
		ends = MaxIdle
	default:
		o.restLocked(l, now)
		return "", true
	}
	c.leaving = ends
	return ends, false
}

// endsSharedLocked returns why a connection that carries nothing is closed, "" if it
// is not.
func (o *Origin) endsSharedLocked(c *carrier, now time.Duration) Reason {
	l := c.lease
	if most := o.pool.cfg.MaxRequests; c.leaving == "" && most > 0 && l.requests >= most {
		return MaxRequests
	}
	switch {
	case c.leaving != "":
		return c.leaving
	case o.pool.ctx.Err() != nil:
		return Shutdown
	case !o.manners.keeps(now):
		return NotTrusted
	case l.secured != o.tls:
		return TLSChanged
	case l.endpoint.leaving && !o.lastResortLocked(now):
		return AddressGone
	}
	if l.aged(now) {
		if is, _ := o.overdueLocked(l, now); is {
			return MaxAge
		}
	}
	return ""
}

// serveRidersLocked puts requests that wait on connections that take them. how is the
// course of the dial that has led to it, if one has.
func (o *Origin) serveRidersLocked(how course, now time.Duration) {
	for n := o.queue.waiting.Front(); n != nil; {
		t := n.Value
		n = n.Next()
		if !t.shares() {
			continue
		}
		l, _ := o.rideLocked(t, now)
		if l == nil {
			break
		}
		o.queue.grant(t, grant{lease: l, course: how})
	}
}

// joinSharedLocked takes a new connection in, and puts the requests that wait on it.
// It unlocks o.mu.
func (o *Origin) joinSharedLocked(d *opening, c *carrier) {
	l, now := c.lease, o.times.opened
	o.queue.wasted(d)
	o.endpoints.wins(l.addr.Addr())
	o.replaceLocked(d, now)
	o.shared.carriers = append(o.shared.carriers, c)
	c.joined, l.idleSince = true, now
	if c.over && c.leaving == "" {
		c.leaving = UpstreamClosed
	}
	o.shared.plain = false
	if !o.manners.keeps(now) {
		o.carryOneLocked(c, d.course, now)
	}
	var ends Reason
	if ends, _ = o.restsLocked(c, false, now); ends == "" {
		o.serveRidersLocked(d.course, now)
	}
	rests := l.node.Listed()
	gone := o.retireLeaversLocked(now)
	wants, warm := o.wantsLocked(), o.warmth.listed
	o.mu.Unlock()
	if ends != "" {
		l.close(ends)
	}
	closeEach(gone)
	if rests {
		o.pool.list(o)
	}
	if wants {
		o.pool.claim(o)
	}
	if warm {
		o.rewarm()
	}
}

// carryOneLocked puts one request that waits on a connection, which is not kept.
func (o *Origin) carryOneLocked(c *carrier, how course, now time.Duration) {
	c.leaving = NotTrusted
	for n := o.queue.waiting.Front(); n != nil; n = n.Next() {
		if !n.Value.shares() {
			continue
		}
		if l := o.boardLocked(c, now); l != nil {
			o.queue.grant(n.Value, grant{lease: l, course: how})
		}
		return
	}
}

// strandedSharedLocked lends a stream to an address that the name does not have any
// more, to a request whose dial has failed; nil if there is none.
func (o *Origin) strandedSharedLocked(t *Ticket, now time.Duration) *Lease {
	if t == nil || !t.shares() || !o.endpoints.leavers || !o.manners.keeps(now) {
		return nil
	}
	for _, c := range o.shared.carriers {
		if c.leaving == "" && c.lease.endpoint.leaving && (c.streams > 0 || c.lease.node.Listed()) && c.streams < c.conn.Limit() {
			return o.boardLocked(c, now)
		}
	}
	return nil
}

// lostSharedLocked takes a connection out of the books.
func (o *Origin) lostSharedLocked(c *carrier) {
	s := &o.shared
	s.carriers = slices.DeleteFunc(s.carriers, func(x *carrier) bool { return x == c })
	s.figures.Add(c.conn.Figures())
}

// leave has the connection get no more requests, and takes it if it carries none.
func (c *carrier) leave(reason Reason, over bool) (taken bool, why Reason) {
	l, o := c.lease, c.lease.origin
	o.mu.Lock()
	c.over = c.over || over
	if c.leaving == "" || over && reason == PeerDead {
		c.leaving = reason
	}
	taken = c.parting
	if l.node.Listed() {
		taken = true
		l.node.Leave()
		l.idled = o.pool.now() - l.idleSince
	}
	c.parting, why = taken && !over, c.leaving
	wants := c.joined && o.wantsLocked()
	o.mu.Unlock()
	if wants {
		o.pool.claim(o)
	}
	return taken, why
}

// Leaving implements h2.Events.
func (c *carrier) Leaving() {
	if taken, _ := c.leave(NotKept, false); taken {
		c.conn.End() // Gone closes it
	}
}

// Gone implements h2.Events.
func (c *carrier) Gone(err error) {
	reason := UpstreamClosed
	var broken *h2.Error
	switch {
	case errors.Is(err, h2.ErrClosed):
		reason = NotKept
	case sock.TimedOut(err):
		reason = PeerDead
	case errors.As(err, &broken):
		reason = BadAnswer
	}
	if taken, why := c.leave(reason, true); taken {
		c.lease.close(why)
	}
}

// Room implements h2.Events.
func (c *carrier) Room() {
	o := c.lease.origin
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.joined {
		o.serveRidersLocked(course{}, o.pool.now())
	}
}

// tendShared looks after the connections that carry many requests.
func (p *Pool) tendShared(list []*carrier) []*carrier {
	p.mu.Lock()
	for c := range p.carriers {
		list = append(list, c)
	}
	p.mu.Unlock()
	for _, c := range list {
		c.conn.Tend()
	}
	clear(list)
	return list[:0]
}

// loneLocked reports whether the requests that may share a connection wait for one dial.
func (o *Origin) loneLocked() bool {
	s := &o.shared
	return s.offer && (!s.plain || len(s.carriers) > 0) && o.times.failed <= o.times.opened && o.manners.keeps(o.pool.now())
}

// undialledLocked is how many dials are wanted that are not under way.
func (o *Origin) undialledLocked() int {
	q := &o.queue
	n := q.undialled()
	if n <= 0 || !o.shared.offer || !o.loneLocked() {
		return n
	}
	alone := q.waiting.Len() - q.riding - (q.dialing - q.pioneers)
	return max(alone, 0) + max(min(q.riding, 1)-q.pioneers, 0)
}

// sharedFiguresLocked adds up what connections that carry many have seen.
func (o *Origin) sharedFiguresLocked(s *Stats) {
	f := o.shared.figures
	for _, c := range o.shared.carriers {
		s.Shared++
		s.Streams += c.streams
		f.Add(c.conn.Figures())
	}
	s.Pings, s.GoAways, s.Resets = f.Pings, f.GoAways, f.Resets
}

// eagerLocked has a request wait for one dial no longer, and reports whether it is to
// wait on.
func (o *Origin) eagerLocked(t *Ticket) bool {
	if t.rides {
		t.rides = false
		o.queue.riding--
	}
	return o.patience(t) > 0 && o.queue.waiting.Has(&t.node)
}

// renewalLocked begins a dial to the address of a connection that is too old, nil if
// one is under way.
func (o *Origin) renewalLocked(c *carrier) *opening {
	if o.queue.dialing > 0 {
		return nil
	}
	d := o.queue.beginForNone()
	d.first = c.lease.addr.Addr()
	return d
}
