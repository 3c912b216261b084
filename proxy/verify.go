package proxy

import "github.com/carpoolproxy/carpool/proxy/http1"

// A program that speaks TLS itself has to know whether carpool would verify an origin
// as well before it leaves that to carpool: it may know authorities that carpool does
// not. So it can ask, on a proxy's port:
//
//	OPTIONS https://host[:port]/ HTTP/1.1
//	Max-Forwards: 0
//	Carpool-Verify: ?1
//
// carpool borrows a connection as for a request, makes one if there is none, and gives
// it back: nothing is sent on it, and the first request finds it there. The answer is
// 200 with Carpool-Verified, ?1 or ?0, the latter with what speaks against it in
// Proxy-Status. The rules and limits for requests are those for questions, so whoever
// can ask learns nothing that a request would not tell. A question is no request that
// failed: it counts as no error.
const (
	verifyField   = "carpool-verify"
	verifiedField = "Carpool-Verified: "
)

// asksToVerify reports whether an OPTIONS that ends here is such a question.
func (x *exchange) asksToVerify() bool {
	r := &x.req
	if !x.origin.Key().TLS {
		return false
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; http1.EqualFold(r.FieldName(f), verifyField) {
			return string(r.Value(f)) == "?1"
		}
	}
	return false
}

// verify answers the question in x, whose head is still to be consumed.
func (s *session) verify(x *exchange) (again bool) {
	x.keepAlive = x.keepAlive && x.up.body.Done()
	s.client.in.Consume(x.headLen)
	s.p.inFlight.Add(1)
	defer s.p.inFlight.Add(-1) // after a panic too
	fields, p := verifiedField+"?1\r\n", s.reaches(x)
	switch p {
	case nil:
	case &problemClientGone:
		return false
	default:
		fields = verifiedField + "?0\r\n" + p.proxyStatus() + x.hopParams() + "\r\n"
	}
	again = s.reply(x, 200, fields, "")
	s.p.ended(x, 200, noError, "")
	return s.reins.enter(busy, s.p.now()) && again
}

// reaches returns why no connection to the origin of x can be had, nil if one can.
func (s *session) reaches(x *exchange) *problem {
	lease, p := s.borrow(x, false)
	if p != nil {
		return p
	}
	s.reins.letGo()
	lease.Return()
	return nil
}
