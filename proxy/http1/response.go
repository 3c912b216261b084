package http1

// Response is the head of a response.
type Response struct {
	Head
	// Status is the status code, 100 to 999.
	Status int

	line    []byte
	scanned int
}

// Reset forgets a head that was parsed in part.
func (r *Response) Reset() { r.scanned = 0 }

// Parse parses the head at the start of b, at most limit bytes long, and
// returns its length. It is Request.Parse for responses. What is odd but leaves
// no doubt is put right, in b: folded lines, lines that end with LF alone, and
// spaces before a colon, which RFC 9112 speaks of; and what makes the response
// Suspect.
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
	r.reset(b[:n], true)
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
	return n, nil
}

func (r *Response) incomplete(b []byte, limit int) error {
	if k := min(len(b), len(protocol)); string(b[:k]) != protocol[:k] || len(b) > k && class[b[k]]&isDigit == 0 {
		return errStatusLine
	}
	if len(b) >= limit {
		return errHeadTooLarge
	}
	return ErrIncomplete
}

const protocol = "HTTP/"

// parseLine parses HTTP/1.x SP CODE [SP REASON] (RFC 9112 section 4). Some
// servers leave the last space out.
func (r *Response) parseLine(line []byte) *Error {
	version := len(protocol)
	for version < len(line) && !isSpace(line[version]) {
		version++
	}
	code := version
	for code < len(line) && isSpace(line[code]) {
		code++
	}
	// Below 100 it is not clear whether there is a body.
	if !r.parseVersion(line[:version]) || len(line) < code+3 || !all(line[code:code+3], isDigit) || line[code] == '0' {
		return errStatusLine
	}
	if code != version+1 || line[version] != ' ' {
		r.Suspect = true
	}
	r.line = line[code:]
	r.Status = int(line[code]-'0')*100 + int(line[code+1]-'0')*10 + int(line[code+2]-'0')
	return r.parseReason(line[code+3:])
}

// parseVersion takes HTTP/1.x, and, as servers behind a gateway are seen to say
// it, any other one-digit version: what they mean is this one.
func (r *Response) parseVersion(v []byte) bool {
	const major, dot, minor = len(protocol), len(protocol) + 1, len(protocol) + 2
	full := len(v) == minor+1 && v[dot] == '.' && class[v[minor]]&isDigit != 0
	if len(v) <= major || string(v[:major]) != protocol || class[v[major]]&isDigit == 0 || !full && len(v) != dot {
		return false
	}
	r.Minor = 1
	if !full || v[major] != '1' {
		r.Suspect = true
	} else if v[minor] == '0' {
		r.Minor = 0
	}
	return true
}

// parseReason takes what is behind the status code.
func (r *Response) parseReason(b []byte) *Error {
	if len(b) == 0 || b[0] == ' ' && validValue(b) {
		return nil
	}
	if !isSpace(b[0]) || !scrub(b) {
		return errStatusLine
	}
	b[0], r.Suspect = ' ', true
	return nil
}

// check holds the fields together (RFC 9112 section 6.3).
func (r *Response) check() *Error {
	if r.lengths > 1 {
		r.Suspect = true
	}
	if r.codings > 1 || r.codings > 0 && !r.Chunked {
		r.Suspect = true
		if err := r.oddCoding(); err != nil {
			return err
		}
	}
	if !r.Chunked {
		return nil
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

// oddCoding takes what cannot be misread although RFC 9112 does not know it, and
// leaves one line of it or none: "chunked" on several lines, and "identity",
// which was RFC 2616's name for no coding at all. A list is something else: its
// "chunked, chunked" is chunks in chunks to some, and "identity, chunked" is no
// chunks.
func (r *Response) oddCoding() *Error {
	only, kept := "identity", true // the last field decided
	if r.Chunked {
		only, kept = "chunked", false
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.Name != TransferEncoding {
			continue
		}
		if !EqualFold(r.Value(f), only) {
			return errTE
		}
		f.Drop, kept = kept, true
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
		return Body{mode: chunked, lenient: true}
	case r.Length > 0:
		return Body{mode: sized, left: r.Length}
	case r.Length == 0:
		return Body{mode: ended}
	}
	return Body{mode: untilClose}
}
