package proxy

import (
	"errors"
	"os"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// facts are what is known of an exchange when something has come of it. The zero
// value is of one that has just begun.
type facts struct {
	got progress // how far the answer has come

	// Of the request.
	unlent     *problem // why there is no connection for it
	accepted   bool     // the connection has accepted a byte of it
	read       bool     // all of it was read from the client
	sent       bool     // all of it was accepted, or will be
	replayable bool     // it can be carried out twice without harm
	kept       bool     // all that was sent of it is still here
	retried    bool     // this is the second time that it is sent,
	declined   int      // but for so many times of which nothing was done
	upgrade    bool     // it offers another protocol
	connect    bool     // it asks for a tunnel
	persists   bool     // its client goes on after the answer

	// Of the connection.
	reused bool // it was there before, so the upstream may have been closing it
	older  bool // the upstream wants the request in HTTP/1.1
	gone   bool // the client has left, or the proxy is closing
	dead   bool // the upstream was found to give no sign of life

	// What went wrong on either side.
	client, upstream fault
	wrong            *http1.Error // what is garbled
	refused          *problem     // the upstream refuses the certificate that carpool has shown, or has not

	// Of what has come.
	unprocessed bool // the upstream has said that it did nothing of the request
	late        bool // it does not begin like an answer
	idledOut    bool // it is a 408 that need not be meant for this request
	switched    bool // it is a 101
	asked       bool // it is the next hop's, and asks for credentials
	last        bool // it says that it is the last answer of its connection
	suspect     bool // it is odd
	stray       bool // more has come behind it
}

// progress is how far the answer to a request has come.
type progress uint8

const (
	unanswered progress = iota // not a byte of it has come
	begun                      // a part of its head, or a 1xx
	headed                     // its head, of which nothing was passed on
	passing                    // a part of it was passed on
	complete                   // all of it has come; the client gets it
)

// fault is what is wrong with one side of an exchange.
type fault uint8

const (
	fine     fault = iota
	failed         // its connection has ended, or was reset
	vanished       // the kernel has given its peer up
	timedOut       // it took longer than one of carpool's limits
	garbled        // what it sent is not HTTP
)

// verdict says what follows from the facts.
type verdict struct {
	// problem is what the client is answered, if nothing of an answer has reached
	// it yet, and what is logged; nil if nothing is wrong.
	problem *problem
	// reason is why the connection is closed; "" if others may have it.
	reason pool.Reason
	next   step
}

// blame notes an error of one side of the exchange.
func (f *facts) blame(err error, client bool) {
	side := &f.upstream
	if client {
		side = &f.client
	}
	if err == nil || *side != fine {
		return
	}
	var bad *http1.Error
	switch {
	case errors.As(err, &bad):
		*side, f.wrong = garbled, bad
	case errors.Is(err, os.ErrDeadlineExceeded):
		*side = timedOut
	case sock.TimedOut(err):
		*side = vanished
	default:
		*side = failed
		f.refused = certificateRefused(err)
	}
}

// step is what the session does next.
type step uint8

const (
	closing   step = iota // closes the client's connection
	following             // reads the next request
	again                 // sends the request once more, on a fresh connection
	passOn                // passes the answer on
)

// judge holds the rules for every ending of an exchange: what the client is
// told, what becomes of the connection, and whether the request is sent again
// (see the package's comment). It is a function of the facts alone.
func (f *facts) judge() verdict {
	switch f.got {
	case unanswered, begun:
		return f.withoutAnswer()
	case headed:
		return f.withHead()
	case passing:
		return f.inPart()
	}
	v := verdict{reason: f.afterAll()}
	if f.persists && f.read {
		v.next = following
	}
	return v
}

// repeatable reports whether a request that a kept connection has failed may be
// sent again.
func (f *facts) repeatable() bool { return f.reused && f.replayable && f.kept && !f.retried }

// fails is the verdict on a request that gets no answer from an upstream.
func (f *facts) fails(p *problem, reason pool.Reason) verdict {
	v := verdict{problem: p, reason: reason}
	if f.persists && f.read && f.sent && p.status >= 500 {
		v.next = following
	}
	return v
}

// mostRefused is how often a request is sent again of which an upstream has said that
// it did nothing: it does no harm, but helps no more at some time.
const mostRefused = 3

// withoutAnswer judges an exchange that has no final answer.
func (f *facts) withoutAnswer() verdict {
	switch {
	case f.unlent != nil:
		return f.fails(f.unlent, "")
	case !f.accepted && !f.retried && !f.gone:
		return verdict{reason: f.died(), next: again}
	case f.client == timedOut && !f.gone:
		return f.fails(&problemBodyTimeout, pool.ClientGone)
	case f.clientLeft():
		return f.fails(&problemClientGone, pool.ClientGone)
	case f.client == garbled:
		return f.fails(badRequest(f.wrong), pool.ClientGone)
	case f.unprocessed && f.kept && f.declined < mostRefused: // whatever the method (RFC 9113 section 8.7)
		return verdict{reason: pool.NotKept, next: again}
	case f.upstream == garbled && f.late && f.repeatable():
		return verdict{reason: pool.StrayBytes, next: again}
	case f.upstream == garbled && f.late:
		return f.fails(&problemStray, pool.StrayBytes)
	case f.upstream == garbled:
		return f.fails(badResponse(f.wrong), pool.BadAnswer)
	case f.dead:
		return f.fails(&problemDead, pool.PeerDead)
	case f.upstream == timedOut:
		return f.fails(&problemTimeout, pool.TimedOut)
	case f.refused != nil && f.got == unanswered:
		return f.fails(f.refused, pool.BadAnswer)
	case f.got == begun:
		return f.fails(&problemIncomplete, f.brokeOff())
	case f.repeatable():
		return verdict{reason: f.died(), next: again}
	case f.upstream == vanished:
		return f.fails(&problemDead, pool.PeerDead)
	case f.reused && !f.replayable:
		return f.fails(&problemReuse, f.died())
	}
	return f.fails(&problemTerminated, f.died())
}

// clientLeft reports whether nobody waits for the answer.
func (f *facts) clientLeft() bool { return f.gone || f.client != fine && f.client != garbled }

// died is why a connection is closed that ended without a byte of an answer.
func (f *facts) died() pool.Reason {
	switch {
	case f.upstream == vanished:
		return pool.PeerDead
	case f.reused:
		return pool.ClosedOnReuse
	}
	return pool.BadAnswer
}

// brokeOff is why a connection is closed that ended in an answer.
func (f *facts) brokeOff() pool.Reason {
	if f.upstream == vanished {
		return pool.PeerDead
	}
	return pool.BadAnswer
}

// withHead judges an exchange whose answer could be passed on.
func (f *facts) withHead() verdict {
	switch {
	case f.upstream == garbled:
		return f.fails(&problemProtocol, pool.BadAnswer)
	case f.asked: // of carpool; a client would take it for itself
		return f.fails(&problemHopCredentials, pool.NotKept)
	case f.switched && (!f.upgrade || !f.sent): // the other protocol goes on where the request ends
		return f.fails(&problemUpgrade, pool.BadAnswer)
	case f.idledOut && f.repeatable() && f.client == fine && f.upstream == fine:
		return verdict{reason: f.idledFor(), next: again}
	}
	return verdict{next: passOn}
}

// idledFor is why the connection of an answer is closed that is idledOut. A
// server that says close has closed it as idle, which teaches its idle limit;
// another may just be in the habit of answering so.
func (f *facts) idledFor() pool.Reason {
	if f.last {
		return pool.ClosedOnReuse
	}
	return pool.NotKept
}

// inPart judges an exchange whose answer was passed on in part: the client must
// not take it for the whole.
func (f *facts) inPart() verdict {
	switch {
	case f.clientLeft():
		return verdict{problem: &problemClientGone, reason: pool.ClientGone}
	case f.upstream == timedOut:
		return verdict{problem: &problemTimeout, reason: pool.TimedOut}
	}
	return verdict{problem: &problemIncomplete, reason: f.brokeOff()}
}

// afterAll is why the connection of a whole answer is closed; "" if it is kept.
func (f *facts) afterAll() pool.Reason {
	switch {
	case f.dead && (f.connect || f.switched):
		return pool.PeerDead
	case f.connect:
		return pool.Tunnelled
	case f.switched:
		return pool.Upgraded
	case f.gone || f.dead: // as the answer came: it was interrupted, and is of no use any more
		return pool.ClientGone
	case f.stray:
		return pool.StrayBytes
	case !f.sent:
		return pool.EarlyAnswer
	case f.idledOut:
		return f.idledFor()
	case f.suspect:
		return pool.BadAnswer
	case f.last, f.upgrade: // who declines an upgrade may still be of two minds
		return pool.NotKept
	}
	return ""
}
