package http1

import "bytes"

// Head is what requests and responses have in common. It refers to the bytes
// it was parsed from, which must stay as they are while it is in use.
type Head struct {
	// Fields are the header lines in the order they came.
	Fields []Field
	// Minor is the minor version: 0 or 1.
	Minor int
	// Length is Content-Length, -1 if there is none.
	Length int64
	// Chunked says that the body is in chunks.
	Chunked bool
	// Close, KeepAlive and Upgrade tell what the Connection fields hold. Other
	// fields that they name were marked Drop.
	Close, KeepAlive, Upgrade bool
	// Has tells which of the recognised fields are there at all.
	Has Set
	// Suspect says that the message is odd in a way that leaves no doubt about
	// where it ends. It can be passed on; the connection it came on must not be
	// used again.
	Suspect bool

	buf      []byte // the head, from its first line to its empty line
	plain    bool   // every line can be copied as it stands
	relength bool   // Content-Length has to be written anew
	lenient  bool   // what leaves no doubt is put right, not refused
	skipping bool   // the last line was left out
	lengths  int
	codings  int
	hosts    int
	options  int // of the Connection fields
}

// Set is a set of field names.
type Set uint32

// HopByHop are the fields that are for one connection only, whether or not
// Connection names them (RFC 9110 section 7.6.1). Transfer-Encoding is the
// framing's.
const HopByHop Set = 1<<Connection | 1<<KeepAlive | 1<<ProxyConnection | 1<<TE | 1<<Upgrade

// Of reports whether n is in the set.
func (s Set) Of(n Name) bool { return s&(1<<n) != 0 }

// Value returns the value of a field.
func (h *Head) Value(f *Field) []byte { return h.buf[f.valueStart:f.valueEnd] }

// FieldName returns the name of a field as it was written.
func (h *Head) FieldName(f *Field) []byte { return h.buf[f.start:f.nameEnd] }

// First returns the value of the first field called n, nil if there is none.
func (h *Head) First(n Name) []byte {
	if h.Has.Of(n) {
		for i := range h.Fields {
			if h.Fields[i].Name == n {
				return h.Value(&h.Fields[i])
			}
		}
	}
	return nil
}

// Drop marks every field of which the name is in s.
func (h *Head) Drop(s Set) {
	if h.Has&s == 0 {
		return
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; s.Of(f.Name) {
			f.Drop = true
		}
	}
}

// AppendFields appends the header lines that are not dropped, byte for byte,
// without the empty line behind them. Only where one had to be normalised, all
// go with one space before their values.
func (h *Head) AppendFields(dst []byte) []byte {
	if !h.plain {
		return h.appendClean(dst)
	}
	start, end := uint32(0), uint32(0)
	for i := range h.Fields {
		f := &h.Fields[i]
		switch {
		case f.Drop:
		case f.start == end:
			end = f.end
		default:
			dst = append(dst, h.buf[start:end]...)
			start, end = f.start, f.end
		}
	}
	dst = append(dst, h.buf[start:end]...)
	return h.appendLength(dst)
}

// appendClean is AppendFields for heads with lines that were normalised.
func (h *Head) appendClean(dst []byte) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Drop {
			continue
		}
		dst = append(dst, h.FieldName(f)...)
		dst = append(dst, ": "...)
		dst = append(dst, h.Value(f)...)
		dst = append(dst, "\r\n"...)
	}
	return h.appendLength(dst)
}

func (h *Head) appendLength(dst []byte) []byte {
	if h.relength {
		dst = append(dst, "Content-Length: "...)
		dst = AppendInt(dst, h.Length)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// DropLength leaves Content-Length out when the head is written.
func (h *Head) DropLength() {
	h.Drop(1 << ContentLength)
	h.relength = false
}

// AppendInt appends n, which is not negative, in decimal.
func AppendInt(dst []byte, n int64) []byte {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(dst, b[i:]...)
		}
	}
}

// headEnd returns the length of the head at the start of b, which ends with an
// empty line, or 0 if it goes on. from is how much was looked at before.
func headEnd(b []byte, from int) int {
	for i := max(from-3, 0); ; {
		k := bytes.IndexByte(b[i:], '\n')
		if k < 0 {
			return 0
		}
		i += k + 1
		if i < len(b) && b[i] == '\n' {
			return i + 1
		}
		if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
			return i + 2
		}
	}
}

// cut returns the line at i and where the next begins. The line is without
// its end.
func (h *Head) cut(i int) (line []byte, next int, err *Error) {
	k := bytes.IndexByte(h.buf[i:], '\n')
	if k < 0 {
		return nil, 0, errBareLF // not reached: the head ends with an empty line
	}
	next = i + k + 1
	if k > 0 && h.buf[i+k-1] == '\r' {
		return h.buf[i : i+k-1], next, nil
	}
	if !h.lenient {
		return nil, 0, errBareLF
	}
	h.plain = false
	return h.buf[i : i+k], next, nil
}

// parseFields parses the header lines from offset i to the end of the head.
func (h *Head) parseFields(i int) *Error {
	for {
		line, next, err := h.cut(i)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return h.finish()
		}
		if isSpace(line[0]) {
			err = h.unfold(line, i)
		} else {
			err = h.parseField(line, i, next)
		}
		if err != nil {
			return err
		}
		i = next
	}
}

