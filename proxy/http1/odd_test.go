package http1_test

import (
	"bytes"
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
