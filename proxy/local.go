package proxy

import (
	"errors"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// Record tells of one exchange. It holds nothing that could be secret: no
// query, no user information, no field values, and of a request that was refused
// nothing but the origin, if a rule on it was the reason.
type Record struct {
	// Method and Path are as the client sent them, and empty if the request could
	// not be read; they may hold any printable byte.
	Method, Path string
	// Origin is scheme://host:port, or host:port for CONNECT.
	Origin string
	// Status is what the client was answered; 499 if it left before.
	Status int
	// Error is the error type of RFC 9209, or client_gone; "" for an exchange
	// that went well.
	Error string
	// Detail says more about the error.
	Detail string
	// Sent and Received count bytes of body, to and from the upstream.
	Sent, Received int64
	// Duration is from the first byte of the request to the last of the answer.
	Duration time.Duration
	// Phases are the parts of Duration. Of a tunnel PhaseRest is all that came after
	// its connection was there.
	Phases Phases
	// Retried says that the request was sent twice.
	Retried bool
}

// ended counts how long an exchange took that has ended, and tells of it.
func (p *Proxy) ended(x *exchange, status int, kind errorKind, detail string) {
	told := p.tells(status, kind)
	if !x.timed && !told {
		return
	}
	took := p.now() - x.start
	x.spent.end(took)
	if x.timed {
		p.timings.observe(took, &x.spent)
	}
	if told {
		p.cfg.Log(x.record(Record{Status: status, Error: kind.String(), Detail: detail, Duration: took}))
	}
}

// tells reports whether an exchange that has ended like this is told of.
func (p *Proxy) tells(status int, kind errorKind) bool {
	return p.cfg.Log != nil && (p.cfg.LogAll || kind != noError || status >= 500)
}

// record completes what is told of an exchange.
func (x *exchange) record(r Record) *Record {
	r.Sent, r.Received, r.Phases, r.Retried = x.up.sent, x.received, x.spent, x.retried
	switch {
	case x.barred != "":
		r.Origin = x.barred
	case x.connect && x.origin != nil:
		r.Method, r.Origin = "CONNECT", x.authority()
	case x.origin != nil:
		r.Origin = x.origin.Key().String()
	}
	if head := string(x.reqHead); head != "" {
		line, _, _ := strings.Cut(head, " HTTP/1.1\r\n")
		r.Method, r.Path, _ = strings.Cut(line, " ")
		if x.relayed() {
			r.Origin, r.Path = apart(r.Path)
		}
		r.Path, _, _ = strings.Cut(r.Path, "?")
	}
	return &r
}

// apart takes a target apart that was written for the next hop.
func apart(absolute string) (origin, path string) {
	t, _ := parseTarget([]byte(absolute)) // it was made of one
	return t.key().String(), string(t.path)
}

// refuse answers a request that is malformed or not allowed, and closes: what
// follows on the connection cannot be trusted to be what it seems.
func (s *session) refuse(x *exchange, err error) bool {
	s.p.refused.Add(1)
	var barred *refusal
	if errors.As(err, &barred) {
		x.barred = barred.target
	}
	x.keepAlive = false
	s.replyProblem(x, asProblem(err))
	return false
}

// replyProblem answers with p.
func (s *session) replyProblem(x *exchange, p *problem) (again bool) {
	s.p.errors[p.kind].Add(1)
	x.isProblem = true
	fields := "Content-Type: text/plain; charset=utf-8\r\n" + p.proxyStatus() + x.hopParams() + "\r\n"
	fields += string(x.appendTiming(nil))
	again = s.reply(x, p.status, fields, "carpool: "+p.text+"\n")
	s.p.ended(x, p.status, p.kind, p.text)
	return again
}

// reply writes an answer of carpool's own, and reports whether another request may
// follow.
func (s *session) reply(x *exchange, status int, fields, body string) (again bool) {
	x.keepAlive = x.keepAlive && !s.p.draining.Load()
	x.buildReply(status, fields, body)
	_, err := s.client.stream.Write(x.respHead)
	s.client.linger = !x.keepAlive
	return err == nil && x.keepAlive
}

// buildReply makes x.respHead a whole answer of carpool's own, with more header
// lines and a body.
func (x *exchange) buildReply(status int, fields, body string) {
	b := append(x.respHead[:0], "HTTP/1.1 "...)
	b = http1.AppendInt(b, int64(status))
	b = append(b, " "+reasons[status]+"\r\n"+fields+"Content-Length: "...)
	b = http1.AppendInt(b, int64(len(body)))
	b = append(b, "\r\n"...)
	switch {
	case !x.keepAlive:
		b = append(b, "Connection: close\r\n"...)
	case x.http10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	if x.isProblem {
		b = append(b, ownAnswer...)
	}
	b = append(b, "\r\n"...)
	if !x.isHead {
		b = append(b, body...)
	}
	x.respHead = b
}

// ownAnswer marks an answer that carpool makes because something is wrong, for
// clients that have to know. Proxy-Status alone does not tell: an upstream may pass
// on that of a proxy of its own. A connection option goes no further than one
// connection (RFC 9110 section 7.6.1), so this one is nobody else's.
const ownAnswer = "Connection: carpool\r\n"

// reasons are the reason phrases of the statuses that carpool answers itself.
var reasons = map[int]string{
	200: "OK", 400: "Bad Request", 403: "Forbidden", 408: "Request Timeout", 414: "URI Too Long",
	421: "Misdirected Request", 431: "Request Header Fields Too Large", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 508: "Loop Detected",
}

// answerHere answers TRACE and OPTIONS whose Max-Forwards ends here (RFC 9110
// section 7.6.2).
func (s *session) answerHere(x *exchange) (done, again bool) {
	r := &x.req
	trace := string(r.Method) == "TRACE"
	if !trace && !x.isOptions {
		return false, false
	}
	if _, here := maxForwards(r); !here {
		return false, false
	}
	if !trace && x.asksToVerify() {
		return true, s.verify(x)
	}
	fields, body := "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT\r\n", ""
	if trace {
		t, _ := s.lane.target(r) // it was found by it
		fields, body = "Content-Type: message/http\r\n", string(traced(r, t))
	}
	x.keepAlive = x.keepAlive && x.up.body.Done()
	s.client.in.Consume(x.headLen)
	again = s.reply(x, 200, fields, body)
	s.p.ended(x, 200, noError, "")
	return true, again
}

// traced is the head of a request for t as a TRACE answer shows it: without what
// must not be told (RFC 9110 section 9.3.8).
func traced(r *http1.Request, t target) []byte {
	for i := range r.Fields {
		f := &r.Fields[i]
		f.Drop = f.Name == http1.Authorization || f.Name == http1.ProxyAuthorization ||
			http1.EqualFold(r.FieldName(f), "cookie")
	}
	b := append([]byte(nil), r.Method...)
	b = append(append(append(append(b, ' '), t.scheme...), t.authority...), t.path...)
	b = append(b, " HTTP/1."...)
	b = http1.AppendInt(b, int64(r.Minor))
	b = r.AppendFields(append(b, "\r\n"...))
	return append(b, "\r\n"...)
}