func (h *Head) parseField(line []byte, i, next int) *Error {
	if len(h.Fields) == maxFields {
		return errTooManyFields
	}
	n := 0
	for n < len(line) && class[line[n]]&isToken != 0 {
		n++
	}
	colon := n
	if h.lenient {
		for colon < len(line) && isSpace(line[colon]) {
			colon++
		}
	}
	if n == 0 || colon == len(line) || line[colon] != ':' {
		return h.leaveOut(line)
	}
	if colon > n {
		h.plain = false
	}
	name := nameOf(line[:n])
	if err := h.checkValue(name, line[colon+1:]); err != nil {
		return err
	}
	v0, v1 := colon+1, len(line)
	for v0 < v1 && isSpace(line[v0]) {
		v0++
	}
	for v1 > v0 && isSpace(line[v1-1]) {
		v1--
	}
	h.skipping = false
	h.Fields = append(h.Fields, Field{
		start: uint32(i), end: uint32(next), nameEnd: uint32(i + n),
		valueStart: uint32(i + v0), valueEnd: uint32(i + v1), Name: name,
	})
	h.Has |= 1 << name
	return nil
}

// checkValue sees to it that no control character is left in a value.
func (h *Head) checkValue(name Name, value []byte) *Error {
	if validValue(value) {
		return nil
	}
	if !h.lenient || name == ContentLength || name == TransferEncoding || !scrub(value) {
		return errFieldValue
	}
	h.Suspect = true
	return nil
}

// leaveOut passes over a line that is no field, unless one that says where the
// message ends may hide in it.
func (h *Head) leaveOut(line []byte) *Error {
	switch {
	case !h.lenient:
		return errFieldName
	case hidesFraming(line):
		return errHidden
	}
	h.Suspect, h.skipping = true, true
	return nil
}

// unfold joins a folded line to the value before it, spaces in place of the
// line end (RFC 9112 section 5.2). One that goes on with nothing is left out
// (section 2.2), and so is one that goes on with a line that was.
func (h *Head) unfold(line []byte, i int) *Error {
	if !h.lenient {
		return errFold
	}
	if len(h.Fields) == 0 || h.skipping {
		return h.leaveOut(line)
	}
	f := &h.Fields[len(h.Fields)-1]
	if err := h.checkValue(f.Name, line); err != nil {
		return err
	}
	h.plain = false
	for k := int(f.valueEnd); k < i; k++ {
		h.buf[k] = ' '
	}
	f.valueEnd = uint32(i + len(line))
	f.end = f.valueEnd
	for f.valueStart < f.valueEnd && isSpace(h.buf[f.valueEnd-1]) {
		f.valueEnd--
	}
	for f.valueStart < f.valueEnd && isSpace(h.buf[f.valueStart]) {
		f.valueStart++
	}
	return nil
}

// finish looks at the fields that say how the message is framed and what the
// connection is told.
func (h *Head) finish() *Error {
	if h.Has&(1<<Connection|1<<ContentLength|1<<TransferEncoding|1<<Host) == 0 {
		return nil
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		var err *Error
		switch f.Name {
		case Connection:
			err = h.parseConnection(f)
		case ContentLength:
			h.tidy(f)
			err = h.parseLength(f)
		case TransferEncoding:
			h.tidy(f)
			h.codings++
			h.Chunked = EqualFold(h.Value(f), "chunked")
		case Host:
			h.hosts++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tidy sees to it that a line about framing goes on with no white space but a
// space before its value: readers exist that do not know "chunked" with a tab
// behind it, and then see the message end elsewhere (nodejs/llhttp#876).
func (h *Head) tidy(f *Field) {
	if f.end-f.valueEnd > 2 || f.valueStart-f.nameEnd > 2 || h.buf[f.valueStart-1] == '\t' {
		h.plain = false
	}
}

// parseLength takes one number, or the same several times: on several lines, or
// in a list of which somebody has made one line (RFC 9110 section 8.6).
func (h *Head) parseLength(f *Field) *Error {
	for list, more := h.Value(f), true; more; {
		var one []byte
		one, list, more = bytes.Cut(list, comma)
		n, ok := parseDecimal(trim(one))
		if !ok || h.lengths > 0 && n != h.Length {
			return errLength
		}
		h.lengths++
		h.Length = n
	}
	if v := h.Value(f); h.lengths > 1 || len(v) > 1 && v[0] == '0' {
		// One reader's decimal is another's octal: it leaves as one plain number.
		h.relength = true
		h.Drop(1 << ContentLength)
	}
	return nil
}

var comma = []byte(",")

// parseConnection takes the options of a Connection field. What is no token
// names no field and asks for nothing; such a line is left out.
func (h *Head) parseConnection(f *Field) *Error {
	list := h.Value(f)
	// The two values that nearly every message has.
	if EqualFold(list, "close") {
		h.Close = true
		return nil
	}
	if EqualFold(list, "keep-alive") {
		h.KeepAlive = true
		return nil
	}
	EachOption(list, func(o []byte) bool {
		h.options++
		switch {
		case h.options > maxOptions:
			return false
		case !all(o, isToken):
			h.Suspect, f.Drop = true, true
		case EqualFold(o, "close"):
			h.Close = true
		case EqualFold(o, "keep-alive"):
			h.KeepAlive = true
		case EqualFold(o, "upgrade"):
			h.Upgrade = true
		default:
			h.nominate(o)
		}
		return true
	})
	if h.options <= maxOptions {
		return nil
	}
	if !h.lenient {
		return errConnection
	}
	h.Suspect, f.Drop = true, true
	return nil
}

// nominate drops the fields that the Connection field names (RFC 9110 section
// 7.6.1), but not those that say whose the message is or where it ends.
func (h *Head) nominate(option []byte) {
	switch nameOf(option) {
	case Host, ContentLength, TransferEncoding:
		return
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		name := h.FieldName(f)
		if len(name) == len(option) && bytes.EqualFold(name, option) {
			f.Drop = true
		}
	}
}

func (h *Head) reset(buf []byte, lenient bool) {
	*h = Head{Fields: h.Fields[:0], buf: buf, Length: -1, plain: true, lenient: lenient}
}
