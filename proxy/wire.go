package proxy

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// wire is one exchange on a lease, in the version of HTTP that the lease speaks.
// It belongs to the session's goroutine. While that waits in head or body, the
// upload's may be in sendBody or endBody; stopBody and interrupt may be called from
// any.
type wire interface {
	// send sends a request's head with the beginning of its body, whole if that is all
	// of it, and returns how many bytes the connection has accepted.
	send(head, body []byte, whole bool) (n int, err error)
	// beginBody says that the rest of the body comes by sendBody and endBody, as
	// slowly as the client sends it and the upstream takes it.
	beginBody()
	sendBody(part []byte) error
	// endBody says that the whole request was sent: the time in which the head of the
	// answer has to come begins. Without beginBody it is called all the same.
	endBody() error
	// stopBody makes the sendBody under way, and those that follow, fail, until resume.
	stopBody()
	resume()

	// head waits for the next head of an answer, of which the last is the first that
	// is final: a 101, or no 1xx. It is valid until the next call of head or body.
	head() (*http1.Response, error)
	// firstByte returns how long after the lease was lent the answer began, or, if it
	// has not, how long ago that is.
	firstByte() time.Duration
	// frame says how the final answer is delimited for the client: isHead, of a request
	// for the head alone; unwrap, for one that knows no chunks. It comes before body.
	frame(isHead, unwrap bool) framing
	// body returns the next part of the final answer's body, delimited as frame said,
	// and whether it is the last. The first call waits for nothing: it returns what
	// came with the head. A part may come with an error. It is valid until the next
	// call, after settle too.
	body() (part []byte, last bool, err error)

	// tell notes what is known of the answer and of the connection.
	tell(*facts)
	// settle gives the lease back, unless that was done: to be closed for a reason, or
	// for others to use if that is "". pin, if not nil, keeps it for that ticket alone,
	// midway through authentication or not.
	settle(reason pool.Reason, pin *pool.Ticket, midway bool)
	// raw is the connection and what has come on it: after a 101, or where it has
	// carried no HTTP.
	raw() (*pool.Lease, *sock.Buffer)
	// interrupt makes everything under way fail.
	interrupt()
}

// framing is how the client can tell the end of an answer.
type framing struct {
	empty      bool // by its head
	untilClose bool // by the end of the connection alone
	unwrapped  bool // chunks have been taken off
}

// wire1 is an exchange in HTTP/1.1.
type wire1 struct {
	limits

	in       sock.Buffer // what the upstream has sent, and body has not done with
	given    int         // bytes at its front that the caller has
	resp     http1.Response
	decoder  http1.Body
	slow     bool // the request's body comes by sendBody
	ongoing  bool // a part of the answer's was given out
	informed bool // a 1xx has come
	suspect  bool // something odd has
	stray    bool // more came behind the answer than belongs to it
	// What the upstream said of its connection (pool.Lease.Hint).
	hintTimeout, hintMax int64
}

// begin makes w ready for an exchange on a lease.
func (w *wire1) begin(l *pool.Lease, cfg *Config, r *reins) {
	w.end()
	*w = wire1{limits: limits{cfg: cfg, reins: r, lease: l}, resp: w.resp}
}

// end forgets the exchange. Its memory is kept.
func (w *wire1) end() {
	w.in.Release()
	w.resp.Reset()
	*w = wire1{resp: w.resp}
}

func (w *wire1) send(head, body []byte, whole bool) (int, error) { return w.lease.Writev(head, body) }

// beginBody lets the upstream take the request as slowly as it likes: the sweeper
// sees to it that it lives.
func (w *wire1) beginBody() {
	w.slow = true
	w.patient(true)
}

func (w *wire1) patient(on bool) {
	w.lease.SetPatient(on)
	w.reins.setPatient(on)
}

func (w *wire1) sendBody(part []byte) error {
	if err := w.sends(); err != nil {
		return err
	}
	_, err := w.lease.Write(part)
	return w.sent(err)
}

func (w *wire1) endBody() error {
	if w.slow {
		if w.cfg.BodyIdleTimeout > 0 {
			_ = w.lease.SetWriteDeadline(time.Time{})
		}
		w.patient(false)
	}
	return w.awaitHead()
}

func (w *wire1) head() (*http1.Response, error) {
	w.advance()
	for {
		n, err := w.resp.Parse(w.in.Bytes(), w.cfg.MaxHeaderBytes)
		switch {
		case err == nil:
			w.given = n
			return &w.resp, w.headCame()
		case err != http1.ErrIncomplete:
			return nil, err
		}
		if !w.in.Grow(2 * w.cfg.MaxHeaderBytes) { // the parser's own limit comes first
			return nil, &problemHeadSize
		}
		if err := w.lease.Fill(&w.in); err != nil {
			return nil, err
		}
	}
}

