package http1

import "bytes"

// Response is the head of a response.
type Response struct {
	Head
	// Status is the status code, 100 to 999.
	Status int
	// Suspect says that the framing was contradictory (RFC 9112 section 6.3): the
	// response can be passed on, the connection must not be used again.
	Suspect bool

	line    []byte
	scanned int
}

// Reset forgets a head that was parsed in part.
func (r *Response) Reset() { r.scanned = 0 }

// Parse parses the head at the start of b, at most limit bytes long, and
// returns its length. It is Request.Parse for responses; folded lines, lines
// that end with LF alone, and spaces before a colon are normalised, in b.
func (r *Response) Parse(b []byte, limit int) (int, error) {
	n := headEnd(b, r.scanned)
	r.scanned = 0
	if n == 0 || n > limit {
		err := r.incomplete(b, limit)
		if err == ErrIncomplete {
			r.scanned = len(b)
		}
		return 0, err
	}
	r.reset(b[:n])
	r.Suspect = false
	line, next, err := r.cut(0, lines{lenient: true})
	if err == nil {
		err = r.parseLine(line)
	}
	if err == nil {
		err = r.parseFields(next, lines{lenient: true})
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (r *Response) incomplete(b []byte, limit int) error {
	if k := min(len(b), len("HTTP/1.")); string(b[:k]) != "HTTP/1."[:k] {
		return errStatusLine
	}
	if len(b) >= limit {
		return errHeadTooLarge
	}
	return ErrIncomplete
}

// parseLine parses HTTP/1.x SP CODE [SP REASON] (RFC 9112 section 4). Some
// servers leave the last space out.
func (r *Response) parseLine(line []byte) *Error {
	const code = len("HTTP/1.1 ")
	if len(line) < code+3 || line[code-1] != ' ' || !all(line[code:code+3], isDigit) || line[code] == '0' {
		return errStatusLine
	}
	minor, err := parseVersion(line[:code-1])
	if err != nil {
		return errStatusLine
	}
	rest := line[code+3:]
	if len(rest) > 0 && (rest[0] != ' ' || !validValue(rest)) {
		return errStatusLine
	}
	r.Minor, r.line = minor, line[code:]
	r.Status = int(line[code]-'0')*100 + int(line[code+1]-'0')*10 + int(line[code+2]-'0')
	return nil
}

func (r *Response) check() *Error {
	if r.codings == 0 {
		return nil
	}
	if r.codings > 1 || !r.Chunked {
		return errTE
	}
	if r.Minor == 0 {
		r.Suspect = true
	}
	if r.lengths > 0 {
		// Transfer-Encoding counts, and somebody is confused or worse.
		r.Suspect = true
		r.DropLength()
		r.Length = -1
	}
	return nil
}

// AppendLine appends the status line, in this package's own version of HTTP
// (RFC 9110 section 6.2).
func (r *Response) AppendLine(dst []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, r.line...)
	if len(r.line) == 3 {
		dst = append(dst, ' ')
	}
	return append(dst, "\r\n"...)
}

// HasBody reports whether a response with this status to a request that was,
// or was not, HEAD has a body (RFC 9112 section 6.3).
func (r *Response) HasBody(head bool) bool {
	return !head && r.Status >= 200 && r.Status != 204 && r.Status != 304
}

// Body returns the framing of the response's body; head says that the request
// was HEAD.
func (r *Response) Body(head bool) Body {
	switch {
	case !r.HasBody(head):
		return Body{mode: ended}
	case r.Chunked:
		return Body{mode: chunked}
	case r.Length > 0:
		return Body{mode: sized, left: r.Length}
	case r.Length == 0:
		return Body{mode: ended}
	}
	return Body{mode: untilClose}
}

// KeepAliveHint returns what a server says of its connection in "Keep-Alive:
// timeout=5, max=100": seconds it may idle, and requests it still takes; -1
// where it does not say.
func (r *Response) KeepAliveHint() (timeout, max int64) {
	timeout, max = -1, -1
	EachOption(r.First(KeepAlive), func(o []byte) bool {
		name, value, _ := bytes.Cut(o, []byte("="))
		n, ok := parseDecimal(bytes.Trim(trim(value), `"`))
		if !ok {
			return true
		}
		switch name = trim(name); {
		case EqualFold(name, "timeout"):
			timeout = n
		case EqualFold(name, "max"):
			max = n
		}
		return true
	})
	return timeout, max
}
