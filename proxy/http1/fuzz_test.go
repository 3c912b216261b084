package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

const (
	// fuzzBytes bounds what the fuzz targets look at: they parse byte by byte.
	fuzzBytes = 3000
	// fuzzLimit is the least limit of heads. It is beyond what tells that there
	// is no head at all.
	fuzzLimit = 64
)

func FuzzRequestHead(f *testing.F) {
	for _, row := range requestRows {
		if len(row.in) < fuzzBytes {
			f.Add([]byte(row.in), uint16(fuzzBytes))
			f.Add([]byte(row.in+"5\r\nhello\r\n"), uint16(len(row.in)-1))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, limit uint16) {
		if limit = max(limit, fuzzLimit); len(in) == 0 || len(in) > fuzzBytes {
			return
		}
		r := new(http1.Request)
		n, err := r.Parse(slices.Clone(in), int(limit))
		sameByteByByte(t, new(http1.Request), in, int(limit), n, err)
		if err != nil {
			mustBeOneOf(t, err, 400, 414, 431, 501, 505)
			return
		}
		plainValues(t, &r.Head)
		out := emittedRequest(r)
		again := mustRequest(t, string(out))
		if string(again.Method) != string(r.Method) || string(again.Target) != string(r.Target) || again.Body() != r.Body() {
			t.Errorf("%q is read again as %+v", out, again)
		}
		sameLines(t, &r.Head, &again.Head)
		if twice := emittedRequest(again); !bytes.Equal(out, twice) {
			t.Errorf("%q is passed on as %q", out, twice)
		}
		asNetHTTPReadsRequest(t, r, in[:n])
	})
}

func FuzzResponseHead(f *testing.F) {
	for _, row := range responseRows {
		if len(row.in) < fuzzBytes {
			f.Add([]byte(row.in), uint16(fuzzBytes))
			f.Add([]byte(row.in+"5\r\nhello\r\n"), uint16(len(row.in)-1))
		}
	}
	for _, row := range oddAnswers(f) {
		f.Add([]byte(row.Sent), uint16(fuzzBytes))
	}
	f.Fuzz(responseIsReadRight)
}

// responseIsReadRight checks what is made of a response head, if it is one.
func responseIsReadRight(t *testing.T, in []byte, limit uint16) {
	if limit = max(limit, fuzzLimit); len(in) == 0 || len(in) > fuzzBytes {
		return
	}
	r := new(http1.Response)
	n, err := r.Parse(slices.Clone(in), int(limit))
	sameByteByByte(t, new(http1.Response), in, int(limit), n, err)
	if err != nil {
		mustBeOneOf(t, err, 400, 431)
		return
	}
	plainValues(t, &r.Head)
	if r.Status < 100 || r.Status > 999 {
		t.Errorf("status %d", r.Status)
	}
	out := emittedResponse(r)
	again := mustResponse(t, string(out))
	if again.Status != r.Status || again.Body(false) != r.Body(false) || again.Body(true) != r.Body(true) || again.Suspect {
		t.Errorf("%q is read again as %+v", out, again)
	}
	sameLines(t, &r.Head, &again.Head)
	if twice := emittedResponse(again); !bytes.Equal(out, twice) {
		t.Errorf("%q is passed on as %q", out, twice)
	}
	asNetHTTPReadsResponse(t, r, in[:n])
	asPutRight(t, r, in[:n])
	// What goes on has lost what made readers differ.
	strict := asNetHTTPReadsResponse(t, again, out)
	if strict != "" && !strings.HasPrefix(strict, "the Trailer field") {
		t.Errorf("%q is not for everybody to read: %s", out, strict)
	}
}

// sameByteByByte checks that the verdict does not depend on how the bytes come.
func sameByteByByte(t *testing.T, p parser, in []byte, limit, n int, err error) {
	t.Helper()
	if n2, err2 := slowly(p, in, limit); n2 != n || err2 != err {
		t.Errorf("byte by byte: %d, %v; at once: %d, %v", n2, err2, n, err)
	}
	if err == nil && n > limit+16 {
		t.Errorf("a head of %d bytes is over its limit of %d", n, limit)
	}
}

func mustBeOneOf(t *testing.T, err error, statuses ...int) {
	t.Helper()
	if err != http1.ErrIncomplete && !slices.Contains(statuses, statusOf(t, err)) {
		t.Errorf("%v has status %d", err, statusOf(t, err))
	}
}

