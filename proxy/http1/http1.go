// Package http1 is HTTP/1.1 on the wire (RFC 9112): it parses the heads of
// requests and responses, copies them with their bytes, order and letter case
// as they came, and follows the framing of bodies. It knows nothing of
// connections and of proxies.
//
// It is strict where two readers of the same bytes could disagree about where
// a message or a line ends, and it does not allocate once its structures have
// grown to the size of the messages at hand. What is odd in a response, as real
// servers send it, but leaves no such doubt, is put right and passed on; the
// message then is Suspect.
package http1

import "errors"

// ErrIncomplete means that the head goes on: more bytes are needed.
var ErrIncomplete = errors.New("http1: incomplete")

// Error says what is wrong with a message. The values are fixed, so returning
// one costs nothing.
type Error struct {
	// Status is the answer that a request with this fault deserves; a response
	// with it is a 502 whatever Status says.
	Status int
	// Text says in one line what was wrong.
	Text string
}

func (e *Error) Error() string { return "http1: " + e.Text }

func bad(text string) *Error { return &Error{400, text} }

var (
	errRequestLine   = bad("the request line is not METHOD SP TARGET SP HTTP/1.1")
	errStatusLine    = bad("the status line is not HTTP/1.1 SP CODE SP REASON")
	errVersion       = &Error{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	errTargetTooLong = &Error{414, "the request target is too long"}
	errHeadTooLarge  = &Error{431, "the header section is too large"}
	errTooManyFields = &Error{431, "there are too many header fields"}
	errBareLF        = bad("a line ends with LF alone, not CRLF")
	errFold          = bad("a header line is folded or begins with a space")
	errFieldName     = bad("a header line has no valid field name followed by a colon")
	errHidden        = bad("a line that is no header field looks as if it were to say where the message ends")
	errFieldValue    = bad("a header value has a control character in it")
	errHost          = bad("there must be exactly one Host field")
	errLength        = bad("Content-Length is not one decimal number")
	errLengthAndTE   = bad("both Content-Length and Transfer-Encoding are there")
	errTE            = bad("Transfer-Encoding is not one \"chunked\"")
	errTEUnsupported = &Error{501, "a transfer coding other than chunked is not supported"}
	errTEVersion     = bad("Transfer-Encoding is there in an HTTP/1.0 message")
	errConnection    = bad("the Connection field has too many options")
	errChunkSize     = bad("a chunk size is not a hexadecimal number, or the line is too long")
	errChunkEnd      = bad("a chunk is longer than its size says")
	errTrailer       = bad("the trailer section is malformed or too large")
)

const (
	// maxFields bounds the number of header fields in one head.
	maxFields = 1000
	// maxMethod bounds the length of a method name.
	maxMethod = 64
	// maxOptions bounds the number of options in the Connection fields of a head.
	maxOptions = 64
	// maxChunkLine bounds a chunk-size line, extensions included.
	maxChunkLine = 1 << 10
	// maxTrailer bounds a trailer section.
	maxTrailer = 16 << 10
	// maxLeadingLines bounds the empty lines before a request line that are
	// ignored (RFC 9112 section 2.2).
	maxLeadingLines = 8
)

// Classes of bytes.
const (
	isToken  = 1 << iota // RFC 9110 section 5.6.2
	isTarget             // may be in a request target: anything but controls and space
	isDigit
)

var class = func() (t [256]uint8) {
	for c := range t {
		if c > ' ' && c != 0x7f {
			t[c] |= isTarget
		}
		switch {
		case '0' <= c && c <= '9':
			t[c] |= isDigit | isToken
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			t[c] |= isToken
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	return t
}()

func all(b []byte, is uint8) bool {
	for _, c := range b {
		if class[c]&is == 0 {
			return false
		}
	}
	return true
}

// validValue reports whether a field value is free of control characters, TAB
// aside (RFC 9110 section 5.5). It looks at eight bytes at a time.
func validValue(b []byte) bool {
	for len(b) >= 8 {
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		const ones, high = 0x0101010101010101, 0x8080808080808080
		del := w ^ 0x7f*ones
		// A byte below 0x20, or equal to 0x7f, sets its high bit. Borrows can only
		// report too much, and the slow loop below decides then.
		if ((w-0x20*ones)&^w|(del-ones)&^del)&high != 0 && !validBytes(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return validBytes(b)
}

func validBytes(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// EqualFold reports whether b is s but for ASCII letter case. s is in lower
// case.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// scrub puts a space in place of each control character, as RFC 9110 section
// 5.5 has it. It reports false where NUL or CR is among them, which readers take
// for the end of a line.
func scrub(b []byte) bool {
	for i, c := range b {
		switch {
		case c == 0, c == '\r':
			return false
		case c < ' ' && c != '\t', c == 0x7f:
			b[i] = ' '
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// EachOption calls f for each element of a comma-separated list, empty ones
// aside, until f returns false.
func EachOption(list []byte, f func(option []byte) bool) {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ',' {
			i++
		}
		if o := trim(list[:i]); len(o) > 0 && !f(o) {
			return
		}
		list = list[min(i+1, len(list)):]
	}
}

// parseDecimal parses digits and nothing else, up to 2^63-1.
func parseDecimal(b []byte) (int64, bool) {
	if len(b) == 0 || !all(b, isDigit) {
		return 0, false
	}
	for len(b) > 1 && b[0] == '0' {
		b = b[1:]
	}
	if len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}
