package pool

import (
	"crypto/tls"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool/h2"
)

// Reason says why a connection was closed. The values are the labels of the
// metric, so they are few and do not change.
type Reason string

// Why connections are closed.
const (
	IdleTimeout    Reason = "idle_timeout"    // idle for IDLE_TIMEOUT, or nearly as long as the upstream lets it be
	MaxAge         Reason = "max_age"         // MAX_CONN_AGE
	MaxRequests    Reason = "max_requests"    // MAX_REQUESTS_PER_CONN, or as many as the upstream said
	MaxIdle        Reason = "max_idle"        // MAX_IDLE_PER_HOST, or room was needed elsewhere
	NotNeeded      Reason = "not_needed"      // more than were needed at a time in the last minutes
	Evicted        Reason = "evicted"         // descriptors or memory were short
	UpstreamClosed Reason = "upstream_closed" // by the upstream while idle, or as it answered
	ClosedOnReuse  Reason = "closed_on_reuse" // by the upstream as the next request came
	StrayBytes     Reason = "stray_bytes"     // bytes that belong to no request
	NotKept        Reason = "not_kept"        // the upstream said close, or cannot keep connections
	NotTrusted     Reason = "not_trusted"     // NO_REUSE_HOSTS, the upstream has sent stray bytes, or half a TLS record was there
	ClientGone     Reason = "client_gone"     // the client gave up during the exchange
	EarlyAnswer    Reason = "early_answer"    // answered before it had read the request
	BadAnswer      Reason = "bad_answer"      // the upstream broke the protocol or off
	TimedOut       Reason = "timeout"         // one of carpool's own
	PeerDead       Reason = "peer_dead"       // no sign of life
	PeerDeadToo    Reason = "peer_dead_too"   // idle, to a peer that was found dead by another
	Tunnelled      Reason = "tunnelled"       // carried a CONNECT tunnel, which has ended
	Upgraded       Reason = "upgraded"        // became a tunnel, which has ended
	Pinned         Reason = "pinned"          // belonged to one client (NTLM), which has gone
	AddressGone    Reason = "address_gone"    // the name does not have its address any more
	TLSChanged     Reason = "tls_changed"     // opened with authorities or a client certificate that have been replaced
	MakesRoom      Reason = "makes_room"      // the upstream serves so few at a time that another waits for its end
	Shutdown       Reason = "shutdown"        // carpool is stopping
)

// Lease is a connection. While it is lent it belongs to one borrower, who
// gives it back by Release or Discard and does not touch it afterwards. To give
// back what is not lent is a fault of the borrower's, and panics.
type Lease struct {
	// Stream carries the bytes.
	sock.Stream

	origin    *Origin
	conn      *sock.Conn  // the TCP connection under Stream
	tls       *quietTLS   // nil without TLS
	secured   *tls.Config // by what; nil without TLS
	early     *earlyBytes // nil if nothing came with the next hop's word
	carrier   *carrier    // what carries many requests at a time, nil in HTTP/1.1
	stream    *h2.Stream  // one of them: then there are neither bytes nor a socket
	id        uint64
	addr      netip.AddrPort
	begun     time.Duration // when its dial began
	handshake time.Duration // what opening it took
	born      time.Duration // when it was open, on the pool's clock
	expires   time.Duration // on the pool's clock; 0 is never
	requests  int

	hint  time.Duration // how long the upstream said it may idle; 0: it did not
	count requestCount  // what the upstream said of how many requests it takes

	lent   atomic.Bool // somebody has borrowed it
	pinned bool        // it is for one borrower alone,
	midway bool        // whose authentication is not over
	ready  bool        // it is a spare tunnel that nobody has had; guarded by the origin's mutex while it is not lent
	reused bool        // this exchange is not the first
	// ordered says that it was opened a moment ago for a CONNECT of this borrower, who
	// uses it now, as one would who has dialled it.
	ordered bool
	idled   time.Duration // how long it was idle before this exchange
	report  report        // what this exchange says of the endpoint

	since    time.Duration // when it was lent for the first exchange
	heard    atomic.Bool   // an answer has come on it; set with the origin's mutex held
	shutting atomic.Bool   // it is about to be accounted for as closed

	// Guarded by the origin's mutex.
	node      place         // among idle connections
	inTurn    bool          // it is used in turn with others of its endpoint
	turnBegan time.Duration // when its turn began; 0: it waits for it
	replaced  bool          // another was opened in its place
	idleSince time.Duration
	carries   bool              // requests are carried on it now
	hungUp    bool              // the peer has closed it while it was in use
	opened    time.Duration     // when it was opened
	endpoint  *endpoint         // what it leads to,
	sibling   list.Node[*Lease] // and its place there
	halfSince time.Duration     // when half a record was first seen on it; 0: there was none
}