var untidyFraming = regexp.MustCompile(`(?mi)^(content-length|transfer-encoding):(\t| [ \t]|.*[ \t]\r$)`)

// plainValues checks that nothing in a head can be taken for something else.
func plainValues(t *testing.T, h *http1.Head) {
	t.Helper()
	for i := range h.Fields {
		f := &h.Fields[i]
		name, value := h.FieldName(f), h.Value(f)
		if len(name) == 0 || bytes.ContainsAny(name, " \t\r\n\x00:") {
			t.Errorf("the name %q was accepted", name)
		}
		if bytes.ContainsAny(value, "\r\n\x00") || len(bytes.Trim(value, " \t")) != len(value) {
			t.Errorf("the value %q was accepted", value)
		}
		if !h.Has.Of(f.Name) {
			t.Errorf("%q is not among those that are there", name)
		}
	}
	out := h.AppendFields(nil)
	if bareEnds(out) {
		t.Errorf("a bare CR or LF is in %q", out)
	}
	if untidyFraming.Match(out) {
		t.Errorf("too much white space is in %q", out)
	}
}

// sameLines checks that what was passed on is read as what was meant.
func sameLines(t *testing.T, sent, got *http1.Head) {
	t.Helper()
	if a, b := linesOf(sent), linesOf(got); !slices.Equal(a, b) {
		t.Errorf("%q was passed on and is read as %q", a, b)
	}
	leftOut := slices.ContainsFunc(sent.Fields, func(f http1.Field) bool { return f.Name == http1.Connection && f.Drop })
	if sent.Length != got.Length || sent.Chunked != got.Chunked || sent.Close && !got.Close && !leftOut {
		t.Errorf("%+v was passed on and is read as %+v", sent, got)
	}
}

// asNetHTTPReadsRequest compares with what net/http makes of the same head.
func asNetHTTPReadsRequest(t *testing.T, r *http1.Request, head []byte) {
	t.Helper()
	for bytes.HasPrefix(head, []byte("\r\n")) {
		head = head[2:] // net/http does not know of RFC 9112 section 2.2
	}
	br := bufio.NewReader(bytes.NewReader(head))
	std, err := http.ReadRequest(br)
	if err != nil {
		if explainedRequest(r, err) == "" {
			t.Errorf("net/http refuses %q: %v", head, err)
		}
		return
	}
	if br.Buffered() > 0 {
		t.Errorf("net/http sees the end of %q elsewhere", head)
	}
	if std.Method != string(r.Method) || std.RequestURI != string(r.Target) || std.Close != (r.Close || r.Minor == 0 && !r.KeepAlive) {
		t.Errorf("net/http reads %q as %+v", head, std)
	}
	body := r.Body()
	if body.Left() != std.ContentLength || body.Chunked() != (len(std.TransferEncoding) > 0) {
		t.Errorf("net/http frames %q by %d, %v", head, std.ContentLength, std.TransferEncoding)
	}
	sameHeader(t, &r.Head, std.Header)
}

// explainedRequest says why net/http may refuse a request that is accepted
// here, "" if there is no good reason.
func explainedRequest(r *http1.Request, err error) string {
	target := string(r.Target)
	if string(r.Method) == "CONNECT" && !strings.HasPrefix(target, "/") {
		target = "http://" + target
	}
	if _, urlErr := url.ParseRequestURI(target); urlErr != nil && urlErr.Error() == err.Error() {
		return "net/http parses the target as a URL, which is not this package's business"
	}
	return explainedTrailer(&r.Head, err)
}

func explainedTrailer(h *http1.Head, err error) string {
	if h.Chunked && h.Has.Of(http1.Trailer) && strings.HasPrefix(err.Error(), "bad trailer key ") {
		return "the Trailer field announces trailers that are dropped here if they come"
	}
	return ""
}

