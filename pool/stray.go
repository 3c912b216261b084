package pool

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// Bytes that no request asked for would be taken for the answer to the next one.
// They are looked for before each use of a connection, and by the janitor on those
// that are idle, at a system call each: whoever sends such bytes is to see soon
// that they were not wanted, and what became of them must not depend on when the
// next request comes.

// found is what is found on a connection that is not in use.
type found int

const (
	nothing    found = iota
	halfRecord       // the beginning of a TLS record, which may be a session ticket or not
	someBytes        // that belong to no request
)

// look looks for bytes that no request asked for, or for the connection's end.
// The caller owns the connection. Nothing here waits.
func (l *Lease) look() (found, error) {
	if l.early != nil && len(l.early.rest) > 0 {
		return someBytes, nil
	}
	if l.tls != nil {
		return l.tls.look()
	}
	if some, err := l.conn.Pending(); !some {
		return nothing, err
	}
	return someBytes, nil
}

// halfFor is how long half a record may wait for its rest: it may be a session
// ticket.
const halfFor = 2 * janitorPeriod

// closeStrays closes idle connections on which something has come.
func (o *Origin) closeStrays(now time.Duration) {
	o.dropFor(func(l *Lease) Reason { return l.strayed(now) })
}

// strayed returns why an idle connection is to be closed, "" if it is not. It is called
// with the origin's mutex held.
func (l *Lease) strayed(now time.Duration) Reason {
	if l.carrier != nil {
		return "" // it is read from all the time
	}
	f, err := l.look()
	switch {
	case f != halfRecord:
		l.halfSince = 0
	case l.halfSince == 0:
		l.halfSince = now
	}
	switch {
	case l.ready && f != nothing:
		l.origin.spares.speaks = true
		return NotTrusted
	case f == nothing && err == nil, f == halfRecord && now-l.halfSince < halfFor:
		return ""
	case sock.CanWatch && l.conn.PeerGone():
		return "" // the watcher is about to say so, and something is learned from it
	case err != nil:
		l.idled = now - l.idleSince
		return Dead(err, UpstreamClosed)
	}
	return StrayBytes
}