// Reused reports whether the connection was used before this exchange, or at
// least idle, so that the upstream may have been closing it.
func (l *Lease) Reused() bool { return l.requests > 0 || l.idled > 0 && !l.ordered }

// Way returns how the connection was made.
func (l *Lease) Way() Way { return l.origin.key.Way }

// Addr returns the address that the connection leads to.
func (l *Lease) Addr() netip.AddrPort { return l.addr }

// Hint notes what the upstream said of its connection in this exchange: how
// many seconds it may idle, and how many requests it takes; -1 where it did not
// say. It comes before Release.
func (l *Lease) Hint(timeout, max int64) {
	if timeout >= 0 {
		// 0 is "not at all"; beyond an hour it makes no difference.
		l.hint = clamp(time.Duration(min(timeout, 3600)) * time.Second)
	}
	if max >= 0 {
		l.count.say(int(min(max, 1<<30)), l.requests+1)
	}
}

// report is what an exchange says of the endpoint. It is the borrower's until the
// lease comes back.
type report struct {
	began      time.Duration // when the connection was lent
	answered   bool          // bytes have come,
	took       time.Duration // the first of them so long after that
	failed     bool
	overloaded time.Duration // for how long; 0: it is not
}

// Failed notes that the upstream answered this exchange with a failure of its own.
// One says little. Where others serve the same origin, a run of them shifts
// requests there. It comes before the lease is given back. Of the next hop an answer
// says nothing, for others give it.
func (l *Lease) Failed() { l.report.failed = l.Way() != ToHop }

// Overloaded notes that the upstream asked to be left alone for so long. Where
// others serve the same origin requests go to these meanwhile, for a minute at
// most. It comes before the lease is given back.
func (l *Lease) Overloaded(d time.Duration) {
	if l.Way() != ToHop {
		l.report.overloaded = max(d, 0)
	}
}

func clamp(d time.Duration) time.Duration { return max(d, time.Millisecond) }

// Release gives the connection back after a whole exchange, for others to use,
// unless it is pinned.
func (l *Lease) Release() {
	if l.stream != nil {
		l.alight("")
		return
	}
	l.comeBack()
	if l.pinned {
		l.close(Pinned)
		return
	}
	l.requests++
	if max := l.origin.pool.cfg.MaxRequests; l.count.reached(l.requests) || max > 0 && l.requests >= max {
		l.close(MaxRequests)
		return
	}
	if l.origin.overdue(l) {
		l.close(MaxAge)
		return
	}
	l.putIdle()
}

func (l *Lease) putIdle() {
	p := l.origin.pool
	rival, theirs := p.rival(l.origin)
	surplus, reason := l.origin.give(l, rival, theirs)
	if surplus != nil {
		if rival != nil {
			p.favour(rival)
		}
		surplus.close(reason)
		return
	}
	p.list(l.origin)
	p.relieve() // who came for a slot just before it became idle
}

// Discard gives the connection back to be closed.
func (l *Lease) Discard(reason Reason) {
	if l.stream != nil {
		l.alight(reason)
		return
	}
	l.comeBack()
	l.close(reason)
}

// Abort is Discard by which the upstream sees a reset, not an end.
func (l *Lease) Abort(reason Reason) {
	l.comeBack()
	_ = l.conn.Abort()
	l.close(reason)
}