// asNetHTTPReadsResponse is asNetHTTPReadsRequest for responses. It returns an
// explanation if the two differ and are right to.
func asNetHTTPReadsResponse(t *testing.T, r *http1.Response, head []byte) (explanation string) {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(head))
	std, err := http.ReadResponse(br, nil)
	if err != nil {
		explanation := explainedResponse(r, head, err)
		if explanation == "" {
			t.Errorf("net/http refuses %q: %v", head, err)
		}
		return explanation
	}
	if br.Buffered() > 0 {
		t.Errorf("net/http sees the end of %q elsewhere", head)
	}
	if explanation := explainedFraming(r, head); explanation != "" {
		return explanation
	}
	body := r.Body(false)
	chunked := len(std.TransferEncoding) > 0 && r.HasBody(false)
	closes := r.Close || r.Minor == 0 && !r.KeepAlive || body.UntilClose()
	if std.StatusCode != r.Status || body.Left() != std.ContentLength || body.Chunked() != chunked || std.Close != closes {
		t.Errorf("net/http reads %q as %+v, not as %+v", head, std, body)
	}
	sameHeader(t, &r.Head, std.Header)
	return ""
}

var (
	tabBeforeColon   = regexp.MustCompile(`(?m)^[!#$%&'*+\-.^_\x60|~0-9A-Za-z]+ *\t[ \t]*:`)
	emptyFold        = regexp.MustCompile(`(?m)^[ \t]+\r?$`)
	spaceInName      = regexp.MustCompile(`\n[^\t:\n]*[^\t :\n] +[^\t :\n][^\t:\n]*:`)
	spaceBeforeColon = regexp.MustCompile(`(?mi)^(content-length|transfer-encoding|connection|trailer) +:`)
)

// explainedResponse says why net/http may refuse a response that is accepted
// here, "" if there is no good reason.
func explainedResponse(r *http1.Response, head []byte, err error) string {
	switch {
	case r.Suspect && len(oddities(head)) > 0:
		return "it is odd, and net/http reads it when it is put right"
	case r.Suspect && (strings.HasPrefix(err.Error(), "bad Content-Length ") || strings.HasPrefix(err.Error(), "unsupported transfer encoding: \"")):
		return "a list of equal lengths, or no coding at all by its old name: net/http reads it when it is put right"
	case strings.HasPrefix(err.Error(), "malformed MIME header") && tabBeforeColon.Match(head):
		return "a tab before the colon is taken out here, as a space is (RFC 9112 section 5.1)"
	case strings.HasPrefix(err.Error(), "http: message cannot contain multiple Content-Length headers"):
		return "net/http compares Content-Lengths as text: 5 and 05 differ"
	case strings.HasPrefix(err.Error(), "unsupported transfer encoding: ") && strings.HasSuffix(err.Error(), " \"") && emptyFold.Match(head):
		return "net/http leaves a space behind a value that goes on with an empty folded line; here it is trimmed"
	}
	return explainedTrailer(&r.Head, err)
}

// explainedFraming says why net/http may read a response otherwise.
func explainedFraming(r *http1.Response, head []byte) string {
	switch {
	case spaceBeforeColon.Match(head):
		return "net/http does not know a field by its name with a space behind it"
	case r.Suspect && !bytes.HasPrefix(head, []byte("HTTP/1.")):
		return "net/http goes by a version that is not spoken here"
	case r.Suspect && spaceInName.Match(head):
		return "net/http takes names with spaces in them; here such lines are left out"
	case r.Minor == 0 && r.Chunked:
		return "net/http ignores Transfer-Encoding in HTTP/1.0; here it counts, and the connection is given up (RFC 9112 section 6.1)"
	}
	return ""
}

// sameHeader compares the fields but for those that net/http takes out or
// makes up, and but for the white space where a line was folded.
func sameHeader(t *testing.T, h *http1.Head, std http.Header) {
	t.Helper()
	got := make(http.Header)
	for i := range h.Fields {
		f := &h.Fields[i]
		name := textproto.CanonicalMIMEHeaderKey(string(h.FieldName(f)))
		got[name] = append(got[name], oneSpace(string(h.Value(f))))
	}
	want := make(http.Header)
	for name, values := range std {
		name = textproto.CanonicalMIMEHeaderKey(strings.TrimRight(name, " "))
		for _, v := range values {
			want[name] = append(want[name], oneSpace(v))
		}
	}
	for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Cache-Control"} {
		delete(got, name)
		delete(want, name)
	}
	for name := range want {
		slices.Sort(want[name]) // "A " and "A" may have come in another order
		slices.Sort(got[name])
		if !slices.Equal(want[name], got[name]) {
			t.Errorf("net/http reads %s as %q, not as %q", name, want[name], got[name])
		}
	}
	if len(want) != len(got) {
		t.Errorf("net/http reads %q, not %q", want, got)
	}
}

