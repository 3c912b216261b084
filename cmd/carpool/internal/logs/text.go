package logs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Longest text of a field, in bytes: somebody else chose it.
const (
	maxPath = 1024
	maxText = 512
)

// Path and Text make of what others chose a text that is one line, shows what it is, and has a bound. What is beyond it
// is cut off, with … in its place. What cannot be printed is percent-encoded, byte by byte: control characters of ASCII
// and of Unicode (U+0085 among them), line and paragraph separators (U+2028, U+2029), what turns the direction of text
// (U+202E) or cannot be seen, and bytes that are no UTF-8.
func Path(s string) string { return printable(s, maxPath) }

// Text is Path for anything else.
func Text(s string) string { return printable(s, maxText) }

func printable(s string, most int) string {
	end := ""
	if len(s) > most {
		cut := most
		for most-cut < utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s, end = s[:cut], "…"
	}
	if clean := prefix(s); clean < len(s) {
		s = s[:clean] + encode(s[clean:])
	}
	return s + end
}

// prefix is how many bytes of s can stay as they are, from its begin.
func prefix(s string) int {
	for i, r := range s {
		if !shown(s[i:], r) {
			return i
		}
	}
	return len(s)
}

// shown reports whether the rune that s begins with can stay as it is.
func shown(s string, r rune) bool {
	return unicode.IsPrint(r) && (r != utf8.RuneError || strings.HasPrefix(s, string(utf8.RuneError)))
}

func encode(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if shown(s, r) {
			b.WriteString(s[:size])
		} else {
			for _, c := range []byte(s[:size]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		s = s[size:]
	}
	return b.String()
}