// comeBack ends the loan. A lease that ended it twice would be lent to two
// borrowers at a time, so that is found here, before anything is changed.
func (l *Lease) comeBack() {
	if !l.lent.CompareAndSwap(true, false) {
		panic("bug: pool: a lease was given back that is not lent")
	}
}

// Dead turns the reason that an I/O error stands for: one that means a peer
// without any sign of life, or else what the borrower takes it for.
func Dead(err error, otherwise Reason) Reason {
	if sock.TimedOut(err) {
		return PeerDead
	}
	return otherwise
}

func (l *Lease) close(reason Reason) {
	l.shut()
	l.origin.closed(l, reason)
}

// shut closes the connection and gives its slot back.
func (l *Lease) shut() {
	p := l.origin.pool
	l.shutting.Store(true)
	p.delist(l)
	l.closeConn()
	p.unreserve()
}

// TLS reports whether the connection is secured.
func (l *Lease) TLS() bool { return l.origin.key.TLS }

// Interrupt makes the reads and writes under way fail. It may be called from
// any goroutine as long as the lease is not given back; it must be Discarded.
func (l *Lease) Interrupt() {
	if l.stream != nil {
		l.stream.Interrupt()
		return
	}
	l.conn.Interrupt()
}

// Arm has a watcher of the borrower's wake it when there is something to read on the
// socket, once (see sock.Watcher.Arm).
func (l *Lease) Arm(w *sock.Watcher, id uint64) error { return w.Arm(l.conn, id) }

// Plain returns the connection's socket, nil if there is a layer over it. What is moved
// past the lease on it is not noted as an answer.
func (l *Lease) Plain() *sock.Conn {
	c, _ := l.Stream.(*sock.Conn)
	return c
}

// SetPatient, with true, lets the upstream stay busy for as long as it likes with
// what was sent, as long as it shows signs of life (see Silent); TCP's own limit
// cannot tell a peer that does not read from one that is dead.
func (l *Lease) SetPatient(patient bool) {
	if d := l.origin.pool.cfg.DeadTimeout; d > 0 && l.stream == nil {
		if patient {
			d = 0
		}
		_ = l.conn.SetUserTimeout(d) // fails with the connection only
	}
}

// Silent reports whether the upstream has shown no sign of life for DeadTimeout.
// It may be called from any goroutine as long as the lease is not given back.
func (l *Lease) Silent() bool {
	d := l.origin.pool.cfg.DeadTimeout
	return d > 0 && l.stream == nil && l.conn.Unacknowledged() > d // pings do it for streams
}

// check looks at a connection that is about to be used: the peer may have
// closed it, and bytes that no request asked for would be taken for the answer
// to the next one. It returns the reason why it cannot be used.
func (l *Lease) check() Reason {
	if l.requests == 0 && l.idled == 0 || l.stream != nil {
		return "" // as new, or read from all the time
	}
	if l.origin.overdue(l) {
		return MaxAge
	}
	found, err := l.look()
	switch {
	case err != nil:
		return Dead(err, UpstreamClosed)
	case l.ready && found != nothing:
		l.origin.speaksFirst()
		return NotTrusted
	case l.ready && !l.stillAllowed():
		return NotTrusted
	case found == someBytes && l.idled >= brief && l.conn.PeerGone(): // its last words, such as a 408
		return UpstreamClosed
	case found == halfRecord: // it may be a session ticket: nothing to remember the upstream by
		return NotTrusted
	case found != nothing:
		return StrayBytes
	}
	return ""
}

// hangUp returns the reason for closing a connection that its peer has closed
// after it was idle for so long. Bytes that come with the end are last words,
// such as a 408, unless it is too soon for these.
func (l *Lease) hangUp(idle time.Duration) Reason {
	pending, err := l.conn.Pending()
	if pending && l.ready {
		l.origin.speaksFirst()
		return NotTrusted
	}
	if pending && idle < brief && l.tls == nil { // TLS has last words of its own
		return StrayBytes
	}
	return Dead(err, UpstreamClosed)
}
