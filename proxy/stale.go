package proxy

import (
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// What comes first on a kept connection need not be the answer to the request
// that was just sent: it may be the rest of an answer before, or what the
// upstream said as it closed the idle connection. Both crossed the request.

// repeatable reports whether the request can be sent once more, after a kept
// connection has failed it. The pump must not be running.
func (x *exchange) repeatable() bool { return x.replayable && x.keep && !x.retried }

// cameLate reports whether what has come, which does not parse, is no answer at
// all but late bytes of an earlier exchange (RFC 9112 section 9.2).
func (x *exchange) cameLate(lease *pool.Lease) bool {
	const begin = "HTTP/"
	b := x.rb.Bytes()
	k := min(len(b), len(begin))
	return lease.Reused() && !x.informed && string(b[:k]) != begin[:k]
}

// strayed deals with bytes of an earlier exchange where an answer should be.
// What comes behind them is not trusted either.
func (s *session) strayed(x *exchange, lease *pool.Lease) (again, retry bool) {
	s.giveBack(lease, pool.StrayBytes)
	if x.repeatable() {
		return false, true
	}
	return s.fail(x, &problemStray), false
}

// idledOut reports whether the answer in x.resp is most likely none to this
// request: a 408 that the upstream sent because the connection had been idle
// for too long (RFC 9110 section 15.5.9).
func (x *exchange) idledOut(lease *pool.Lease) bool {
	return x.resp.Status == 408 && !x.informed && lease.Reused()
}

// crossed is idledOut for requests that can be sent again; the pump is stopped
// then. For others a 408 is what it is.
func (s *session) crossed(x *exchange, lease *pool.Lease) bool {
	return x.idledOut(lease) && x.replayable && !x.retried && s.joinPump(x, lease) == nil && x.repeatable()
}

// reasonOf408 is the reason for closing the connection of an answer that is
// idledOut. A server that says close has closed it as idle, which teaches its
// idle limit; another may just be in the habit of answering so.
func (x *exchange) reasonOf408() pool.Reason {
	if ends(&x.resp) {
		return pool.ClosedOnReuse
	}
	return pool.NotKept
}

// ends reports whether a response is the last one on its connection.
func ends(r *http1.Response) bool { return r.Close || r.Minor == 0 && !r.KeepAlive }
