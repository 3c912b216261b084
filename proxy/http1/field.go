package http1

import "bytes"

// Name is a field name that somebody between client and server acts upon.
type Name uint8

// The field names that are recognised.
const (
	Other Name = iota
	Authorization
	Connection
	ContentLength
	Date
	Expect
	Host
	IdempotencyKey
	KeepAlive
	MaxForwards
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	TE
	Trailer
	TransferEncoding
	Upgrade
	Via
	WWWAuthenticate
)

// Field is one header line, as offsets into the head it stands in.
type Field struct {
	start, end           uint32 // the line, with its CRLF
	nameEnd              uint32
	valueStart, valueEnd uint32 // without white space around it
	Name                 Name
	// Drop leaves the line out when the head is written.
	Drop bool
}

// nameOf recognises a field name. A switch on the length spares most
// comparisons.
func nameOf(b []byte) Name {
	switch len(b) {
	case 2:
		return match(b, "te", TE)
	case 3:
		return match(b, "via", Via)
	case 4:
		switch b[0] | 0x20 {
		case 'h':
			return match(b, "host", Host)
		case 'd':
			return match(b, "date", Date)
		}
	case 6:
		return match(b, "expect", Expect)
	case 7:
		switch b[0] | 0x20 {
		case 't':
			return match(b, "trailer", Trailer)
		case 'u':
			return match(b, "upgrade", Upgrade)
		}
	case 10:
		switch b[0] | 0x20 {
		case 'c':
			return match(b, "connection", Connection)
		case 'k':
			return match(b, "keep-alive", KeepAlive)
		}
	case 12:
		return match(b, "max-forwards", MaxForwards)
	case 13:
		return match(b, "authorization", Authorization)
	case 14:
		return match(b, "content-length", ContentLength)
	case 15:
		return match(b, "idempotency-key", IdempotencyKey)
	case 16:
		switch b[0] | 0x20 {
		case 'p':
			return match(b, "proxy-connection", ProxyConnection)
		case 'w':
			return match(b, "www-authenticate", WWWAuthenticate)
		}
	case 17:
		return match(b, "transfer-encoding", TransferEncoding)
	case 18:
		return match(b, "proxy-authenticate", ProxyAuthenticate)
	case 19:
		return match(b, "proxy-authorization", ProxyAuthorization)
	}
	return Other
}

func match(b []byte, s string, n Name) Name {
	if EqualFold(b, s) {
		return n
	}
	return Other
}

// hidesFraming reports whether a line that is no field may have been meant to
// say where its message ends: whether the letters of what would be its name,
// whatever stands between them, hold the name of a field that does, or are that
// of Connection. A line with NUL or CR in it may be more than one.
func hidesFraming(line []byte) bool {
	if bytes.IndexByte(line, 0) >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		return true
	}
	name, _, _ := bytes.Cut(line, colon)
	for i, c := range name {
		if !isLetter(rune(c)) {
			continue
		}
		length, _ := squeeze(name[i:], "contentlength")
		coding, _ := squeeze(name[i:], "transferencoding")
		if length || coding {
			return true
		}
	}
	begins, rest := squeeze(name, "connection")
	return begins && !bytes.ContainsFunc(rest, isLetter)
}

var colon = []byte(":")

func isLetter(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' }

// squeeze reports whether the letters in b begin with those of s, which are
// small, and what is behind them.
func squeeze(b []byte, s string) (begins bool, rest []byte) {
	k := 0
	for i := 0; i < len(b) && k < len(s); i++ {
		if !isLetter(rune(b[i])) {
			continue
		}
		if b[i]|0x20 != s[k] {
			return false, nil
		}
		if k++; k == len(s) {
			return true, b[i+1:]
		}
	}
	return false, nil
}

// forbiddenInTrailer lists fields that must not be taken from, or sent in, a
// trailer section: framing, routing, authentication, request modifiers and
// content coding (RFC 9110 section 6.5.1).
var forbiddenInTrailer = [...]string{
	"authorization", "cache-control", "connection", "content-encoding", "content-length", "content-range",
	"content-type", "cookie", "expect", "host", "keep-alive", "max-forwards", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "range", "set-cookie", "te", "trailer", "transfer-encoding",
	"upgrade", "www-authenticate",
}

// AllowedInTrailer reports whether a field may be in a trailer section (RFC 9110
// section 6.5.1).
func AllowedInTrailer(name []byte) bool {
	for _, f := range forbiddenInTrailer {
		if EqualFold(name, f) {
			return false
		}
	}
	return true
}
