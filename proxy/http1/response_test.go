package http1_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/http1"
)

// answer is a response with these header lines.
func answer(lines string) string { return "HTTP/1.1 200 OK\r\n" + lines + "\r\n" }

// framing is how the body of a response ends.
type framing struct {
	left  int64 // bytes to come, -1: unknown
	ended string
}

var (
	empty      = framing{0, "at once"}
	inChunks   = framing{-1, "with its last chunk"}
	untilClose = framing{-1, "with its connection"}
)

func bytesOf(n int64) framing { return framing{n, "after its length"} }

func framingOf(b http1.Body) framing {
	switch {
	case b.Done():
		return framing{b.Left(), empty.ended}
	case b.Chunked():
		return framing{b.Left(), inChunks.ended}
	case b.UntilClose():
		return framing{b.Left(), untilClose.ended}
	}
	return framing{b.Left(), "after its length"}
}

// responseRow is a response head, and how it is to go on. Nothing in body means
// that it is refused.
type responseRow struct {
	in      string
	body    framing
	suspect bool
	out     string // as it is passed on, "": as it came
}

var responseRows = map[string]responseRow{
	"Content-Length":                {in: answer("Content-Length: 5\r\n"), body: bytesOf(5)},
	"Content-Length 0":              {in: answer("Content-Length: 0\r\n"), body: empty},
	"chunked":                       {in: answer("Transfer-Encoding: chunked\r\n"), body: inChunks},
	"neither":                       {in: answer(""), body: untilClose},
	"no reason":                     {in: "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", body: bytesOf(1)},
	"no reason, and no space":       {in: "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", body: bytesOf(1), out: "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n"},
	"a long reason":                 {in: "HTTP/1.1 404 Not\tFound \xe9\r\n\r\n", body: untilClose},
	"HTTP/1.0":                      {in: "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", body: bytesOf(1), out: answer("Content-Length: 1\r\n")},
	"HTTP/1.7":                      {in: "HTTP/1.7 200 OK\r\nContent-Length: 1\r\n\r\n", body: bytesOf(1), out: answer("Content-Length: 1\r\n")},
	"status 999":                    {in: "HTTP/1.1 999 x\r\nContent-Length: 1\r\n\r\n", body: bytesOf(1)},
	"status 205 has a body":         {in: "HTTP/1.1 205 x\r\nContent-Length: 1\r\n\r\n", body: bytesOf(1)},
	"status 099":                    {in: "HTTP/1.1 099 x\r\n\r\n"},
	"status 20":                     {in: "HTTP/1.1 20 x\r\n\r\n"},
	"status 2000":                   {in: "HTTP/1.1 2000\r\n\r\n"},
	"status 2OO":                    {in: "HTTP/1.1 2OO x\r\n\r\n"},
	"status +20":                    {in: "HTTP/1.1 +20 x\r\n\r\n"},
	"no status":                     {in: "HTTP/1.1\r\n\r\n"},
	"two spaces":                    {in: "HTTP/1.1  200 OK\r\n\r\n", body: untilClose, suspect: true, out: answer("")},
	"a tab":                         {in: "HTTP/1.1 200\tOK\r\n\r\n", body: untilClose, suspect: true, out: answer("")},
	"HTTP/2":                        {in: "HTTP/2 200 OK\r\n\r\n", body: untilClose, suspect: true, out: answer("")},
	"HTTP/2.0":                      {in: "HTTP/2.0 200 OK\r\n\r\n", body: untilClose, suspect: true, out: answer("")},
	"HTTP/1.10":                     {in: "HTTP/1.10 200 OK\r\n\r\n"},
	"http/1.1":                      {in: "http/1.1 200 OK\r\n\r\n"},
	"ICY":                           {in: "ICY 200 OK\r\n\r\n"},
	"an empty line first":           {in: "\r\nHTTP/1.1 200 OK\r\n\r\n"},
	"no head at all":                {in: "<html></html>\r\n\r\n"},
	"CR in the reason":              {in: "HTTP/1.1 200 O\rK\r\n\r\n"},
	"NUL in the reason":             {in: "HTTP/1.1 200 O\x00K\r\n\r\n"},
	"CR behind the reason":          {in: "HTTP/1.1 200 OK\r\r\n\r\n"},
	"a Connection that is no list":  {in: answer("Connection: a b\r\n"), body: untilClose, suspect: true, out: answer("")},
	"a Connection with 65 options":  {in: answer("Connection: " + strings.Repeat("a,", 65) + "\r\n"), body: untilClose, suspect: true, out: answer("")},
	"a thousand and one fields":     {in: answer(strings.Repeat("a:\r\n", 1001))},
	"two Hosts mean nothing here":   {in: answer("Host: a\r\nHost: b\r\n"), body: untilClose},
	"P6 Content-Length empty":       {in: answer("Content-Length:\r\n")},
	"P6 Content-Length +1":          {in: answer("Content-Length: +1\r\n")},
	"P6 Content-Length -1":          {in: answer("Content-Length: -1\r\n")},
	"P6 Content-Length 0x1":         {in: answer("Content-Length: 0x1\r\n")},
	"P6 Content-Length 2^63":        {in: answer("Content-Length: 9223372036854775808\r\n")},
	"P6b Content-Length 5, 5":       {in: answer("Content-Length: 5, 5\r\n"), body: bytesOf(5), suspect: true, out: answer("Content-Length: 5\r\n")},
	"P6 differing Content-Lengths":  {in: answer("Content-Length: 5\r\nContent-Length: 6\r\n")},
	"P6 NUL in a value":             {in: answer("X: a\x00b\r\n")},
	"P6 CR in a value":              {in: answer("X: a\rb\r\n")},
	"P6 CR at the end of a value":   {in: answer("X: a\r\r\n")},
	"P6 CR in a folded line":        {in: answer("X: a\r\n b\rc\r\n")},
	"P6 NUL in a folded line":       {in: answer("X: a\r\n b\x00c\r\n")},
	"P6b no colon":                  {in: answer("X\r\n"), body: untilClose, suspect: true, out: answer("")},
	"P6 no colon, but a space":      {in: answer("Content-Length 5\r\n")},
	"P6 a space within a name":      {in: answer("A Content-Length: 5\r\n")},
	"P6b empty name":                {in: answer(": a\r\n"), body: untilClose, suspect: true, out: answer("")},
	"P6 only a space for a name":    {in: answer("X: a\r\n : b\r\n"), body: untilClose, out: answer("X: a   : b\r\n")},
	"P6 NUL in a name":              {in: answer("X\x00: a\r\n")},
	"P6b a byte above 0x80 in it":   {in: answer("X\x85: a\r\n"), body: untilClose, suspect: true, out: answer("")},
	"P6 TE gzip":                    {in: answer("Transfer-Encoding: gzip\r\n")},
	"P6 TE gzip, chunked":           {in: answer("Transfer-Encoding: gzip, chunked\r\n")},
	"P6 TE chunked, gzip":           {in: answer("Transfer-Encoding: chunked, gzip\r\n")},
	"P6 TE chunked, chunked":        {in: answer("Transfer-Encoding: chunked, chunked\r\n")},
	"P6b TE twice":                  {in: answer("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), body: inChunks, suspect: true, out: answer("Transfer-Encoding: chunked\r\n")},
	"P6 TE ,chunked":                {in: answer("Transfer-Encoding: ,chunked\r\n")},
	"P6 TE empty":                   {in: answer("Transfer-Encoding:\r\n")},
	"P6b TE identity":               {in: answer("Transfer-Encoding: identity\r\n"), body: untilClose, suspect: true, out: answer("")},
	"P6 TE of 204":                  {in: "HTTP/1.1 204 x\r\nTransfer-Encoding: x\r\n\r\n"},
	"P7 TE and CL":                  {in: answer("Content-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n"), body: inChunks, suspect: true, out: answer("Transfer-Encoding: chunked\r\nA: b\r\n")},
	"P7 TE and CL the other way":    {in: answer("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), body: inChunks, suspect: true, out: answer("Transfer-Encoding: chunked\r\n")},
	"P7 TE and two CLs":             {in: answer("Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"), body: inChunks, suspect: true, out: answer("Transfer-Encoding: chunked\r\n")},
	"P7 TE and CL, wildly spelt":    {in: answer("content-length : 05\r\ntransfer-encoding:\r\n\tCHUNKED\r\n"), body: inChunks, suspect: true, out: answer("transfer-encoding: CHUNKED\r\n")},
	"P7 TE and a CL that is wrong":  {in: answer("Content-Length: x\r\nTransfer-Encoding: chunked\r\n")},
	"P7 TE in HTTP/1.0":             {in: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body: inChunks, suspect: true, out: answer("Transfer-Encoding: chunked\r\n")},
	"P8 folded":                     {in: answer("X: a\r\n b\r\nY: c\r\n"), body: untilClose, out: answer("X: a   b\r\nY: c\r\n")},
	"P8 folded twice":               {in: answer("X: a \r\n\tb \r\n  c \r\nY: d\r\n"), body: untilClose, out: answer("X: a   \tb     c\r\nY: d\r\n")},
	"P8 folded before the value":    {in: answer("Content-Length:\r\n 5\r\n"), body: bytesOf(5), out: answer("Content-Length: 5\r\n")},
	"P8 folded with a tab":          {in: answer("Content-Length:\r\n\t5\r\n"), body: bytesOf(5), out: answer("Content-Length: 5\r\n")},
	"P8 folded, nothing behind":     {in: answer("Content-Length: 5\r\n \t\r\nX: a\r\n"), body: bytesOf(5), out: answer("Content-Length: 5\r\nX: a\r\n")},
	"P8 folded, nothing around":     {in: answer("X:\r\n \r\n\t\r\nY: a\r\n"), body: untilClose, out: answer("X: \r\nY: a\r\n")},
	"P8 folded chunked":             {in: answer("Transfer-Encoding: \r\n chunked \r\n"), body: inChunks, out: answer("Transfer-Encoding: chunked\r\n")},
	"P8 a number over two lines":    {in: answer("Content-Length: 1\r\n 0\r\n")},
	"P8 folded Content-Length 010":  {in: answer("Content-Length:\r\n 010\r\n"), body: bytesOf(10), out: answer("Content-Length: 10\r\n")},
	"P8 the first line is folded":   {in: "HTTP/1.1 200 OK\r\n X: a\r\n\r\n", body: untilClose, suspect: true, out: answer("")},
	"P8 space before the colon":     {in: answer("Content-Length : 5\r\nX:a\r\n"), body: bytesOf(5), out: answer("Content-Length: 5\r\nX: a\r\n")},
	"P8 space before any colon":     {in: answer("X-A : 1\r\nX-B:2\r\n"), body: untilClose, out: answer("X-A: 1\r\nX-B: 2\r\n")},
	"P8 tabs before the colon":      {in: answer("Transfer-Encoding\t \t:chunked\r\n"), body: inChunks, out: answer("Transfer-Encoding: chunked\r\n")},
	"P8 LF ends the lines":          {in: "HTTP/1.1 200 OK\nContent-Length: 5\nX:a\n\n", body: bytesOf(5), out: answer("Content-Length: 5\r\nX: a\r\n")},
	"P8 LF ends the status line":    {in: "HTTP/1.1 200 OK\nX:a\r\n\r\n", body: untilClose, out: answer("X: a\r\n")},
	"P8 LF ends the head":           {in: "HTTP/1.1 200 OK\r\nX:a\r\n\n", body: untilClose, out: answer("X: a\r\n")},
	"P8 LF, CRLF end the head":      {in: "HTTP/1.1 200 OK\r\nX:a\n\r\n", body: untilClose, out: answer("X: a\r\n")},
	"P8 LF and a folded line":       {in: "HTTP/1.1 200 OK\nX: a\n b\n\n", body: untilClose, out: answer("X: a  b\r\n")},
	"equal Content-Lengths":         {in: answer("Content-Length: 5\r\nX: a\r\nContent-Length: 5\r\n"), body: bytesOf(5), suspect: true, out: answer("X: a\r\nContent-Length: 5\r\n")},
	"equal but for a zero":          {in: answer("Content-Length: 5\r\nContent-Length: 05\r\n"), body: bytesOf(5), suspect: true, out: answer("Content-Length: 5\r\n")},
	"Content-Length 010":            {in: answer("Content-Length: 010\r\n"), body: bytesOf(10), out: answer("Content-Length: 10\r\n")},
	"R11 a nominated field":         {in: answer("X-A: 1\r\nConnection: X-A, close\r\n"), body: untilClose, out: answer("Connection: X-A, close\r\n")},
	"R11 Content-Length nominated":  {in: answer("Content-Length: 1\r\nConnection: Content-Length\r\n"), body: bytesOf(1)},
	"R13 lines are kept":            {in: answer("X:1\r\nx-a:  two words \t\r\nX:\r\nx: \xff\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"), body: untilClose},
	"1xx":                           {in: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", body: empty},
	"1xx with Content-Length":       {in: "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", body: empty},
	"101":                           {in: "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n", body: empty},
	"204":                           {in: "HTTP/1.1 204 x\r\n\r\n", body: empty},
	"204 with Content-Length":       {in: "HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", body: empty},
	"204 with chunks":               {in: "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", body: empty},
	"304 with Content-Length":       {in: "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", body: empty},
	"a value is 0x1f at the end":    {in: answer("X: 0123456\x1f\r\n"), body: untilClose, suspect: true, out: answer("X: 0123456 \r\n")},
	"a nominated field of two":      {in: answer("Connection: a\r\nA: 1\r\nConnection: b\r\nB: 1\r\n"), body: untilClose, out: answer("Connection: a\r\nConnection: b\r\n")},
	"a Connection that is folded":   {in: answer("Connection: a,\r\n b\r\nA: 1\r\nB: 1\r\nC: 1\r\n"), body: untilClose, out: answer("Connection: a,   b\r\nC: 1\r\n")},
	"a Connection with a tab first": {in: answer("Connection:\r\n\tclose\r\n"), body: untilClose, out: answer("Connection: close\r\n")},
}

func TestResponseRows(t *testing.T) {
	for name, row := range responseRows {
		t.Run(name, func(t *testing.T) {
			for _, way := range []struct {
				name  string
				parse func(r *http1.Response) (int, error)
			}{
				{"whole", func(r *http1.Response) (int, error) { return r.Parse([]byte(row.in), big) }},
				{"whole, with more behind", func(r *http1.Response) (int, error) { return r.Parse([]byte(row.in+"abc\r\n\r\n"), big) }},
				{"byte by byte", func(r *http1.Response) (int, error) { return slowly(r, []byte(row.in), big) }},
				{"again after Reset", func(r *http1.Response) (int, error) {
					if _, err := slowly(r, []byte(answer("X: " + strings.Repeat("x", 5000)))[:4000], big); err != http1.ErrIncomplete {
						t.Fatal(err)
					}
					r.Reset()
					return r.Parse([]byte(row.in), big)
				}},
				{"again after a refusal", func(r *http1.Response) (int, error) {
					if _, err := r.Parse([]byte(answer("X: " + strings.Repeat("x", 5000)))[:4000], 3000); err == nil {
						t.Fatal("a head over its limit was accepted")
					}
					return r.Parse([]byte(row.in), big)
				}},
				{"again after another head", func(r *http1.Response) (int, error) {
					in := "HTTP/1.0 200 OK\nA: b\nConnection: a, close\nContent-Length: 07\nTransfer-Encoding: chunked\n\n"
					if _, err := r.Parse([]byte(in), big); err != nil || !r.Suspect {
						t.Fatal(err)
					}
					return r.Parse([]byte(row.in), big)
				}},
			} {
				r := new(http1.Response)
				n, err := way.parse(r)
				if accepted := row.body != (framing{}); (statusOf(t, err) == 0) != accepted {
					t.Fatalf("%s: %v", way.name, err)
				} else if accepted {
					checkResponse(t, way.name, r, row, n)
				}
			}
		})
	}
}

func checkResponse(t *testing.T, way string, r *http1.Response, row responseRow, n int) {
	t.Helper()
	if n != len(row.in) {
		t.Errorf("%s: the head ends at %d of %d", way, n, len(row.in))
	}
	if got := framingOf(r.Body(false)); got != row.body {
		t.Errorf("%s: the body is %v, want %v", way, got, row.body)
	}
	if got := framingOf(r.Body(true)); got != empty || r.HasBody(true) {
		t.Errorf("%s: the body of an answer to HEAD is %v", way, got)
	}
	if r.Suspect != row.suspect {
		t.Errorf("%s: Suspect is %v", way, r.Suspect)
	}
	want := row.out
	if want == "" {
		want = row.in
	}
	if got := string(emittedResponse(r)); got != want {
		t.Errorf("%s: it goes on as %q, want %q", way, got, want)
	}
}

func TestTheStatusIsRead(t *testing.T) {
	for in, want := range map[string]int{"HTTP/1.1 100 x\r\n\r\n": 100, "HTTP/1.1 207\r\n\r\n": 207, "HTTP/1.0 599 \r\n\r\n": 599} {
		if r := mustResponse(t, in); r.Status != want {
			t.Errorf("%q: %d", in, r.Status)
		}
	}
	if r := mustResponse(t, "HTTP/1.0 200 OK\r\n\r\n"); r.Minor != 0 {
		t.Errorf("HTTP/1.0 is read as 1.%d", r.Minor)
	}
}

func TestWhatIsNoResponseIsNotWaitedFor(t *testing.T) {
	for _, in := range []string{"S", "HTTP/x", "HTTP/\r", "HTTP ", "SSH-2.0-OpenSSH", "\x15\x03\x01", "\r\n", "\n", "http"} {
		if _, err := new(http1.Response).Parse([]byte(in), big); statusOf(t, err) == 0 {
			t.Errorf("%q was accepted", in)
		}
	}
}

func TestOversizedResponseHeads(t *testing.T) {
	in := answer("X: " + strings.Repeat("x", 50) + "\r\n")
	for _, parse := range []func(parser, []byte, int) (int, error){parser.Parse, slowly} {
		if n, err := parse(new(http1.Response), []byte(in+"more"), len(in)); n != len(in) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := parse(new(http1.Response), []byte(in+"more"), len(in)-1); statusOf(t, err) == 0 {
			t.Errorf("a head over its limit was accepted")
		}
	}
	if _, err := new(http1.Response).Parse([]byte(in[:50]), 50); statusOf(t, err) == 0 {
		t.Errorf("half a head that fills its limit is waited for")
	}
}

func TestKeepAliveHint(t *testing.T) {
	for value, want := range map[string][2]int64{
		"timeout=5, max=100":                  {5, 100},
		"max=100,timeout=5":                   {5, 100},
		"timeout=5":                           {5, -1},
		"max=0":                               {-1, 0},
		"Timeout = 5 , MAX\t=\t7":             {5, 7},
		"timeout=\"5\"":                       {5, -1},
		"timeout=5s, max=7":                   {5, 7},
		"timeout=5 s, max=7":                  {5, 7},
		"timeout=60sec":                       {60, -1},
		"timeout=2.5":                         {2, -1},
		"timeout=2.9s":                        {2, -1},
		"timeout=1500ms":                      {1, -1},
		"timeout=500MS, max=1":                {0, 1},
		"timeout=5m":                          {-1, -1},
		"timeout=5.5.5":                       {-1, -1},
		"timeout=.5":                          {-1, -1},
		"timeout=5; max=100":                  {5, 100},
		"timeout=5;max=100;":                  {5, 100},
		"timeout=5 max=100":                   {5, 100},
		"timeout\t=\t5\tmax = 100":            {5, 100},
		"=, =5, timeout=6":                    {6, -1},
		"timeout==5, max=1":                   {-1, 1},
		"timeout=5, max=7s":                   {5, -1},
		"timeout=5, max=+7":                   {5, -1},
		"timeout, 5, max=3":                   {-1, 3},
		"timeout=5\r\nKeep-Alive: max=3":      {5, 3},
		"timeout=5\r\nkeep-alive: timeout=3":  {3, -1},
		"max=1, max=2\r\nKeep-Alive: max=0":   {-1, 0},
		"timeout=0":                           {0, -1},
		"timeout=-1":                          {-1, -1},
		"timeout=":                            {-1, -1},
		"timeout":                             {-1, -1},
		"5":                                   {-1, -1},
		"":                                    {-1, -1},
		"timeout=99999999999999999999, max=2": {-1, 2},
		"x=1, timeout=3, timeout=4":           {3, -1},
	} {
		r := mustResponse(t, answer("Keep-Alive: "+value+"\r\n"))
		if timeout, max := r.KeepAliveHint(); timeout != want[0] || max != want[1] {
			t.Errorf("%q: %d, %d; want %v", value, timeout, max, want)
		}
	}
	r := mustResponse(t, answer(""))
	if timeout, max := r.KeepAliveHint(); timeout != -1 || max != -1 {
		t.Errorf("none: %d, %d", timeout, max)
	}
}

func TestR22_LengthAndCodingCanBeLeftOut(t *testing.T) {
	r := mustResponse(t, "HTTP/1.1 204 x\r\nA: 1\r\nContent-Length: 05\r\nB: 2\r\n\r\n")
	r.DropLength()
	if got, want := string(r.AppendFields(nil)), "A: 1\r\nB: 2\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = mustResponse(t, "HTTP/1.1 204 x\nA: 1\nTransfer-Encoding: chunked\nB: 2\n\n")
	r.Drop(1 << http1.TransferEncoding)
	if got, want := string(r.AppendFields(nil)), "A: 1\r\nB: 2\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
