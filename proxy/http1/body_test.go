package http1_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// chunkRow is a chunked body with what follows it on the connection.
type chunkRow struct {
	in      string
	out     string // as it is passed on
	content string // without chunks
	rest    string // what is not part of it
	bad     bool   // there is an error behind out and content
	short   bool   // it is not complete
}

// asItIs is a body that is passed on as it came.
func asItIs(in, content string) chunkRow { return chunkRow{in: in, out: in, content: content} }

func badBody(in, out, content string) chunkRow {
	return chunkRow{in: in, out: out, content: content, bad: true}
}

// long is 1024 bytes, which is all that a chunk-size line may have.
var long = "1;" + strings.Repeat("x", 1022)

// chunkRows are rows F14 to F16 of the catalogue, and around them.
var chunkRows = map[string]chunkRow{
	"one chunk":             asItIs("5\r\nhello\r\n0\r\n\r\n", "hello"),
	"no chunk":              asItIs("0\r\n\r\n", ""),
	"two chunks":            asItIs("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
	"capitals":              asItIs("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
	"small letters":         asItIs("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
	"zeros before":          asItIs("0000000000000005\r\nhello\r\n0000\r\n\r\n", "hello"),
	"line ends in the data": asItIs("6\r\n\r\n\n\r0\n\r\n0\r\n\r\n", "\r\n\n\r0\n"),
	"a chunk in the data":   asItIs("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
	"the next request":      {in: "0\r\n\r\nGET / HTTP/1.1\r\n", out: "0\r\n\r\n", rest: "GET / HTTP/1.1\r\n"},
	"the next chunks":       {in: "1\r\na\r\n0\r\n\r\n0\r\n\r\n", out: "1\r\na\r\n0\r\n\r\n", content: "a", rest: "0\r\n\r\n"},

	"ends in a size":            {in: "1\r\na\r\n5", out: "1\r\na\r\n", content: "a", rest: "5", short: true},
	"ends within CRLF":          {in: "1\r", rest: "1\r", short: true},
	"ends in data":              {in: "5\r\nhel", out: "5\r\nhel", content: "hel", short: true},
	"ends behind data":          {in: "1\r\na", out: "1\r\na", content: "a", short: true},
	"ends within the CRLF":      {in: "1\r\na\r", out: "1\r\na", content: "a", rest: "\r", short: true},
	"ends before the last":      {in: "1\r\na\r\n", out: "1\r\na\r\n", content: "a", short: true},
	"ends behind the last size": {in: "0\r\n", out: "0\r\n", short: true},
	"ends in a trailer":         {in: "0\r\nX: a", out: "0\r\n", rest: "X: a", short: true},
	"ends behind a trailer":     {in: "0\r\nX: a\r\n", out: "0\r\nX: a\r\n", short: true},
	"ends in the last CRLF":     {in: "0\r\n\r", out: "0\r\n", rest: "\r", short: true},

	"F14 LF behind the size":          badBody("5\nhello\r\n0\r\n\r\n", "", ""),
	"F14 LF behind the data":          badBody("5\r\nhello\n0\r\n\r\n", "5\r\nhello", "hello"),
	"F14 LF behind the last size":     badBody("1\r\na\r\n0\n\r\n", "1\r\na\r\n", "a"),
	"F14 LF at the end":               badBody("0\r\n\n", "0\r\n", ""),
	"F14 CR in place of CRLF":         badBody("5\rhello\r\n0\r\n\r\n", "", ""),
	"F14 two CRs":                     badBody("5\r\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 two CRs behind the data":     badBody("1\r\na\r\r\n0\r\n\r\n", "1\r\na", "a"),
	"F14 CR and any byte":             badBody("1\r\na\rX0\r\n\r\n", "1\r\na", "a"),
	"F14 two bytes behind the last":   badBody("0\r\nXX\r\n", "0\r\n", ""),
	"F14 0x":                          badBody("0x5\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 0_2":                         badBody("0_2\r\nhi\r\n0\r\n\r\n", "", ""),
	"F14 plus":                        badBody("+5\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 minus":                       badBody("-0\r\n\r\n", "", ""),
	"F14 space before":                badBody(" 5\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 tab before":                  badBody("\t5\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 space within":                badBody("1 0\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 no size":                     badBody("\r\n\r\n", "", ""),
	"F14 an extra CRLF":               badBody("1\r\na\r\n\r\n0\r\n\r\n", "1\r\na\r\n", "a"),
	"F14 no size, but an extension":   badBody(";a=b\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 quotes":                      badBody("\"5\"\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 letters beyond F":            badBody("G\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 digits, then letters":        badBody("5hello\r\n0\r\n\r\n", "", ""),
	"F14 a dot":                       badBody("5.\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 @, which is ` less 0x20":     badBody("@\r\n\r\n", "", ""),
	"F14 a byte above 0x80":           badBody("\xb5\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 17 digits":                   badBody("00000000000000005\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^64+5":                      badBody("10000000000000005\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^64-1":                      badBody("ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^63":                        badBody("8000000000000000\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^60":                        badBody("1000000000000000\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^59":                        badBody("800000000000000\r\nhello\r\n0\r\n\r\n", "", ""),
	"F14 2^59-16":                     {in: "7fffffffffffff0\r\nhello", out: "7fffffffffffff0\r\nhello", content: "hello", short: true},
	"F14 data longer than its size":   badBody("3\r\nhello\r\n0\r\n\r\n", "3\r\nhel", "hel"),
	"F14 data shorter than its size":  badBody("7\r\nhello\r\n0\r\n\r\n", "7\r\nhello\r\n", "hello\r\n"),
	"F14 a size line of 1025 bytes":   badBody("1;"+strings.Repeat("x", 1023)+"\r\na\r\n0\r\n\r\n", "", ""),
	"F14 a size line that never ends": badBody("1;"+strings.Repeat("x", 2000), "", ""),

	"F15 extension":                     {in: "5;a=b\r\nhello\r\n0;c\r\n\r\n", out: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
	"F15 extension in quotes":           {in: "5;a=\"b;\\\"c\"\r\nhello\r\n0\r\n\r\n", out: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
	"F15 space before it":               {in: "5 ;a\r\nhello\r\n0 \t; b\r\n\r\n", out: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
	"F15 space and no extension":        {in: "5 \r\nhello\r\n0\t\r\n\r\n", out: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
	"F15 nothing but a semicolon":       {in: "5;\r\nhello\r\n0;\r\n\r\n", out: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
	"F15 of 1024 bytes":                 {in: long + "\r\na\r\n0\r\n\r\n", out: "1\r\na\r\n0\r\n\r\n", content: "a"},
	"F15 LF within":                     badBody("5;a\nb\r\nhello\r\n0\r\n\r\n", "", ""),
	"F15 LF at its end":                 badBody("5;a\nhello\r\n0\r\n\r\n", "", ""),
	"F15 CR within":                     badBody("5;a\rb\r\nhello\r\n0\r\n\r\n", "", ""),
	"F15 CR before it":                  badBody("5\r;a\r\nhello\r\n0\r\n\r\n", "", ""),
	"F15 CR at its end":                 badBody("5;a\r\r\nhello\r\n0\r\n\r\n", "", ""),
	"F15 CR before it, last":            badBody("0\r;a\r\n\r\n", "", ""),
	"F15 NUL within":                    badBody("5;a\x00\r\nhello\r\n0\r\n\r\n", "", ""),
	"F15 a line end in quotes":          badBody("5;a=\"\r\n\"\r\nhello", "5\r\n\"\r\nhe", "\"\r\nhe"),
	"F15 of the last chunk, LF within":  badBody("0;a\nb\r\n\r\n", "", ""),
	"F16 trailer":                       asItIs("1\r\na\r\n0\r\nX-Sum: 1\r\ny:\r\n\r\n", "a"),
	"F16 trailers that must not be":     {in: "0\r\nContent-Length: 5\r\nX: 1\r\nhost: h\r\nTE: trailers\r\nAUTHORIZATION: b\r\nTransfer-Encoding: chunked\r\nY: 2\r\n\r\n", out: "0\r\nX: 1\r\nY: 2\r\n\r\n"},
	"F16 nothing but such trailers":     {in: "0\r\nHost: h\r\n\r\n", out: "0\r\n\r\n"},
	"F16 space before the colon":        badBody("0\r\nX : 1\r\n\r\n", "0\r\n", ""),
	"F16 folded":                        badBody("0\r\nX: 1\r\n 2\r\n\r\n", "0\r\nX: 1\r\n", ""),
	"F16 no colon":                      badBody("0\r\nX\r\n\r\n", "0\r\n", ""),
	"F16 no name":                       badBody("0\r\n: 1\r\n\r\n", "0\r\n", ""),
	"F16 LF":                            badBody("0\r\nX: 1\n\r\n", "0\r\n", ""),
	"F16 CR within":                     badBody("0\r\nX: 1\rY: 2\r\n\r\n", "0\r\n", ""),
	"F16 NUL within":                    badBody("0\r\nX: \x00\r\n\r\n", "0\r\n", ""),
	"F16 a forbidden one, malformed":    badBody("0\r\nHost : 1\r\n\r\n", "0\r\n", ""),
	"F16 a byte above 0x80 in the name": badBody("0\r\nX\x85: 1\r\n\r\n", "0\r\n", ""),
	"F16 16 KiB of trailers":            asItIs("0\r\nX: "+strings.Repeat("x", 16<<10-3)+"\r\n\r\n", ""),
	"F16 16 KiB of trailers in two":     asItIs("0\r\nY: 1\r\nX: "+strings.Repeat("x", 16<<10-7)+"\r\n\r\n", ""),
	"F16 more than that":                badBody("0\r\nX: "+strings.Repeat("x", 16<<10-2)+"\r\n\r\n", "0\r\n", ""),
	"F16 more than that in two":         badBody("0\r\nX: "+strings.Repeat("x", 16<<10-6)+"\r\nY: 1\r\n\r\n", "0\r\nX: "+strings.Repeat("x", 16<<10-6)+"\r\n", ""),
	"F16 more than that, forbidden":     badBody("0\r\nHost: "+strings.Repeat("x", 16<<10-8)+"\r\nY: 1\r\n\r\n", "0\r\n", ""),
	"F16 a trailer that never ends":     badBody("0\r\nX: "+strings.Repeat("x", 17<<10), "0\r\n", ""),
}

// chunkedBody is the start of a body in chunks.
func chunkedBody(t testing.TB, unwrap bool) http1.Body {
	b := mustRequest(t, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").Body()
	b.Unwrap = unwrap
	return b
}

// responseChunks is the start of a response's body in chunks.
func responseChunks(t testing.TB, unwrap bool) http1.Body {
	b := mustResponse(t, answer("Transfer-Encoding: chunked\r\n")).Body(false)
	b.Unwrap = unwrap
	return b
}

// stream decodes a body that comes in pieces, the way a connection does it:
// bytes that were not used are given again with more behind them.
type stream struct {
	body http1.Body
	held []byte
	out  []byte
	err  error
}

func (s *stream) feed(t testing.TB, piece []byte) {
	if s.err != nil {
		return
	}
	p := slices.Concat(s.held, piece)
	out, used, err := s.body.Decode(p)
	if out < 0 || out > used || used > len(p) {
		t.Fatalf("%q: out %d, used %d", p, out, used)
	}
	s.out = append(s.out, p[:out]...)
	s.held, s.err = slices.Clone(p[used:]), err
}

// decode decodes in, cut into pieces of these lengths and one with the rest.
func decode(t testing.TB, body http1.Body, in []byte, pieces ...int) *stream {
	s := &stream{body: body}
	for _, n := range pieces {
		n = min(n, len(in))
		s.feed(t, in[:n])
		in = in[n:]
	}
	s.feed(t, in)
	return s
}

func TestChunkedRows(t *testing.T) {
	for name, row := range chunkRows {
		t.Run(name, func(t *testing.T) {
			for _, unwrap := range []bool{false, true} {
				want := row.out
				if unwrap {
					want = row.content
				}
				check := func(way string, s *stream) {
					t.Helper()
					if bad := statusOf(t, s.err); bad != 0 != row.bad || bad != 0 && bad != 400 {
						t.Fatalf("%s: %v", way, s.err)
					}
					if string(s.out) != want {
						t.Fatalf("%s: %q, want %q", way, s.out, want)
					}
					if row.bad {
						return
					}
					if s.body.Done() == row.short || string(s.held) != row.rest {
						t.Fatalf("%s: done is %v, behind it %q", way, s.body.Done(), s.held)
					}
				}
				in := []byte(row.in)
				check("whole", decode(t, chunkedBody(t, unwrap), in))
				bytes := slices.Repeat([]int{1}, min(len(in), 1100))
				check("byte by byte", decode(t, chunkedBody(t, unwrap), in, bytes...))
				check("byte by byte at the end", decode(t, chunkedBody(t, unwrap), in, slices.Insert(bytes, 0, len(in)-len(bytes))...))
				check("nothing between", decode(t, chunkedBody(t, unwrap), in, 0, 1, 0, 0, 2, 0))
				step := max(1, len(in)/200)
				for at := 0; at <= len(in); at += step {
					check("cut in two", decode(t, chunkedBody(t, unwrap), in, at))
				}
				for size := 2; size < 8; size++ {
					check("in equal pieces", decode(t, chunkedBody(t, unwrap), in, slices.Repeat([]int{size}, min(len(in), 1100)/size)...))
				}
			}
		})
	}
}

func TestChunksArePassedOnWithinTheBytesTheyCameIn(t *testing.T) {
	in := []byte("1;" + strings.Repeat("x", 100) + "\r\na\r\n0\r\n\r\nnext")
	body := chunkedBody(t, false)
	out, used, err := body.Decode(in)
	if err != nil || string(in[:out]) != "1\r\na\r\n0\r\n\r\n" || string(in[used:]) != "next" {
		t.Errorf("%q, %q, %v", in[:out], in[used:], err)
	}
}

func TestEveryHexadecimalDigitIsRead(t *testing.T) {
	for i, c := range "0123456789abcdefABCDEF" {
		n := i
		if i >= 16 {
			n = i - 6
		}
		content := strings.Repeat("x", 16+n)
		s := decode(t, chunkedBody(t, true), []byte("1"+string(c)+"\r\n"+content+"\r\n0\r\n\r\n"))
		if s.err != nil || string(s.out) != content || !s.body.Done() {
			t.Errorf("1%c: %d bytes, %v", c, len(s.out), s.err)
		}
	}
}

func TestForbiddenTrailersAreDroppedInAnyCase(t *testing.T) {
	names := []string{
		"Authorization", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Range",
		"Content-Type", "Cookie", "Expect", "Host", "Keep-Alive", "Max-Forwards", "Proxy-Authenticate",
		"Proxy-Authorization", "Proxy-Connection", "Range", "Set-Cookie", "TE", "Trailer", "Transfer-Encoding",
		"Upgrade", "WWW-Authenticate",
	}
	for _, name := range names {
		for _, spelt := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			s := decode(t, chunkedBody(t, false), []byte("0\r\n"+spelt+": 1\r\n"+spelt+"x: 1\r\n\r\n"))
			if want := "0\r\n" + spelt + "x: 1\r\n\r\n"; s.err != nil || string(s.out) != want {
				t.Errorf("%s: %q, %v", spelt, s.out, s.err)
			}
		}
	}
}

func TestSizedBody(t *testing.T) {
	in := []byte("helloGET")
	for at := range in {
		body := mustRequest(t, post("Content-Length: 5\r\n")).Body()
		if body.Left() != 5 || body.Done() || body.Chunked() || body.UntilClose() {
			t.Fatalf("%+v", body)
		}
		s := decode(t, body, in, at)
		if string(s.out) != "hello" || string(s.held) != "GET" || !s.body.Done() || s.body.Left() != 0 || s.err != nil {
			t.Errorf("cut at %d: %q, %q, %+v", at, s.out, s.held, s.body)
		}
	}
	body := mustRequest(t, post("Content-Length: 9223372036854775807\r\n")).Body()
	if s := decode(t, body, in); string(s.out) != string(in) || s.body.Done() || s.body.Left() != 1<<63-1-8 {
		t.Errorf("%+v", s)
	}
}

func TestABodyUntilCloseTakesEverything(t *testing.T) {
	body := mustResponse(t, answer("")).Body(false)
	s := decode(t, body, []byte("0\r\n\r\nabc"), 2)
	if string(s.out) != "0\r\n\r\nabc" || len(s.held) > 0 || s.body.Done() || s.body.Left() != -1 || !s.body.UntilClose() {
		t.Errorf("%+v", s)
	}
}

func TestABodyThatHasEndedTakesNothing(t *testing.T) {
	for _, body := range []http1.Body{{}, mustRequest(t, get("")).Body(), mustResponse(t, answer("Content-Length: 3\r\n")).Body(true)} {
		s := decode(t, body, []byte("abc"))
		if len(s.out) > 0 || string(s.held) != "abc" || !s.body.Done() || s.body.Left() != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// X25: whoever reads has room for a line that has not ended if it has MaxUnused.
func TestNoLineOfABodyNeedsMoreThanMaxUnused(t *testing.T) {
	for name, begin := range map[string]string{
		"a chunk size": "1;x=", "a trailer": "0\r\nX-T: ", "a trailer behind others": "0\r\nX-A: b\r\nX-T: ",
	} {
		t.Run(name, func(t *testing.T) {
			body, held := chunkedBody(t, false), []byte(nil)
			for _, c := range []byte(begin + strings.Repeat("x", 2*http1.MaxUnused)) {
				held = append(held, c)
				if len(held) > http1.MaxUnused {
					t.Fatalf("%d bytes are held", len(held))
				}
				_, used, err := body.Decode(held)
				if err != nil {
					return
				}
				held = held[used:]
			}
			t.Error("it has no end")
		})
	}
}
