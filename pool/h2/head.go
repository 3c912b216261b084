package h2

import "golang.org/x/net/http2/hpack"

// Field is a header field, a trailer or a pseudo-header field (RFC 9113 section
// 8.3). Names are in lower case.
type Field = hpack.HeaderField

// block is a head or a trailer section on its way, from its first frame to its last.
type block struct {
	open  bool // more is to come
	id    uint32
	end   bool   // it ends its stream
	parts int    // frames
	b     []byte // what has come of it, if that is more than one frame

	most   int // as RFC 9113 section 6.5.2 counts it
	size   int
	fields []Field
	wrong  string // what is wrong with it
	ended  bool   // the pseudo-header fields are over
	status int
}

// begin makes b ready for another head.
func (b *block) begin(id uint32, end bool) {
	*b = block{id: id, end: end, b: b.b[:0], most: b.most, fields: b.fields[:0]}
}

// field takes a field as it was decoded.
func (b *block) field(f Field) {
	b.size += len(f.Name) + len(f.Value) + 32
	switch {
	case b.wrong != "":
	case b.size > b.most:
		b.wrong = "a head is too large"
	case !validName(f.Name) || !validValue(f.Value):
		b.wrong = "a field has a character that is not allowed there"
	case f.Name[0] == ':':
		b.pseudo(f)
	default:
		b.ended = true
		b.fields = append(b.fields, f)
	}
}

// pseudo takes a pseudo-header field. There is one in answers.
func (b *block) pseudo(f Field) {
	v := f.Value
	if b.ended || b.status != 0 || f.Name != ":status" || len(v) != 3 || v[0] < '1' || v[0] > '9' || !isDigit(v[1]) || !isDigit(v[2]) {
		b.wrong = "the pseudo-header fields are not one :status"
		return
	}
	b.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// validName reports whether a name may be one (RFC 9113 section 8.2.1).
func validName(s string) bool {
	if len(s) > 0 && s[0] == ':' {
		s = s[1:]
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || c == ':' {
			return false
		}
	}
	return len(s) > 0
}

// validValue reports whether a value has nothing in it that ends a line elsewhere.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '\r' || c == '\n' || c == 0 {
			return false
		}
	}
	return true
}

func (c *Conn) headersLocked(f *frame) error {
	if _, err := c.streamOfLocked(f); err != nil {
		return err
	}
	if err := f.unpad(); err != nil {
		return err
	}
	b := &c.block
	b.begin(f.id, f.has(flagEnd))
	if f.has(flagEndHeaders) {
		return c.decodeLocked(f.payload)
	}
	b.open = true
	return c.addLocked(f.payload)
}

func (c *Conn) continuationLocked(f *frame) error {
	b := &c.block
	if !b.open {
		return connError(codeProtocol, "a head goes on that has not begun")
	}
	if err := c.addLocked(f.payload); err != nil || !f.has(flagEndHeaders) {
		return err
	}
	b.open = false
	err := c.decodeLocked(b.b)
	if cap(b.b) > minFrame {
		b.b = nil
	}
	return err
}

// addLocked takes a part of a head.
func (c *Conn) addLocked(p []byte) error {
	b := &c.block
	if b.parts++; b.parts > mostContinuations || len(b.b)+len(p) > c.mostBlock() {
		return connError(codeCalm, "a head is too large")
	}
	b.b = append(b.b, p...)
	return nil
}

// decodeLocked decodes a head that is there, be it of a stream that is over: those
// that follow depend on it.
func (c *Conn) decodeLocked(p []byte) error {
	b := &c.block
	if _, err := c.dec.Write(p); err != nil {
		return connError(codeComp, "a head cannot be decoded: "+err.Error())
	}
	if err := c.dec.Close(); err != nil {
		return connError(codeComp, "a head cannot be decoded: "+err.Error())
	}
	c.speakLocked()
	s := c.streams[b.id]
	if s == nil || s.over() {
		return nil
	}
	if text := s.take(b); text != "" {
		return c.breakLocked(s, codeProtocol, text)
	}
	c.wakeLaterLocked(s)
	return nil
}
