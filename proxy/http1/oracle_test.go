package http1_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// What is put right in a response is checked against putRight, which does the
// same with whole lines and patterns, and net/http, which then has to read what
// this package has read.

var (
	statusLine = regexp.MustCompile(`^HTTP/([0-9])(?:\.([0-9]))?[ \t]+([1-9][0-9][0-9])(?:[ \t](.*))?$`)
	fieldLine  = regexp.MustCompile("^([!#$%&'*+\\-.^_`|~0-9A-Za-z]+)[ \\t]*:[ \\t]*(.*?)[ \\t]*$")
	control    = regexp.MustCompile(`[\x01-\x08\x0a-\x1f\x7f]`)
	letters    = regexp.MustCompile(`[^A-Za-z]+`)
)

// putRight returns a head as its server should have written it. It does not see
// what has to be refused.
func putRight(head []byte) string {
	lines := strings.Split(strings.TrimSuffix(string(latin(head)), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	m := statusLine.FindStringSubmatch(lines[0])
	minor := "1"
	if m[1] == "1" && m[2] == "0" {
		minor = "0"
	}
	first := "HTTP/1." + minor + " " + m[3] + " " + control.ReplaceAllString(m[4], " ")
	var fields [][2]string
	skipping := true
	for _, line := range lines[1:] {
		if line == "" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if !skipping {
				fields[len(fields)-1][1] += " " + control.ReplaceAllString(line, " ")
			}
			continue
		}
		m := fieldLine.FindStringSubmatch(line)
		if skipping = m == nil; !skipping {
			fields = append(fields, [2]string{m[1], control.ReplaceAllString(m[2], " ")})
		}
	}
	out := []string{first}
	seen := map[string]bool{}
	for _, f := range fields {
		name, value := strings.ToLower(f[0]), strings.Trim(f[1], " \t")
		switch name {
		case "content-length":
			value = strings.TrimLeft(strings.Trim(strings.Split(value, ",")[0], " \t"), "0")
			if value == "" {
				value = "0"
			}
		case "transfer-encoding":
			if strings.EqualFold(value, "identity") {
				continue
			}
		}
		if framing := name == "content-length" || name == "transfer-encoding"; framing && seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, f[0]+": "+value)
	}
	return string(bytesOfLatin(strings.Join(out, "\r\n") + "\r\n\r\n"))
}

// latin makes one rune of each byte, so that patterns match bytes.
func latin(b []byte) []rune {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return runes
}

func bytesOfLatin(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

// mayBePutRight checks that nothing was put right that may have been meant to
// say where the message ends.
func mayBePutRight(t *testing.T, head []byte) {
	t.Helper()
	if bytes.IndexByte(head, 0) >= 0 || regexp.MustCompile(`\r[^\n]`).Match(head) || bytes.HasSuffix(head, []byte("\r")) {
		t.Errorf("a NUL or a bare CR was accepted in %q", head)
	}
	for i, line := range strings.Split(string(latin(head)), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if i == 0 || fieldLine.MatchString(line) || line != "" && (line[0] == ' ' || line[0] == '\t') {
			continue
		}
		name, _, _ := strings.Cut(line, ":")
		name = strings.ToLower(letters.ReplaceAllString(name, ""))
		if strings.Contains(name, "contentlength") || strings.Contains(name, "transferencoding") || name == "connection" {
			t.Errorf("the line %q was left out", line)
		}
	}
}

// oddities returns what RFC 9112 does not know in a head, or wants to be the end
// of its connection.
func oddities(head []byte) (odd []string) {
	text := string(latin(head))
	lines := strings.Split(text, "\n")
	if !regexp.MustCompile(`^HTTP/1\.[0-9] [1-9][0-9][0-9]( .*)?\r?$`).MatchString(lines[0]) {
		odd = append(odd, "status line")
	}
	if regexp.MustCompile(`[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]`).MatchString(text) {
		odd = append(odd, "control character")
	}
	var names []string
	for i, line := range lines[1:] {
		line = strings.TrimSuffix(line, "\r")
		folded := line != "" && (line[0] == ' ' || line[0] == '\t')
		m := fieldLine.FindStringSubmatch(line)
		switch {
		case line == "", folded && i > 0:
		case folded, m == nil:
			odd = append(odd, "line that is no field")
		default:
			names = append(names, strings.ToLower(m[1]))
		}
	}
	count := func(name string) (n int) {
		for _, other := range names {
			if other == name {
				n++
			}
		}
		return n
	}
	if count("content-length") > 1 || count("transfer-encoding") > 1 || count("content-length")*count("transfer-encoding") > 0 {
		odd = append(odd, "framing on two lines")
	}
	return odd
}

// asPutRight checks a response that this package has put right.
func asPutRight(t *testing.T, r *http1.Response, head []byte) {
	t.Helper()
	mayBePutRight(t, head)
	if odd := oddities(head); len(odd) > 0 && !r.Suspect {
		t.Errorf("%q is not suspect: %q", head, odd)
	}
	right := []byte(putRight(head))
	again := mustResponse(t, string(right))
	if again.Status != r.Status || again.Minor != r.Minor || again.Chunked != r.Chunked {
		t.Errorf("%q is read as %+v, but put right, %q, as %+v", head, r, right, again)
	}
	if !again.Chunked && again.Length != r.Length {
		t.Errorf("%q has length %d, but put right, %q, %d", head, r.Length, right, again.Length)
	}
	if a, b := fieldsOf(&r.Head), fieldsOf(&again.Head); !slices.Equal(a, b) {
		t.Errorf("%q has the fields %q, but put right %q", head, a, b)
	}
	asNetHTTPReadsResponse(t, again, right)
}

// fieldsOf returns the fields but for those of framing and of the connection.
func fieldsOf(h *http1.Head) (out []string) {
	for i := range h.Fields {
		switch f := &h.Fields[i]; f.Name {
		case http1.ContentLength, http1.TransferEncoding, http1.Connection:
		default:
			out = append(out, string(h.FieldName(f))+":"+oneSpace(string(h.Value(f))))
		}
	}
	return out
}
