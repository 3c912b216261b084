package http1_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
	"github.com/carpoolproxy/carpool/proxy/http1/http1test"
)

// oddAnswers are the rows P6 to P10 of the catalogue.
func oddAnswers(t testing.TB) []http1test.Answer {
	t.Helper()
	rows, err := http1test.OddAnswers()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 200 {
		t.Fatalf("there are %d rows", len(rows))
	}
	return rows
}

// P6 and P6b: what this package makes of odd answers, however their bytes come.
// The bytes that go on are seen in the tests of package proxy.
func TestOddAnswers(t *testing.T) {
	for _, row := range oddAnswers(t) {
		t.Run(row.Name, func(t *testing.T) {
			if strings.Contains(row.Sent, " 101 ") {
				t.Skip("whether a 101 was asked for is not this package's business")
			}
			bad := row.Verdict == http1test.Refused || row.Verdict == http1test.Cut
			for way, step := range map[string]int{"whole": len(row.Sent), "byte by byte": 1, "in threes": 3} {
				got, content := judge(t, row, step)
				if got != row.Verdict && !(bad && (got == http1test.Refused || got == http1test.Cut)) {
					t.Errorf("%s: %s, want %s", way, got, row.Verdict)
				}
				if !bad && !strings.HasSuffix(row.Seen, content) && !strings.Contains(row.Seen, "\r\n"+content+"\r\n") {
					t.Errorf("%s: the body is %q", way, content)
				}
			}
		})
	}
}

// judge reads an answer of which step bytes more come each time.
func judge(t *testing.T, row http1test.Answer, step int) (_ http1test.Verdict, content string) {
	t.Helper()
	var r http1.Response
	var in []byte
	rest := []byte(row.Sent)
	more := func() bool {
		n := min(step, len(rest))
		in, rest = append(bytes.Clone(in), rest[:n]...), rest[n:]
		return n > 0
	}
	odd := false
	for {
		n, err := r.Parse(in, big)
		if err == http1.ErrIncomplete && more() {
			continue
		}
		if err != nil {
			return http1test.Refused, ""
		}
		in, odd = in[n:], odd || r.Suspect
		if r.Status >= 200 {
			break
		}
	}
	body := r.Body(false)
	body.Unwrap = true
	for {
		out, used, err := body.Decode(in)
		content += string(in[:out])
		in = in[used:]
		if err != nil {
			return http1test.Cut, content
		}
		if body.Done() || !more() {
			break
		}
	}
	ended := body.UntilClose() && row.Closes
	stray := len(in)+len(rest) > 0
	switch {
	case !body.Done() && !ended:
		return http1test.Cut, content
	case odd, body.Suspect, ended, stray, r.Close, r.Minor == 0 && !r.KeepAlive:
		return http1test.Once, content
	}
	return http1test.Kept, content
}

// oddPieces are what heads are made of below.
var oddPieces = []string{
	"Content-Length: 5", "Content-Length: 5, 5", "content-length:\t05", "Content-Length : 5", "Content-Length:", "Content-Length: 6",
	"Content Length: 5", "Content-Length\xa0: 5", "Content-Length 5", "Content-Length: 5,", "Content-Length: 5\t,\t5 ",
	"Transfer-Encoding: chunked", "transfer-encoding:CHUNKED\t", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, chunked",
	"Transfer-Encoding: identity, chunked", "Transfer-Encoding : chunked", "Transfer-Encoding", "Transfer-Encoding:", "Transfer Encoding: chunked",
	"Connection: close", "Connection: close;", "Connection: X-A, a b", "Connection: Content-Length", "Conn-ection: close", "Connection", "Connection :",
	"X-A: 1", "X-A:\x01", "X-A: a\x0bb", "X\x85: a", "X: \xa0", "ver", ": x", ":", "X(1): y", " folded", "\tfolded: 1", " ", " Content-Length: 5",
	" , 5", " chunked", "\t5", "X: a\rb", "X: a\x00b", "\r", "Keep-Alive: timeout=5", "HTTP/1.1 200 OK", "Trailer: X",
}

// The verdict on a line must not depend on the lines around it in a way that
// readers could differ about.
func TestOddLinesInAnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	accepted := 0
	for range 20_000 {
		in := pick("HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/2.0 200 OK", "HTTP/2 200", "HTTP/1.1  204\tO\x01K", "HTTP/1.1 304 x")
		for range rnd.IntN(6) {
			in += pick("\r\n", "\r\n", "\r\n", "\n") + pick(oddPieces...)
		}
		in += pick("\r\n\r\n", "\n\n", "\n\r\n")
		responseIsReadRight(t, []byte(in), fuzzBytes)
		if t.Failed() {
			t.Fatalf("by %q", in)
		}
		if _, err := new(http1.Response).Parse([]byte(in), big); err == nil {
			accepted++
		}
	}
	if accepted < 5_000 {
		t.Errorf("%d heads were accepted", accepted)
	}
}
