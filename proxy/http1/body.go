package http1

import "bytes"

// Body follows the framing of one message body (RFC 9112 sections 6 and 7). It
// works in place on the bytes as they come.
type Body struct {
	mode    mode
	state   state
	left    int64 // bytes to come: of the body, or of the chunk
	trailer int   // bytes of trailer section so far
	lenient bool  // what leaves no doubt is put right, not refused
	// Unwrap leaves only the content of a chunked body: no sizes, no trailers.
	Unwrap bool
	// Suspect is Head.Suspect for what was seen of the body.
	Suspect bool
}

type mode uint8

const (
	ended mode = iota
	sized
	chunked
	untilClose
)

type state uint8

const (
	atSize state = iota
	inData
	atDataEnd
	atTrailer
)

// Done reports whether the whole body has been seen.
func (b *Body) Done() bool { return b.mode == ended }

// UntilClose reports whether the body ends when its connection does.
func (b *Body) UntilClose() bool { return b.mode == untilClose }

// Chunked reports whether the body, not yet done, is in chunks.
func (b *Body) Chunked() bool { return b.mode == chunked }

// Left returns how many bytes are to come, -1 if that is not known.
func (b *Body) Left() int64 {
	switch b.mode {
	case ended:
		return 0
	case sized:
		return b.left
	}
	return -1
}

// MaxUnused bounds the bytes that Decode leaves unused: the longest line in the
// framing of a body, its end included.
const MaxUnused = maxTrailer + 2

// Decode goes through the bytes that follow those of the last call. It has
// used the first `used` of them, and leaves what is to be passed on in p[:out]:
// the same bytes, less chunk extensions and trailers that have no business
// there, and what was odd is put right. Bytes that were not used although the
// body is not done are part of a line that has not ended, MaxUnused of them at
// most: they are to be given again, with more behind them.
// The error is of type *Error; out then is what was right before it.
func (b *Body) Decode(p []byte) (out, used int, err error) {
	switch b.mode {
	case ended:
		return 0, 0, nil
	case untilClose:
		return len(p), len(p), nil
	case sized:
		n := int(min(int64(len(p)), b.left))
		if b.left -= int64(n); b.left == 0 {
			b.mode = ended
		}
		return n, n, nil
	}
	return b.decodeChunks(p)
}

func (b *Body) decodeChunks(p []byte) (out, used int, err error) {
	keep := func(from, to int) {
		if out != from {
			copy(p[out:], p[from:to])
		}
		out += to - from
	}
	for b.mode == chunked {
		rest := p[used:]
		if b.state == inData {
			n := int(min(int64(len(rest)), b.left))
			keep(used, used+n)
			used += n
			if b.left -= int64(n); b.left > 0 {
				return out, used, nil
			}
			b.state = atDataEnd
			continue
		}
		n, kept, err := b.line(rest)
		if err != nil {
			return out, used, err
		}
		if n == 0 {
			return out, used, nil
		}
		switch {
		case b.Unwrap:
		case kept < 0: // the line as it stands
			keep(used, used+n)
		case kept > 0: // its first bytes
			keep(used, used+kept)
			out += copy(p[out:], crlf)
		}
		used += n
	}
	return out, used, nil
}

// line takes one line of a chunked body's framing. It returns its length with
// CRLF, 0 if it has not ended, and how much of it to keep in front of a CRLF:
// all of it, -1, or nothing of it, 0.
func (b *Body) line(p []byte) (n, keep int, err error) {
	k := bytes.IndexByte(p, '\n')
	if k < 0 {
		return 0, 0, b.unended(p)
	}
	if k == 0 || p[k-1] != '\r' {
		return 0, 0, errBareLF
	}
	line := p[:k-1]
	switch b.state {
	case atSize:
		keep, err = b.size(line)
	case atDataEnd:
		keep = -1
		if len(line) > 0 {
			err = errChunkEnd
		}
		b.state = atSize
	case atTrailer:
		keep, err = b.trailerLine(line)
	}
	return k + 1, keep, err
}

// unended judges a line that has not ended yet. Its last byte may be the CR of
// its end.
func (b *Body) unended(p []byte) error {
	switch {
	case b.state == atDataEnd && (len(p) > 1 || len(p) == 1 && p[0] != '\r'):
		return errChunkEnd
	case b.state == atSize && len(p) > maxChunkLine+1:
		return errChunkSize
	case b.state == atSize && len(p) > 0 && hexValue(p[0]) < 0:
		return errChunkSize
	case b.state == atTrailer && b.trailer+len(p) > maxTrailer+1:
		return errTrailer
	}
	return nil
}

// maxDigits bounds the digits of a chunk size that is passed on.
const maxDigits = 16

// size parses chunk-size [ BWS chunk-ext ] (RFC 9112 section 7.1). Extensions
// are left out when the line is passed on, and so are zeros where they are too
// many.
func (b *Body) size(line []byte) (keep int, err error) {
	if len(line) > maxChunkLine {
		return 0, errChunkSize
	}
	n, i := int64(0), 0
	for ; i < len(line) && hexValue(line[i]) >= 0; i++ {
		if n >= 1<<55 {
			return 0, errChunkSize
		}
		n = n<<4 | int64(hexValue(line[i]))
	}
	ext := trim(line[i:])
	if i == 0 || i > maxDigits && !b.lenient || len(ext) > 0 && (ext[0] != ';' || !b.clean(ext)) {
		return 0, errChunkSize
	}
	b.left, b.state = n, inData
	if n == 0 {
		b.state = atTrailer
	}
	switch {
	case i > maxDigits: // the others are zeros, or the size would be too large
		b.Suspect = true
		copy(line, line[i-maxDigits:i])
		return maxDigits, nil
	case i == len(line):
		return -1, nil
	}
	return i, nil
}

// clean sees to it that no control character is left in a text, if that can
// be.
func (b *Body) clean(text []byte) bool {
	if validValue(text) {
		return true
	}
	if !b.lenient || !scrub(text) {
		return false
	}
	b.Suspect = true
	return true
}

// trailerLine takes one line of the trailer section, the empty one at its end
// included. Lines that are no field are left out, as in a head.
func (b *Body) trailerLine(line []byte) (keep int, err error) {
	if len(line) == 0 {
		b.mode = ended
		return -1, nil
	}
	b.trailer += len(line)
	n := 0
	for n < len(line) && class[line[n]]&isToken != 0 {
		n++
	}
	switch {
	case b.trailer > maxTrailer:
		return 0, errTrailer
	case n == 0 || n == len(line) || line[n] != ':':
		if !b.lenient || beginsAnew(line) {
			return 0, errTrailer
		}
		b.Suspect = true
		return 0, nil
	case !b.clean(line[n+1:]):
		return 0, errTrailer
	}
	if !AllowedInTrailer(line[:n]) {
		return 0, nil
	}
	return -1, nil
}

// beginsAnew reports whether a line in a trailer section that is no field is
// more than an odd one: a second line, a part of the field before, which is on
// its way, or the head of another response.
func beginsAnew(line []byte) bool {
	return bytes.IndexByte(line, 0) >= 0 || bytes.IndexByte(line, '\r') >= 0 || isSpace(line[0]) ||
		bytes.HasPrefix(line, []byte(protocol))
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
