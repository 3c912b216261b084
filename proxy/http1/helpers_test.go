package http1_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// big is a limit that no head in these tests reaches.
const big = 1 << 20

// parser is a Request or a Response.
type parser interface {
	Parse(b []byte, limit int) (int, error)
	Reset()
}

// slowly parses one byte more each time, every time in other memory, until
// there is a verdict.
func slowly(p parser, in []byte, limit int) (n int, err error) {
	err = http1.ErrIncomplete
	for i := 1; i <= len(in) && err == http1.ErrIncomplete; i++ {
		n, err = p.Parse(slices.Clone(in[:i]), limit)
	}
	return n, err
}

// statusOf returns the answer that a fault deserves, 0 for no fault.
func statusOf(t testing.TB, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var bad *http1.Error
	if !errors.As(err, &bad) {
		t.Fatalf("the error is %v, not an *Error", err)
	}
	if bad.Text == "" {
		t.Errorf("the error says nothing")
	}
	return bad.Status
}

// mustRequest parses the head of a request.
func mustRequest(t testing.TB, in string) *http1.Request {
	t.Helper()
	r := new(http1.Request)
	n, err := r.Parse([]byte(in), big)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	if n != len(in) {
		t.Fatalf("%q: the head ends at %d", in, n)
	}
	return r
}

// mustResponse parses the head of a response.
func mustResponse(t testing.TB, in string) *http1.Response {
	t.Helper()
	r := new(http1.Response)
	n, err := r.Parse([]byte(in), big)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	if n != len(in) {
		t.Fatalf("%q: the head ends at %d", in, n)
	}
	return r
}

// line is a header line as a reader of the next hop should see it.
type line struct{ name, value string }

// linesOf returns the lines that are to be passed on. Content-Length comes
// last if it has to be written anew.
func linesOf(h *http1.Head) (out []line) {
	length := false
	for i := range h.Fields {
		if f := &h.Fields[i]; !f.Drop {
			out = append(out, line{string(h.FieldName(f)), string(h.Value(f))})
			length = length || f.Name == http1.ContentLength
		}
	}
	if h.Length >= 0 && !length {
		out = append(out, line{"Content-Length", string(http1.AppendInt(nil, h.Length))})
	}
	return out
}

// emitted returns a request head as it would go on.
func emittedRequest(r *http1.Request) []byte {
	b := append([]byte(nil), r.Method...)
	b = append(append(b, ' '), r.Target...)
	b = append(b, " HTTP/1."...)
	b = http1.AppendInt(b, int64(r.Minor))
	b = r.AppendFields(append(b, "\r\n"...))
	return append(b, "\r\n"...)
}

// emittedResponse returns a response head as it would go on.
func emittedResponse(r *http1.Response) []byte {
	return append(r.AppendFields(r.AppendLine(nil)), "\r\n"...)
}

// bareEnds reports whether there is a CR without an LF behind it, or an LF
// without a CR before it.
func bareEnds(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return bytes.Count(b, []byte("\r")) != n || bytes.Count(b, []byte("\n")) != n
}
