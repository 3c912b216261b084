package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// requestRow is a request head, and what is to become of it.
type requestRow struct {
	in      string
	status  int   // of the refusal, 0: accepted
	length  int64 // -1: no Content-Length
	chunked bool
}

func refused(in string, status int) requestRow { return requestRow{in: in, status: status} }
func noBody(in string) requestRow              { return requestRow{in: in, length: -1} }
func sized(in string, n int64) requestRow      { return requestRow{in: in, length: n} }
func chunked(in string) requestRow             { return requestRow{in: in, length: -1, chunked: true} }

// post is a POST with these header lines.
func post(lines string) string { return "POST /p HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n" }

// get is a GET with these header lines.
func get(lines string) string { return "GET /g HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n" }

// requestRows are the rows F1 to F22 of the catalogue, as far as a head alone
// decides them.
var requestRows = map[string]requestRow{
	"plain GET":                  noBody(get("")),
	"plain POST":                 sized(post("Content-Length: 5\r\n"), 5),
	"plain chunked POST":         chunked(post("Transfer-Encoding: chunked\r\n")),
	"absolute-form":              noBody("GET http://h/p?q HTTP/1.1\r\nHost: h\r\n\r\n"),
	"authority-form":             noBody("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
	"HTTP/1.0 without Host":      noBody("GET / HTTP/1.0\r\n\r\n"),
	"no Host":                    refused("GET / HTTP/1.1\r\n\r\n", 400),
	"two Hosts":                  refused(get("Host: h\r\n"), 400),
	"two Hosts in HTTP/1.0":      refused("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
	"empty Host":                 noBody("GET / HTTP/1.1\r\nHost:\r\n\r\n"),
	"method of 64 letters":       noBody(strings.Repeat("M", 64) + " / HTTP/1.1\r\nHost: h\r\n\r\n"),
	"method of 65 letters":       refused(strings.Repeat("M", 65)+" / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"method that is not a token": refused("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"no method":                  refused(" / HTTP/1.1\r\nHost: h\r\n\r\n", 400),

	"F1 both Content-Length and Transfer-Encoding":           refused(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
	"F1 both, the other way round":                           refused(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
	"F1 Content-Length 0 and Transfer-Encoding":              refused(post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), 400),
	"F1 Content-Length and an unknown Transfer-Encoding":     refused(post("Content-Length: 0\r\nTransfer-Encoding: x\r\n"), 400),
	"F1 Content-Length that is no number, Transfer-Encoding": refused(post("Content-Length: x\r\nTransfer-Encoding: chunked\r\n"), 400),
	"F1 both, one of them nominated by Connection":           refused(post("Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),

	"F2 empty":                   refused(post("Transfer-Encoding:\r\n"), 400),
	"F2 xchunked":                refused(post("Transfer-Encoding: xchunked\r\n"), 400),
	"F2 chunkedx":                refused(post("Transfer-Encoding: chunkedx\r\n"), 400),
	"F2 comma before":            refused(post("Transfer-Encoding: ,chunked\r\n"), 400),
	"F2 comma behind":            refused(post("Transfer-Encoding: chunked,\r\n"), 400),
	"F2 chunked twice":           refused(post("Transfer-Encoding: chunked, chunked\r\n"), 400),
	"F2 two fields":              refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
	"F2 two fields, one unknown": refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"), 400),
	"F2 two fields, one empty":   refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"), 400),
	"F2 VT before":               refused(post("Transfer-Encoding: \x0bchunked\r\n"), 400),
	"F2 VT behind":               refused(post("Transfer-Encoding: chunked\x0b\r\n"), 400),
	"F2 FF before":               refused(post("Transfer-Encoding:\x0cchunked\r\n"), 400),
	"F2 no-break space before":   refused(post("Transfer-Encoding: \xa0chunked\r\n"), 400),
	"F2 next line behind":        refused(post("Transfer-Encoding: chunked\x85\r\n"), 400),
	"F2 Kelvin sign":             refused(post("Transfer-Encoding: chun\u212Aed\r\n"), 400),
	"F2 quoted":                  refused(post("Transfer-Encoding: \"chunked\"\r\n"), 400),
	"F2 with a parameter":        refused(post("Transfer-Encoding: chunked;a=b\r\n"), 400),
	"F2 identity":                refused(post("Transfer-Encoding: identity\r\n"), 400),
	"F2 gzip":                    refused(post("Transfer-Encoding: gzip\r\n"), 501),
	"F2 gzip, chunked":           refused(post("Transfer-Encoding: gzip, chunked\r\n"), 501),
	"F2 chunked not last":        refused(post("Transfer-Encoding: chunked, gzip\r\n"), 400),
	"F2 capital letters":         chunked(post("TRANSFER-ENCODING: CHUNKED\r\n")),
	"F2 white space around":      chunked(post("Transfer-Encoding:\t chunked \t\r\n")),

	"F3 folded Transfer-Encoding":            refused(post("Transfer-Encoding:\r\n chunked\r\n"), 400),
	"F3 folded before it":                    refused(post("X: a\r\n Transfer-Encoding: chunked\r\n"), 400),
	"F3 folded after it":                     refused(post("Transfer-Encoding: chunked\r\n , gzip\r\n"), 400),
	"F4 Transfer-Encoding in HTTP/1.0":       refused("POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
	"F5 differing Content-Lengths":           refused(post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
	"F5 Content-Length empty, then a number": refused(post("Content-Length:\r\nContent-Length: 6\r\n"), 400),
	"F5 equal Content-Lengths":               refused(post("Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
	"F6 Content-Length 5, 5":                 refused(post("Content-Length: 5, 5\r\n"), 400),

	"F7 +1":                  refused(post("Content-Length: +1\r\n"), 400),
	"F7 -1":                  refused(post("Content-Length: -1\r\n"), 400),
	"F7 -0":                  refused(post("Content-Length: -0\r\n"), 400),
	"F7 0x1":                 refused(post("Content-Length: 0x1\r\n"), 400),
	"F7 1_0":                 refused(post("Content-Length: 1_0\r\n"), 400),
	"F7 1e1":                 refused(post("Content-Length: 1e1\r\n"), 400),
	"F7 1.0":                 refused(post("Content-Length: 1.0\r\n"), 400),
	"F7 two numbers":         refused(post("Content-Length: 1 0\r\n"), 400),
	"F7 number and letters":  refused(post("Content-Length: 1Z\r\n"), 400),
	"F7 semicolon":           refused(post("Content-Length: 1;\r\n"), 400),
	"F7 no-break space":      refused(post("Content-Length: \xa01\r\n"), 400),
	"F7 digits of elsewhere": refused(post("Content-Length: \u0665\r\n"), 400),
	"F7 empty":               refused(post("Content-Length:\r\n"), 400),
	"F7 only white space":    refused(post("Content-Length: \t \r\n"), 400),
	"F7 2^63":                refused(post("Content-Length: 9223372036854775808\r\n"), 400),
	"F7 2^64+5":              refused(post("Content-Length: 18446744073709551621\r\n"), 400),
	"F7 many digits":         refused(post("Content-Length: "+strings.Repeat("9", 400)+"\r\n"), 400),
	"F7 2^63-1":              sized(post("Content-Length: 9223372036854775807\r\n"), 1<<63-1),

	"F8 010":             sized(post("Content-Length: 010\r\n"), 10),
	"F8 00":              sized(post("Content-Length: 00\r\n"), 0),
	"F8 many zeros":      sized(post("Content-Length: "+strings.Repeat("0", 40)+"8\r\n"), 8),
	"F8 zeros and 2^63":  refused(post("Content-Length: 009223372036854775808\r\n"), 400),
	"F8 08 is not octal": sized(post("Content-Length: 08\r\n"), 8),

	"F9 space before the colon":                         refused(post("Content-Length : 5\r\n"), 400),
	"F9 tab before the colon":                           refused(post("Transfer-Encoding\t: chunked\r\n"), 400),
	"F9 the first header line starts with a space":      refused("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
	"F9 the first header line starts with a tab":        refused("GET / HTTP/1.1\r\n\tHost: h\r\n\r\n", 400),
	"F9 a line of spaces":                               refused("GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n", 400),
	"F10 folded value":                                  refused(get("X: a\r\n b\r\n"), 400),
	"F10 folded with a tab":                             refused(get("X: a\r\n\tb\r\n"), 400),
	"F10 folded, nothing on the line":                   refused(get("X: a\r\n \r\n"), 400),
	"F11 LF ends the request line":                      refused("GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
	"F11 LF ends a header line":                         refused(get("X: a\nY: b\r\n"), 400),
	"F11 LF ends the head":                              refused("GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
	"F11 LF all along":                                  refused("GET / HTTP/1.1\nHost: h\n\n", 400),
	"F11 two LFs in a value":                            refused(get("X:\n\nGET / HTTP/1.1\r\n"), 400),
	"F12 CR in a value":                                 refused(get("X: a\rb\r\n"), 400),
	"F12 CR at the end of a value":                      refused(get("X: a\r\r\n"), 400),
	"F12 CR and a field":                                refused(get("X: a\rContent-Length: 5\r\n"), 400),
	"F12 NUL":                                           refused(get("X: a\x00b\r\n"), 400),
	"F12 NUL at the end":                                refused(get("X: a\x00\r\n"), 400),
	"F12 ESC":                                           refused(get("X: \x1b[2J\r\n"), 400),
	"F12 DEL":                                           refused(get("X: a\x7f\r\n"), 400),
	"F12 CR before a name":                              refused(get("\rX: a\r\n"), 400),
	"F12 CR alone on a line":                            refused(get("\r\r\nX: a\r\n"), 400),
	"F12 CR in the request line":                        refused("GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F12 CR behind the request line":                    refused("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
	"F12 tab in a value is fine":                        noBody(get("X: a\tb\r\n")),
	"F12 bytes above 0x80 in a value are fine":          noBody(get("X: \x80\xff\xc3\xa9\r\n")),
	"F13 empty name":                                    refused(get(": a\r\n"), 400),
	"F13 a colon and nothing else":                      refused(get(":\r\n"), 400),
	"F13 no colon":                                      refused(get("Content-Length 5\r\n"), 400),
	"F13 a name over two lines":                         refused(post("Transfer-\r\nEncoding: chunked\r\n"), 400),
	"F13 a byte above 0x80 in a name":                   refused(get("X\x85: a\r\n"), 400),
	"F13 a byte above 0x80 behind Content-Length":       refused(get("Content-Length\xa0: 5\r\n"), 400),
	"F13 NUL in a name":                                 refused(get("X\x00Y: a\r\n"), 400),
	"F13 every byte a token may have":                   noBody(get("!#$%&'*+-.^_`|~09azAZ: a\r\n")),
	"F13 a byte a token may not have":                   refused(get("X(: a\r\n"), 400),
	"F17 Content_Length":                                noBody(post("Content_Length: 5\r\n")),
	"F17 Transfer_Encoding":                             noBody(post("Transfer_Encoding: chunked\r\n")),
	"F17 Content_Length beside Content-Length":          sized(post("Content-Length: 3\r\nContent_Length: 5\r\n"), 3),
	"F18 GET with a body":                               sized(get("Content-Length: 5\r\n"), 5),
	"F18 GET with a chunked body":                       chunked(get("Transfer-Encoding: chunked\r\n")),
	"F18 HEAD with a body":                              sized("HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 5),
	"F18 OPTIONS with a body":                           sized("OPTIONS * HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 5),
	"F18 DELETE with a body":                            sized("DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 5),
	"F20 HTTP/0.9":                                      refused("GET /\r\n\r\n", 505),
	"F20 HTTP/0.9 that ends with LF":                    refused("GET /\n\n", 400),
	"F20 HTTP/0.9 with its name":                        refused("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
	"F20 HTTP/2.0":                                      refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
	"F20 PRI":                                           refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
	"F20 HTTP/1.10":                                     refused("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
	"F20 HTTP/01.1":                                     refused("GET / HTTP/01.1\r\nHost: h\r\n\r\n", 400),
	"F20 HTTP/1":                                        refused("GET / HTTP/1\r\nHost: h\r\n\r\n", 400),
	"F20 http/1.1":                                      refused("GET / http/1.1\r\nHost: h\r\n\r\n", 400),
	"F20 HTTP/1,1":                                      refused("GET / HTTP/1,1\r\nHost: h\r\n\r\n", 400),
	"F20 a minor version to come counts as 1":           noBody("GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
	"F21 two spaces before the target":                  refused("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 two spaces behind the target":                  refused("GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 a space behind the version":                    refused("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
	"F21 a tab before the target":                       refused("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 a tab behind the target, as HTTP/0.9":          refused("GET /\tHTTP/1.1\r\nHost: h\r\n\r\n", 505),
	"F21 a tab in the target":                           refused("GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 a space in the target":                         refused("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 NUL in the target":                             refused("GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 a space before the method":                     refused(" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
	"F21 no target":                                     refused("GET HTTP/1.1\r\nHost: h\r\n\r\n", 505),
	"F21 only a method":                                 refused("GET\r\nHost: h\r\n\r\n", 400),
	"F22 an empty line before the request line":         noBody("\r\n" + get("")),
	"F22 eight empty lines before the request line":     noBody(strings.Repeat("\r\n", 8) + get("")),
	"F22 nine empty lines before the request line":      refused(strings.Repeat("\r\n", 9)+get(""), 400),
	"F22 empty lines and nothing else":                  refused(strings.Repeat("\r\n", 99), 400),
	"F22 an LF before the request line":                 refused("\n"+get(""), 400),
	"F22 a CR before the request line":                  refused("\r"+get(""), 400),
	"F22 a line of one space before the request line":   refused(" \r\n"+get(""), 400),
	"F22 an empty line, then LF":                        refused("\r\n\n"+get(""), 400),
	"Connection with 64 options":                        noBody(get("Connection: " + strings.Repeat("a,", 63) + "b\r\n")),
	"Connection with 65 options":                        refused(get("Connection: "+strings.Repeat("a,", 64)+"b\r\n"), 400),
	"Connection with 65 options in two fields":          refused(get("Connection: "+strings.Repeat("a,", 63)+"b\r\nConnection: c, d\r\n"), 400),
	"P6c Connection with two words":                     noBody(get("Connection: close, a b\r\n")),
	"P6c Connection with something quoted":              noBody(get("Connection: \"close\"\r\n")),
	"P6c Connection with a semicolon":                   noBody(get("Connection: close;\r\n")),
	"P6c Connection with a parameter":                   noBody(get("Connection: keep-alive, timeout=5\r\n")),
	"P6c Connection with bytes above 0x80":              noBody(get("Connection: clos\xe9\r\n")),
	"P6c Connection with a control character":           refused(get("Connection: close\x01\r\n"), 400),
	"P6c Connection that names framing, oddly":          sized(post("Connection: Content-Length;\r\nContent-Length: 5\r\n"), 5),
	"Connection with empty elements":                    noBody(get("Connection: ,, close ,\t,\r\n")),
	"Connection that is empty":                          noBody(get("Connection:\r\n")),
	"a thousand fields":                                 noBody(get(strings.Repeat("a:\r\n", 999))),
	"a thousand and one fields":                         refused(get(strings.Repeat("a:\r\n", 1000)), 431),
	"a value whose control character is in every place": refused(get("X: 0123456789abcdef\x1f0\r\n"), 400),
}

func TestRequestRows(t *testing.T) {
	for name, row := range requestRows {
		t.Run(name, func(t *testing.T) {
			for _, way := range []struct {
				name  string
				parse func(r *http1.Request) (int, error)
			}{
				{"whole", func(r *http1.Request) (int, error) { return r.Parse([]byte(row.in), big) }},
				{"whole, with more behind", func(r *http1.Request) (int, error) { return r.Parse([]byte(row.in+"GET /2"), big) }},
				{"byte by byte", func(r *http1.Request) (int, error) { return slowly(r, []byte(row.in), big) }},
				{"again after Reset", func(r *http1.Request) (int, error) {
					if _, err := slowly(r, []byte(get("X: " + strings.Repeat("x", 5000)))[:4000], big); err != http1.ErrIncomplete {
						t.Fatal(err)
					}
					r.Reset()
					return r.Parse([]byte(row.in), big)
				}},
				{"again after a refusal", func(r *http1.Request) (int, error) {
					if _, err := r.Parse([]byte(get("X: " + strings.Repeat("x", 5000)))[:4000], 3000); err == nil {
						t.Fatal("a head over its limit was accepted")
					}
					return r.Parse([]byte(row.in), big)
				}},
				{"again after another head", func(r *http1.Request) (int, error) {
					if _, err := r.Parse([]byte("POST / HTTP/1.0\r\nA: b\r\nConnection: a, close, keep-alive, upgrade\r\nContent-Length: 07\r\n\r\n"), big); err != nil {
						t.Fatal(err)
					}
					return r.Parse([]byte(row.in), big)
				}},
			} {
				r := new(http1.Request)
				n, err := way.parse(r)
				if got := statusOf(t, err); got != row.status {
					t.Fatalf("%s: status %d (%v), want %d", way.name, got, err, row.status)
				}
				if err == nil {
					checkAccepted(t, way.name, r, row, n)
				}
			}
		})
	}
}

func checkAccepted(t *testing.T, way string, r *http1.Request, row requestRow, n int) {
	t.Helper()
	if n != len(row.in) {
		t.Errorf("%s: the head ends at %d of %d", way, n, len(row.in))
	}
	if r.Length != row.length || r.Chunked != row.chunked {
		t.Errorf("%s: length %d, chunked %v; want %d, %v", way, r.Length, r.Chunked, row.length, row.chunked)
	}
	body := r.Body()
	left := max(row.length, 0)
	if row.chunked {
		left = -1
	}
	if body.Chunked() != row.chunked || body.Left() != left || body.Done() != (left == 0) || body.UntilClose() {
		t.Errorf("%s: the body is %+v", way, body)
	}
}

func TestF19_PipelinedRequestsFollowEachOther(t *testing.T) {
	in := []byte(post("Content-Length: 3\r\n") + "abc\r\n" + get("X: 1\r\n") + get("X: 2\r\n") + "GET /g HT")
	var r http1.Request
	n, err := r.Parse(in, big)
	if err != nil || string(r.Method) != "POST" {
		t.Fatal(err)
	}
	body := r.Body()
	_, used, _ := body.Decode(in[n:])
	if used != 3 || !body.Done() {
		t.Fatalf("the body took %d bytes", used)
	}
	in = in[n+used:]
	for _, want := range []string{"1", "2"} {
		n, err := r.Parse(in, big)
		if err != nil || string(r.Value(&r.Fields[1])) != want {
			t.Fatalf("%v, %q", err, in)
		}
		in = in[n:]
	}
	if _, err := r.Parse(in, big); err != http1.ErrIncomplete {
		t.Errorf("what is left of a head: %v", err)
	}
}

func TestF23_OversizedHeads(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, row := range map[string]struct {
		in     string
		status int
	}{
		"target":                      {"GET /" + long + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
		"target, nothing behind":      {"GET /" + long, 414},
		"target, more than one limit": {"GET /" + strings.Repeat(long, 9) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
		"method":                      {long + long, 414},
		"header line":                 {"GET / HTTP/1.1\r\nHost: h\r\nX: " + long + "\r\n\r\n", 431},
		"header line, no end":         {"GET / HTTP/1.1\r\nHost: h\r\nX: " + long, 431},
		"bad request line":            {"GET / HTTQ/1.1\r\nHost: h\r\nX: " + long, 400},
		"bad version":                 {"GET / HTTP/3.1\r\nHost: h\r\nX: " + long, 505},
		"line end at the limit":       {"GET /" + strings.Repeat("x", 85) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
		"line end below the limit":    {"GET /" + strings.Repeat("x", 84) + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
		"LF at the limit":             {"GET /" + strings.Repeat("x", 84) + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
		"lines before the head":       {strings.Repeat("\r\n", 8) + "GET /" + long, 414},
	} {
		for way, parse := range map[string]func(parser, []byte, int) (int, error){
			"whole":        parser.Parse,
			"byte by byte": slowly,
		} {
			if _, err := parse(new(http1.Request), []byte(row.in), 100); statusOf(t, err) != row.status {
				t.Errorf("%s, %s: %v, want %d", name, way, err, row.status)
			}
		}
	}
}

func TestAHeadOfExactlyTheLimitIsAccepted(t *testing.T) {
	in := get("X: " + strings.Repeat("x", 50) + "\r\n")
	for _, parse := range []func(parser, []byte, int) (int, error){parser.Parse, slowly} {
		if n, err := parse(new(http1.Request), []byte(in+"more"), len(in)); n != len(in) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := parse(new(http1.Request), []byte(in+"more"), len(in)-1); statusOf(t, err) != 431 {
			t.Errorf("one byte over the limit: %v", err)
		}
	}
	for prefix, status := range map[int]int{10: 414, 50: 431} {
		if _, err := new(http1.Request).Parse([]byte(in[:prefix]), prefix); statusOf(t, err) != status {
			t.Errorf("half a head that fills its limit of %d: %v", prefix, err)
		}
	}
}

func TestARequestLineThatIsWrongIsNotWaitedFor(t *testing.T) {
	for in, status := range map[string]int{
		"GET / HTTQ/1.1\r\n":     400,
		"GET /\r\n":              505,
		"PRI * HTTP/2.0\r\n":     505,
		"GET / HTTP/1.1\n":       400,
		"\x16\x03\x01\x02\x00\n": 400,
	} {
		if _, err := new(http1.Request).Parse([]byte(in), big); statusOf(t, err) != status {
			t.Errorf("%q: %v, want %d", in, err, status)
		}
	}
}

func TestR13_LinesAreKeptAsTheyCame(t *testing.T) {
	for _, framing := range []string{"", "Content-Length: 0\r\n", "content-length:10\r\n", "Transfer-encoding: Chunked\r\n"} {
		lines := "hOsT: h\r\nX-B:1\r\n" + framing + "x-a:  two words \t\r\nX-B:\r\nX-b: \xff\xfe\r\nAccept:\t*/*\r\n"
		r := mustRequest(t, "GET / HTTP/1.1\r\n"+lines+"\r\n")
		if got := string(r.AppendFields([]byte("before\r\n"))); got != "before\r\n"+lines {
			t.Errorf("%q", got)
		}
	}
}

func TestDroppedLinesAreLeftOut(t *testing.T) {
	const n = 5
	for mask := range 1 << n {
		in, want := "GET / HTTP/1.1\r\n", ""
		for i := range n {
			line := fmt.Sprintf("Host:%d\r\n", i)
			if i > 0 {
				line = fmt.Sprintf("X-%d:  %d\r\n", i, i)
			}
			in += line
			if mask>>i&1 == 0 {
				want += line
			}
		}
		r := mustRequest(t, in+"\r\n")
		for i := range r.Fields {
			r.Fields[i].Drop = mask>>i&1 != 0
		}
		if got := string(r.AppendFields(nil)); got != want {
			t.Errorf("%05b: %q, want %q", mask, got, want)
		}
	}
}

func TestDropAndFirst(t *testing.T) {
	r := mustRequest(t, get("TE: a\r\nVia: x\r\nte: b\r\nExpect:\r\n"))
	if got := string(r.First(http1.TE)); got != "a" {
		t.Errorf("the first TE is %q", got)
	}
	if v := r.First(http1.Expect); v == nil || len(v) > 0 {
		t.Errorf("an empty field is %q, want it empty and not nil", v)
	}
	if v := r.First(http1.Upgrade); v != nil {
		t.Errorf("a field that is not there is %q", v)
	}
	r.Drop(1 << http1.TE)
	r.Drop(1 << http1.Upgrade)
	if got, want := string(r.AppendFields(nil)), "Host: h\r\nVia: x\r\nExpect:\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestF8_LeadingZerosAreNotPassedOn(t *testing.T) {
	r := mustRequest(t, post("A: 1\r\nContent-Length: 010\r\nB: 2\r\n"))
	if got, want := string(r.AppendFields(nil)), "Host: h\r\nA: 1\r\nB: 2\r\nContent-Length: 10\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.DropLength()
	if got, want := string(r.AppendFields(nil)), "Host: h\r\nA: 1\r\nB: 2\r\n"; got != want {
		t.Errorf("after DropLength: %q, want %q", got, want)
	}
}

func TestF2_FramingLinesLoseTheirWhiteSpace(t *testing.T) {
	for lines, want := range map[string]string{
		"Transfer-Encoding: chunked\t\r\nX:1\r\n":     "Transfer-Encoding: chunked\r\nX: 1\r\n",
		"Transfer-Encoding: chunked \r\nX: 1\t\r\n":   "Transfer-Encoding: chunked\r\nX: 1\r\n",
		"Transfer-Encoding:\tchunked\r\n":             "Transfer-Encoding: chunked\r\n",
		"Transfer-Encoding:  chunked\r\n":             "Transfer-Encoding: chunked\r\n",
		"X:\t\r\nTRANSFER-ENCODING: \tChunked\t \r\n": "X: \r\nTRANSFER-ENCODING: Chunked\r\n",
		"Content-Length:\t5\r\n":                      "Content-Length: 5\r\n",
		"Content-Length: 5\t\r\n":                     "Content-Length: 5\r\n",
		"Content-Length:  05 \r\nX:1\r\n":             "X: 1\r\nContent-Length: 5\r\n",
		"Transfer-Encoding:chunked\r\nX:\t1\r\n":      "Transfer-Encoding:chunked\r\nX:\t1\r\n",
		"Content-Length: 5\r\nX:1 \r\n":               "Content-Length: 5\r\nX:1 \r\n",
	} {
		r := mustRequest(t, post(lines))
		if got := string(r.AppendFields(nil)); got != "Host: h\r\n"+want {
			t.Errorf("%q goes on as %q", lines, got)
		}
	}
}

func TestF17_UnderscoresAreNeverFraming(t *testing.T) {
	lines := "Host: h\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n"
	r := mustRequest(t, "POST / HTTP/1.1\r\n"+lines+"\r\n")
	if body := r.Body(); !body.Done() || r.Has.Of(http1.ContentLength) || r.Has.Of(http1.TransferEncoding) {
		t.Errorf("%+v", body)
	}
	if got := string(r.AppendFields(nil)); got != lines {
		t.Errorf("%q", got)
	}
}

func TestConnectionOptions(t *testing.T) {
	for value, want := range map[string][3]bool{ // close, keep-alive, upgrade
		"":                                {},
		"close":                           {true, false, false},
		"Close":                           {true, false, false},
		"keep-alive":                      {false, true, false},
		"Keep-Alive":                      {false, true, false},
		"upgrade":                         {false, false, true},
		"Upgrade, Keep-Alive":             {false, true, true},
		", ,close,":                       {true, false, false},
		"closed":                          {},
		"x, close\t,\tkeep-alive":         {true, true, false},
		"close\r\nConnection: keep-alive": {true, true, false},
		"upgrade\r\nconnection: close":    {true, false, true},
	} {
		r := mustRequest(t, get("Connection: "+value+"\r\n"))
		if got := [3]bool{r.Close, r.KeepAlive, r.Upgrade}; got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// P6c: what is no token asks for nothing and names nothing, and the line goes no
// further.
func TestP6cOddConnectionOptions(t *testing.T) {
	for value, want := range map[string][3]bool{ // close, keep-alive, upgrade
		"close;":                        {},
		"\"close\"":                     {},
		"keep-alive, timeout=5":         {false, true, false},
		"Keep-Alive timeout=5":          {},
		"close, keep-alive/close":       {true, false, false},
		"upgrade, a=b":                  {false, false, true},
		"X A, X-A;, (X-A), X-A=1":       {},
		"a=b\r\nConnection: Keep-Alive": {false, true, false},
	} {
		r := mustRequest(t, get("X-A: 1\r\nConnection: "+value+"\r\n"))
		if got := [3]bool{r.Close, r.KeepAlive, r.Upgrade}; got != want || !r.Suspect {
			t.Errorf("%q: %v, want %v; Suspect is %v", value, got, want, r.Suspect)
		}
		out := string(r.AppendFields(nil))
		if _, good, ok := strings.Cut(value, "\r\n"); ok {
			out = strings.TrimSuffix(out, good+"\r\n")
		}
		if out != "Host: h\r\nX-A: 1\r\n" {
			t.Errorf("%q goes on as %q", value, out)
		}
	}
	r := mustRequest(t, get("X-A: 1\r\nX-B: 2\r\nConnection: X-A, close;\r\n"))
	if got := string(r.AppendFields(nil)); got != "Host: h\r\nX-B: 2\r\n" {
		t.Errorf("a token beside it is lost: %q", got)
	}
	if r := mustRequest(t, get("Connection: close, keep-alive, X\r\n")); r.Suspect {
		t.Error("tokens make a request suspect")
	}
}

func TestNominatedFieldsAreDropped(t *testing.T) {
	for name, row := range map[string]struct{ lines, want string }{
		"one":                    {"X-A: 1\r\nX-B: 2\r\nConnection: X-A\r\n", "X-B: 2\r\nConnection: X-A\r\n"},
		"in other letter case":   {"Connection: x-a\r\nX-A: 1\r\n", "Connection: x-a\r\n"},
		"all of that name":       {"X-A: 1\r\nConnection: close, x-a\r\nX-a: 2\r\n", "Connection: close, x-a\r\n"},
		"one that is not there":  {"Connection: X-A\r\nX-AB: 1\r\n", "Connection: X-A\r\nX-AB: 1\r\n"},
		"one that is recognised": {"Via: x\r\nConnection: Via\r\n", "Connection: Via\r\n"},
		"itself":                 {"Connection: Connection, X-A\r\nX-A: 1\r\nX-B: 2\r\n", "X-B: 2\r\n"},
		"never Host":             {"Connection: host\r\n", "Connection: host\r\n"},
		"never Content-Length":   {"Content-Length: 1\r\nConnection: Content-Length\r\n", "Content-Length: 1\r\nConnection: Content-Length\r\n"},
		"never Transfer-Encoding": {"Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
			"Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n"},
		"not a Content-Length written anew": {"Content-Length: 01\r\nConnection: Content-Length\r\n",
			"Connection: Content-Length\r\nContent-Length: 1\r\n"},
		"not close": {"Close: 1\r\nKeep-Alive: 2\r\nConnection: close, keep-alive\r\n",
			"Close: 1\r\nKeep-Alive: 2\r\nConnection: close, keep-alive\r\n"},
	} {
		r := mustRequest(t, get(row.lines))
		if got, want := string(r.AppendFields(nil)), "Host: h\r\n"+row.want; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestEachRecognisedNameIsRecognisedInAnyCase(t *testing.T) {
	names := map[string]http1.Name{
		"Authorization": http1.Authorization, "Connection": http1.Connection, "Content-Length": http1.ContentLength,
		"Date": http1.Date, "Expect": http1.Expect, "Host": http1.Host, "Idempotency-Key": http1.IdempotencyKey,
		"Keep-Alive": http1.KeepAlive, "Max-Forwards": http1.MaxForwards, "Proxy-Authenticate": http1.ProxyAuthenticate,
		"Proxy-Authorization": http1.ProxyAuthorization, "Proxy-Connection": http1.ProxyConnection, "TE": http1.TE,
		"Trailer": http1.Trailer, "Transfer-Encoding": http1.TransferEncoding, "Upgrade": http1.Upgrade,
		"Via": http1.Via, "WWW-Authenticate": http1.WWWAuthenticate,
	}
	for name, want := range names {
		for _, spelt := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			value := "x"
			switch want {
			case http1.ContentLength:
				value = "1"
			case http1.TransferEncoding:
				value = "chunked"
			}
			r := mustRequest(t, "GET / HTTP/1.1\r\n"+hostUnless(want)+spelt+": "+value+"\r\n\r\n")
			f := &r.Fields[len(r.Fields)-1]
			if f.Name != want || !r.Has.Of(want) || string(r.FieldName(f)) != spelt || string(r.First(want)) != value {
				t.Errorf("%s is taken for %d", spelt, f.Name)
			}
		}
		// One letter off is another field, whatever its length.
		for i := range name {
			other := name[:i] + "x" + name[i+1:]
			if strings.EqualFold(other, name) {
				continue
			}
			r := mustRequest(t, get(other+": 1\r\n"))
			if f := &r.Fields[1]; f.Name != http1.Other {
				t.Errorf("%s is taken for %d", other, f.Name)
			}
		}
	}
}

// hostUnless is a Host line for a request that is to have another field.
func hostUnless(n http1.Name) string {
	if n == http1.Host {
		return ""
	}
	return "Host: h\r\n"
}

func TestEachByteInAValueIsJudgedInEveryPlace(t *testing.T) {
	for c := range 256 {
		ok := c == '\t' || c >= ' ' && c != 0x7f
		for at := range 20 {
			value := []byte("abcdefghijklmnopqrstu")
			value[at] = byte(c)
			_, err := new(http1.Request).Parse([]byte(get("X: "+string(value)+"\r\n")), big)
			if (err == nil) != ok {
				t.Fatalf("byte %#02x at %d: %v", c, at, err)
			}
		}
		// Two of them: the fast test must not cancel out.
		value := strings.Repeat(string([]byte{byte(c), ' '}), 8)
		if _, err := new(http1.Request).Parse([]byte(get("X: a"+value+"a\r\n")), big); (err == nil) != ok {
			t.Fatalf("byte %#02x between spaces: %v", c, err)
		}
	}
}

func TestAppendInt(t *testing.T) {
	for _, n := range []int64{0, 1, 9, 10, 99, 100, 1<<31 - 1, 1 << 32, 1<<63 - 1} {
		if got := string(http1.AppendInt([]byte("x"), n)); got != fmt.Sprintf("x%d", n) {
			t.Errorf("%d is %q", n, got)
		}
	}
}

func TestEachOptionStopsWhenTold(t *testing.T) {
	var got []string
	http1.EachOption([]byte(" a,, b\t,c ,d"), func(o []byte) bool {
		got = append(got, string(o))
		return len(got) < 3
	})
	if strings.Join(got, "|") != "a|b|c" {
		t.Errorf("%q", got)
	}
}
