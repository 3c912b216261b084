package proxy

import (
	"errors"
	"strconv"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/h2"
	"github.com/carpoolproxy/carpool/proxy/http1"
)

// wire2 is an exchange in HTTP/2, on a stream. What is said on either side of it is
// HTTP/1.1: a head is translated (head2.go), and a body of which the length is not
// known is in chunks.
type wire2 struct {
	limits
	stream *h2.Stream

	// Of the request.
	fields []h2.Field
	isHead bool
	chunks *chunks // nil: its body is not in any
	slow   bool    // its body comes by sendBody

	// Of the answer.
	text     []byte // its head, in HTTP/1.1
	data     []byte // memory for its body
	resp     http1.Response
	informed bool  // a 1xx has come
	empty    bool  // it has no body
	coded    bool  // its body is in chunks for the client
	left     int64 // what is to come of the body, -1 if that is not known
	ongoing  bool  // a part of the body was given out
	err      error // what the stream has failed with
}

// begin makes w ready for an exchange on a stream.
func (w *wire2) begin(l *pool.Lease, cfg *Config, r *reins) {
	w.end()
	w.cfg, w.reins, w.lease, w.stream = cfg, r, l, l.HTTP2()
	w.stream.Attach(w.data)
	w.data = nil
}

// end forgets the exchange. Its memory is kept, if that is not much.
func (w *wire2) end() {
	clear(w.fields)
	w.resp.Reset()
	if cap(w.text) > scratchSize || cap(w.fields) > 128 || cap(w.resp.Fields) > 128 {
		*w = wire2{}
		return
	}
	*w = wire2{fields: w.fields[:0], text: w.text[:0], data: w.data, resp: w.resp}
}

func (w *wire2) send(head, body []byte, whole bool) (n int, err error) {
	chunked := false
	w.fields, w.isHead, chunked = appendRequest2(w.fields[:0], head, w.lease.TLS())
	if !chunked {
		n, err = w.stream.Send(w.fields, body, whole)
		return n, w.failed(err)
	}
	w.chunks = new(chunks)
	if n, err = w.stream.Send(w.fields, nil, false); err == nil {
		err = w.sendChunks(body)
	}
	if err == nil && whole {
		err = w.stream.End(w.chunks.trailers)
	}
	return n, w.failed(err)
}

// failed notes an error of the stream. A rule that the upstream broke is one of HTTP.
func (w *wire2) failed(err error) error {
	if err == nil {
		return nil
	}
	w.err = err
	var r *h2.ResetError
	if errors.As(err, &r) && !r.Remote && !r.Unprocessed && r.Text != "" {
		return &http1.Error{Status: 502, Text: r.Text}
	}
	return err
}

func (w *wire2) beginBody() { w.slow = true }

func (w *wire2) sendBody(part []byte) error {
	if err := w.sends(); err != nil {
		return err
	}
	return w.sent(w.sendPart(part))
}

func (w *wire2) sendPart(part []byte) error {
	if w.chunks != nil {
		return w.sendChunks(part)
	}
	return w.stream.Write(part)
}

// sendChunks sends what is in chunks.
func (w *wire2) sendChunks(part []byte) error {
	for len(part) > 0 {
		var data []byte
		if data, part = w.chunks.next(part); len(data) > 0 {
			if err := w.stream.Write(data); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wire2) endBody() error {
	if w.slow {
		var trailers []h2.Field
		if w.chunks != nil {
			trailers = w.chunks.trailers
		}
		if err := w.stream.End(trailers); err != nil {
			return err
		}
	}
	return w.awaitHead()
}

func (w *wire2) head() (*http1.Response, error) {
	status, fields, end, err := w.stream.Head()
	if err != nil {
		return nil, w.failed(err)
	}
	w.lease.Answered()
	w.text, w.left = appendResponse2(w.text[:0], status, fields, end, w.isHead)
	if _, err := w.resp.Parse(w.text, len(w.text)+1); err != nil {
		w.informed = true // there was something
		return nil, err
	}
	if !isFinal(status) {
		w.informed = true
		return &w.resp, nil
	}
	return &w.resp, w.headCame()
}

func (w *wire2) frame(isHead, unwrap bool) framing {
	gradeEndpoint(w.lease, &w.resp)
	body := w.resp.Body(isHead)
	w.empty, w.coded = body.Done(), w.resp.Chunked && !unwrap
	unwrapped := w.resp.Chunked && unwrap
	return framing{empty: w.empty, unwrapped: unwrapped, untilClose: unwrapped && !w.empty}
}

func (w *wire2) body() (part []byte, last bool, err error) {
	wait := w.ongoing && !w.empty
	w.ongoing = true
	if wait {
		if err := w.awaitPart(); err != nil {
			return nil, false, err
		}
	}
	b, end, err := w.stream.Body(wait)
	switch {
	case w.empty:
		return nil, true, nil
	case err != nil:
		if err = w.failed(err); !wait && !isBad(err) {
			err = nil // the next call says it
		}
		return nil, false, err
	case b == nil:
		return nil, false, nil
	case w.coded:
		return w.inChunks(b, end), end, nil
	}
	data := b[h2.Room:]
	return w.counted(data, end)
}

// counted is data of which the length was said before, or is told by their end.
func (w *wire2) counted(data []byte, end bool) (part []byte, last bool, err error) {
	if w.left < 0 {
		return data, end, nil
	}
	n := int64(len(data))
	if n > w.left || end && n < w.left {
		return data[:min(n, w.left)], false, w.failed(errLength2)
	}
	w.left -= n
	return data, w.left == 0, nil
}

// errLength2 is an answer that RFC 9113 section 8.1.1 calls malformed.
var errLength2 = &http1.Error{Status: 502, Text: "the body is not as long as Content-Length says"}

// isBad reports whether an error is one of HTTP.
func isBad(err error) bool {
	var bad *http1.Error
	return errors.As(err, &bad)
}

// inChunks returns data, behind the room that they came with, as a chunk, and the
// last one with what follows it.
func (w *wire2) inChunks(b []byte, end bool) []byte {
	from := h2.Room
	if n := len(b) - h2.Room; n > 0 {
		var size [h2.Room]byte
		line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
		from -= len(line)
		copy(b[from:], line)
		b = append(b, "\r\n"...)
	}
	if end {
		b = append(appendTrailers2(append(b, "0\r\n"...), w.stream.Trailers()), "\r\n"...)
	}
	return b[from:]
}

func (w *wire2) tell(f *facts) {
	if f.got == unanswered && w.informed {
		f.got = begun
	}
	f.reused = w.lease != nil && w.lease.Reused()
	f.unprocessed = f.got == unanswered && h2.Unprocessed(w.err)
	var r *h2.ResetError
	f.older = errors.As(w.err, &r) && r.WantsHTTP1()
}

func (w *wire2) settle(reason pool.Reason, pin *pool.Ticket, midway bool) {
	l := w.lease
	if l == nil {
		return
	}
	w.data = w.stream.Detach() // the last part is valid still
	w.lease, w.stream = nil, nil
	if reason != "" {
		l.Discard(reason)
	} else {
		l.Release() // credentials are of requests here, not of the connection
	}
}

// raw is not for streams: a request that may become a tunnel has a connection to
// itself.
func (w *wire2) raw() (*pool.Lease, *sock.Buffer) { return w.lease, new(sock.Buffer) }
