package http1

import "bytes"

// Request is the head of a request.
type Request struct {
	Head
	// Method and Target are as they were written. They refer to the parsed bytes.
	Method, Target []byte

	scanned int // how much of an incomplete head was looked at
}

// Reset forgets a head that was parsed in part.
func (r *Request) Reset() { r.scanned = 0 }

// Parse parses the head at the start of b, at most limit bytes long, and
// returns its length; leading empty lines count as part of it. It may be called
// again with the same bytes and more behind them while the error is
// ErrIncomplete. Other errors are of type *Error. The head refers to b.
func (r *Request) Parse(b []byte, limit int) (int, error) {
	skip := 0
	for lines := 0; lines < maxLeadingLines && bytes.HasPrefix(b[skip:], crlf); lines++ {
		skip += len(crlf) // RFC 9112 section 2.2
	}
	b = b[skip:]
	n := headEnd(b, r.scanned)
	r.scanned = 0
	if n == 0 || n > limit {
		err := r.incomplete(b, limit)
		if err == ErrIncomplete {
			r.scanned = len(b)
		}
		return 0, err
	}
	r.reset(b[:n], false)
	line, next, err := r.cut(0)
	if err == nil {
		err = r.parseLine(line)
	}
	if err == nil {
		err = r.parseFields(next)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return 0, err
	}
	return skip + n, nil
}

var crlf = []byte("\r\n")

// incomplete says what is to be said before the end of the head is there: a
// first line that cannot become right need not be waited for.
func (r *Request) incomplete(b []byte, limit int) error {
	k := bytes.IndexByte(b, '\n')
	if k < 0 {
		if len(b) >= limit {
			return errTargetTooLong
		}
		return ErrIncomplete
	}
	if k >= limit {
		return errTargetTooLong
	}
	if k == 0 || b[k-1] != '\r' {
		return errBareLF
	}
	if err := r.parseLine(b[:k-1]); err != nil {
		return err
	}
	if len(b) >= limit {
		return errHeadTooLarge
	}
	return ErrIncomplete
}

// parseLine parses METHOD SP TARGET SP HTTP/1.x (RFC 9112 section 3).
func (r *Request) parseLine(line []byte) *Error {
	i := bytes.IndexByte(line, ' ')
	if i <= 0 || i > maxMethod || !all(line[:i], isToken) {
		return errRequestLine
	}
	rest := line[i+1:]
	k := bytes.IndexByte(rest, ' ')
	if k < 0 {
		return errVersion // HTTP/0.9
	}
	if k == 0 || !all(rest[:k], isTarget) {
		return errRequestLine
	}
	minor, err := parseVersion(rest[k+1:])
	if err != nil {
		return err
	}
	r.Method, r.Target, r.Minor = line[:i], rest[:k], minor
	return nil
}

func parseVersion(v []byte) (int, *Error) {
	if len(v) != 8 || string(v[:5]) != "HTTP/" || v[6] != '.' || class[v[5]]&class[v[7]]&isDigit == 0 {
		return 0, errRequestLine
	}
	if v[5] != '1' {
		return 0, errVersion
	}
	return min(int(v[7]-'0'), 1), nil
}

// check holds the fields together (RFC 9112 sections 3.2 and 6.3).
func (r *Request) check() *Error {
	switch {
	case r.hosts > 1, r.hosts == 0 && r.Minor >= 1:
		return errHost
	case r.lengths > 1:
		return errLength
	case r.codings > 0 && r.lengths > 0:
		return errLengthAndTE
	case r.codings > 0 && r.Minor == 0:
		return errTEVersion
	case r.codings > 0 && !(r.Chunked && r.codings == 1):
		return r.codingError()
	}
	return nil
}

// codingError tells a transfer coding that exists from one that does not.
func (r *Request) codingError() *Error {
	v := r.First(TransferEncoding)
	for _, known := range [...]string{"gzip", "deflate", "compress", "gzip, chunked", "deflate, chunked"} {
		if EqualFold(v, known) {
			return errTEUnsupported
		}
	}
	return errTE
}

// Body returns the framing of the request's body.
func (r *Request) Body() Body {
	switch {
	case r.Chunked:
		return Body{mode: chunked}
	case r.Length > 0:
		return Body{mode: sized, left: r.Length}
	}
	return Body{mode: ended}
}
