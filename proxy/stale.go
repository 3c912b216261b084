package proxy

import (
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// What comes first on a kept connection need not be the answer to the request
// that was just sent: it may be the rest of an answer before, or what the
// upstream said as it closed the idle connection. Both crossed the request.

// cameLate reports whether what has come, which does not parse, is no answer at
// all but late bytes of an earlier exchange (RFC 9112 section 9.2).
func (x *exchange) cameLate(lease *pool.Lease) bool {
	const begin = "HTTP/"
	b := x.rb.Bytes()
	k := min(len(b), len(begin))
	return lease.Reused() && !x.informed && string(b[:k]) != begin[:k]
}

// idledOut reports whether the answer in x.resp is most likely none to this
// request: a 408 that the upstream sent because the connection had been idle
// for too long (RFC 9110 section 15.5.9).
func (x *exchange) idledOut(lease *pool.Lease) bool {
	return x.resp.Status == 408 && !x.informed && lease.Reused()
}

// crossed reports whether an answer that is idledOut is none, so that the request
// is to be sent again. The upload is stopped then.
func (s *session) crossed(x *exchange, lease *pool.Lease) (verdict, bool) {
	if !x.idledOut(lease) || !x.replayable || x.retried {
		return verdict{}, false
	}
	v := s.judge(x, lease, headed, nil)
	return v, v.next == again
}

// ends reports whether a response is the last one on its connection.
func ends(r *http1.Response) bool { return r.Close || r.Minor == 0 && !r.KeepAlive }