func oneSpace(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}

func FuzzChunked(f *testing.F) {
	for _, row := range chunkRows {
		if len(row.in) < fuzzBytes {
			f.Add([]byte(row.in), uint64(0))
		}
	}
	for _, row := range oddAnswers(f) {
		if _, body, ok := strings.Cut(row.Sent, "Transfer-Encoding: chunked\r\n\r\n"); ok {
			f.Add([]byte(body), uint64(0))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		if len(in) > fuzzBytes {
			return
		}
		kept := decode(t, chunkedBody(t, false), in)
		bare := decode(t, chunkedBody(t, true), in)
		if statusOf(t, kept.err) != statusOf(t, bare.err) || !bytes.Equal(kept.held, bare.held) || kept.body.Done() != bare.body.Done() {
			t.Fatalf("with chunks %+v, without %+v", kept, bare)
		}
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 3 {
			pieces := make([]int, len(in)/2)
			for i := range pieces {
				pieces[i] = rnd.IntN(1 + rnd.IntN(20))
			}
			sameInPieces(t, kept, decode(t, chunkedBody(t, false), in, pieces...))
			sameInPieces(t, bare, decode(t, chunkedBody(t, true), in, pieces...))
		}
		ones := slices.Repeat([]int{1}, len(in))
		sameInPieces(t, kept, decode(t, chunkedBody(t, false), in, ones...))
		sameInPieces(t, bare, decode(t, chunkedBody(t, true), in, ones...))
		goesOnInPlainChunks(t, kept, bare)
		asNetHTTPReadsChunks(t, in, kept, bare)
		ofAResponse(t, in, rnd, kept, bare)
	})
}

// ofAResponse checks the body as that of a response, in which more is put right.
// strict and strictBare are what a request's is decoded to.
func ofAResponse(t *testing.T, in []byte, rnd *rand.Rand, strict, strictBare *stream) {
	t.Helper()
	kept := decode(t, responseChunks(t, false), in)
	bare := decode(t, responseChunks(t, true), in)
	if statusOf(t, kept.err) != statusOf(t, bare.err) || !bytes.Equal(kept.held, bare.held) || kept.body.Done() != bare.body.Done() || kept.body.Suspect != bare.body.Suspect {
		t.Fatalf("with chunks %+v, without %+v", kept, bare)
	}
	pieces := make([]int, len(in)/2)
	for i := range pieces {
		pieces[i] = rnd.IntN(1 + rnd.IntN(20))
	}
	for _, cut := range [][]int{pieces, slices.Repeat([]int{1}, len(in))} {
		sameInPieces(t, kept, decode(t, responseChunks(t, false), in, cut...))
		sameInPieces(t, bare, decode(t, responseChunks(t, true), in, cut...))
	}
	goesOnInPlainChunks(t, kept, bare)
	same := kept.err == nil && strict.err == nil && bytes.Equal(kept.out, strict.out) && bytes.Equal(kept.held, strict.held) && bytes.Equal(bare.out, strictBare.out)
	switch {
	case strict.err == nil && (!same || kept.body.Suspect):
		t.Errorf("%q is right, and a response's is %+v", in, kept)
	case kept.err == nil && !kept.body.Suspect && !same:
		t.Errorf("%q is accepted as if it were right: %+v", in, kept)
	case strict.err != nil && !bytes.HasPrefix(bare.out, strictBare.out):
		t.Errorf("%q begins with %q, not with %q", in, strictBare.out, bare.out)
	}
	if content, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in))); err == nil && kept.body.Done() && !bytes.Equal(content, bare.out) {
		t.Errorf("net/http decodes %q, not %q", content, bare.out)
	}
}

// sameInPieces checks that the result does not depend on how the bytes come.
func sameInPieces(t *testing.T, whole, pieces *stream) {
	t.Helper()
	if !bytes.Equal(whole.out, pieces.out) || statusOf(t, whole.err) != statusOf(t, pieces.err) {
		t.Errorf("in pieces: %q, %v; whole: %q, %v", pieces.out, pieces.err, whole.out, whole.err)
	}
	if whole.err == nil && (whole.body != pieces.body || !bytes.Equal(whole.held, pieces.held)) {
		t.Errorf("in pieces: %+v; whole: %+v", pieces, whole)
	}
}