// headCame notes what kind of head has come.
func (w *wire1) headCame() error {
	if !isFinal(w.resp.Status) {
		w.informed, w.suspect = true, w.suspect || w.resp.Suspect
		return nil
	}
	return w.limits.headCame()
}

// isFinal reports whether no other head of an answer follows: a 101 is the last of
// its connection that is HTTP/1.1.
func isFinal(status int) bool { return status >= 200 || status == 101 }

// advance drops what the caller has done with.
func (w *wire1) advance() {
	w.in.Consume(w.given)
	w.given = 0
}

func (w *wire1) frame(isHead, unwrap bool) framing {
	r, d := &w.resp, &w.decoder
	w.hintTimeout, w.hintMax = r.KeepAliveHint()
	w.suspect = w.suspect || r.Status == 204 && (r.Length > 0 || r.Chunked) // there may be a body to come
	gradeEndpoint(w.lease, r)
	*d = r.Body(isHead)
	d.Unwrap = unwrap && r.Chunked
	return framing{empty: d.Done(), unwrapped: d.Unwrap, untilClose: d.UntilClose() || d.Unwrap && d.Chunked()}
}

// gradeEndpoint tells the pool of an answer that says that the endpoint does not do
// well. Retry-After says for how long it is to be left alone. Without it a 503 is a
// failure as any other 5xx: one says little, a run of them moves requests to others.
// A 429 is none then. It is mostly about the client, whom a limit on its rate finds
// at each of the endpoints, and it shows an endpoint that is well enough to count:
// to take it for a failure would bench one after the other of a healthy service.
func gradeEndpoint(l *pool.Lease, r *http1.Response) {
	status := r.Status
	if status == 429 || status == 503 {
		if d := retryAfter(r, time.Now()); d > 0 {
			l.Overloaded(d)
			return
		}
	}
	if status >= 500 {
		l.Failed()
	}
}

// retryAfter is how long the upstream asks to be left alone (RFC 9110 section
// 10.2.3); 0 if it does not.
func retryAfter(r *http1.Response, now time.Time) time.Duration {
	for i := range r.Fields {
		f := &r.Fields[i]
		if !http1.EqualFold(r.FieldName(f), "retry-after") {
			continue
		}
		v := string(r.Value(f))
		if n, err := strconv.ParseUint(v, 10, 31); err == nil {
			return time.Duration(n) * time.Second
		}
		if at, err := http.ParseTime(v); err == nil {
			return max(at.Sub(now), 0)
		}
	}
	return 0
}

func (w *wire1) body() (part []byte, last bool, err error) {
	if w.ongoing {
		w.advance()
		if err := w.fill(); err != nil {
			if last = err == io.EOF && w.decoder.UntilClose(); last {
				w.resp.Close, err = true, nil
			}
			return nil, last, err
		}
	}
	w.ongoing = true
	rest := w.in.Bytes()[w.given:]
	out, used, err := w.decoder.Decode(rest)
	w.given += used
	if last = err == nil && w.decoder.Done(); last {
		w.stray = w.given < w.in.Len()
	}
	return rest[:out], last, err
}

// fill reads more of the body.
func (w *wire1) fill() error {
	if err := w.awaitPart(); err != nil {
		return err
	}
	w.in.Grow(http1.MaxUnused) // a line that has not ended; the decoder's own limit comes first
	return w.lease.Fill(&w.in)
}

func (w *wire1) tell(f *facts) {
	r := &w.resp
	if f.got == unanswered && (w.in.Len() > 0 || w.informed) {
		f.got = begun
	}
	f.reused = w.lease != nil && w.lease.Reused()
	f.late = w.lease != nil && w.lease.Carried() && !w.informed && !beginsLikeAnswer(w.in.Bytes())
	if f.got >= headed {
		f.idledOut = f.reused && !w.informed && r.Status == 408
		f.switched, f.last = r.Status == 101, r.Close || r.Minor == 0 && !r.KeepAlive
		f.suspect, f.stray = w.suspect || r.Suspect || w.decoder.Suspect, w.stray
	}
}

// beginsLikeAnswer reports whether bytes that do not parse are meant for an answer,
// or else late ones of an exchange before (RFC 9112 section 9.2).
func beginsLikeAnswer(b []byte) bool {
	const begin = "HTTP/"
	n := min(len(b), len(begin))
	return string(b[:n]) == begin[:n]
}

func (w *wire1) settle(reason pool.Reason, pin *pool.Ticket, midway bool) {
	l := w.lease
	w.lease = nil
	switch {
	case l == nil:
		return
	case reason != "":
		l.Discard(reason)
		return
	}
	if w.cfg.BodyIdleTimeout > 0 {
		_ = l.SetReadDeadline(time.Time{})
	}
	l.Hint(w.hintTimeout, w.hintMax)
	if pin != nil {
		l.ReleaseTo(pin, midway)
	} else {
		l.Release()
	}
}

func (w *wire1) raw() (*pool.Lease, *sock.Buffer) {
	w.advance()
	return w.lease, &w.in
}