var (
	plainSize    = regexp.MustCompile(`^[0-9A-Fa-f]{1,16}$`)
	plainTrailer = regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+:[\t \\x21-\\x7e\\x80-\\xff]*$")
)

// goesOnInPlainChunks checks that a body is passed on without anything that
// readers could differ about, by walking it in the plainest way.
func goesOnInPlainChunks(t *testing.T, kept, bare *stream) {
	t.Helper()
	again := decode(t, chunkedBody(t, true), kept.out)
	if again.err != nil || !bytes.Equal(again.out, bare.out) {
		t.Errorf("%q is read again as %q, %v", kept.out, again.out, again.err)
	}
	if !kept.body.Done() {
		return
	}
	var content []byte
	rest := string(kept.out)
	for last := false; !last; {
		size, data, ok := strings.Cut(rest, "\r\n")
		if !ok || !plainSize.MatchString(size) {
			t.Fatalf("%q has the size %q", kept.out, size)
		}
		n := 0
		for _, c := range strings.ToLower(size) {
			n = n<<4 + strings.IndexRune("0123456789abcdef", c)
		}
		if last = n == 0; last {
			rest = data
			break
		}
		if len(data) < n+2 || data[n:n+2] != "\r\n" {
			t.Fatalf("%q has a chunk without an end", kept.out)
		}
		content, rest = append(content, data[:n]...), data[n+2:]
	}
	for {
		trailer, behind, ok := strings.Cut(rest, "\r\n")
		rest = behind
		if !ok {
			t.Fatalf("%q has no end", kept.out)
		}
		if trailer == "" {
			break
		}
		name, _, _ := strings.Cut(strings.ToLower(trailer), ":")
		if !latin1(plainTrailer, trailer) || slices.Contains([]string{"content-length", "transfer-encoding", "host", "te"}, name) {
			t.Errorf("%q has the trailer %q", kept.out, trailer)
		}
	}
	if rest != "" || !bytes.Equal(content, bare.out) {
		t.Errorf("%q is %q and %q, not %q", kept.out, content, rest, bare.out)
	}
}

// latin1 matches bytes, not runes.
func latin1(re *regexp.Regexp, s string) bool {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return re.MatchString(string(runes))
}

// asNetHTTPReadsChunks compares with what net/http makes of the same body.
func asNetHTTPReadsChunks(t *testing.T, in []byte, kept, bare *stream) {
	t.Helper()
	content, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
	if explainedChunks(in, err) != "" {
		return
	}
	if !bytes.HasPrefix(content, bare.out) {
		t.Errorf("net/http decodes %q, not %q", content, bare.out)
	}
	if err == nil && !bytes.Equal(content, bare.out) && kept.err == nil {
		t.Errorf("net/http decodes %q, not only %q", content, bare.out)
	}
	if kept.body.Done() && err != nil {
		t.Errorf("net/http refuses %q: %v", in, err)
	}
	if !kept.body.Done() {
		return
	}
	// A whole message, to see where it ends for net/http.
	message := append([]byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), in...)
	br := bufio.NewReaderSize(bytes.NewReader(message), 64<<10)
	std, err := http.ReadRequest(br)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(std.Body); err != nil {
		t.Errorf("net/http refuses %q: %v", in, err)
	}
	if rest, _ := io.ReadAll(br); !bytes.Equal(rest, kept.held) {
		t.Errorf("net/http sees %q behind the end, not %q", rest, kept.held)
	}
}

var spaceBeforeExtension = regexp.MustCompile(`(?m)^[0-9A-Fa-f]+[ \t]+;`)

// explainedChunks says why net/http may refuse a chunked body that is accepted
// here, "" if there is no good reason.
func explainedChunks(in []byte, err error) string {
	switch {
	case err == nil || errors.Is(err, io.ErrUnexpectedEOF):
		return ""
	case err.Error() == "invalid byte in chunk length" && spaceBeforeExtension.Match(in):
		return "net/http does not know of the white space before a chunk extension (RFC 9112 section 7.1.1)"
	case err.Error() == "chunked encoding contains too much non-data":
		return "net/http bounds what may not be data; here it is left out, line by line"
	}
	return ""
}
