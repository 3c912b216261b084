package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// What the framing of a request can get wrong. {h} is the upstream.
const post = "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\n"

var malformed = []struct {
	name    string
	request string
	status  []int
}{
	{"F1 Content-Length before Transfer-Encoding", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
	{"F1 Transfer-Encoding before Content-Length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", []int{400}},
	{"F2 empty", post + "Transfer-Encoding:\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 comma first", post + "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 doubled in one line", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 doubled in two lines", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 gzip", post + "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 gzip last", post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 identity", post + "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F2 parameter", post + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F3 folded before the value", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F3 folded behind the value", post + "Transfer-Encoding: chunked\r\n , x\r\n\r\n0\r\n\r\n", []int{400, 501}},
	{"F4 chunked in HTTP/1.0", "POST http://{h}/ HTTP/1.0\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
	{"F5 differing lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", []int{400}},
	{"F6 list of equal lengths", post + "Content-Length: 5, 5\r\n\r\nhello", []int{400}},
	{"F7 plus", post + "Content-Length: +1\r\n\r\nx", []int{400}},
	{"F7 minus", post + "Content-Length: -1\r\n\r\nx", []int{400}},
	{"F7 hexadecimal", post + "Content-Length: 0x1\r\n\r\nx", []int{400}},
	{"F7 underscore", post + "Content-Length: 1_0\r\n\r\n0123456789", []int{400}},
	{"F7 empty", post + "Content-Length:\r\n\r\nx", []int{400}},
	{"F7 2^63", post + "Content-Length: 9223372036854775808\r\n\r\nx", []int{400}},
	{"F7 2^64 and 5", post + "Content-Length: 18446744073709551621\r\n\r\nhello", []int{400}},
	{"F9 space before colon", post + "Content-Length : 5\r\n\r\nhello", []int{400}},
	{"F9 first line begins with space", "GET http://{h}/ HTTP/1.1\r\n Host: {h}\r\nHost: {h}\r\n\r\n", []int{400}},
	{"F10 folding", post + "X-A: b\r\n c\r\n\r\n", []int{400}},
	{"F11 bare LF everywhere", "GET http://{h}/ HTTP/1.1\nHost: {h}\n\n", []int{400}},
	{"F11 bare LF behind the request line", "GET http://{h}/ HTTP/1.1\nHost: {h}\r\n\r\n", []int{400}},
	{"F11 bare LF behind a field", "GET http://{h}/ HTTP/1.1\r\nHost: {h}\nX: y\r\n\r\n", []int{400}},
	{"F11 bare LF as the empty line", "GET http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\n", []int{400}},
	{"F12 bare CR", post + "X-A: b\rc\r\n\r\n", []int{400}},
	{"F12 NUL", post + "X-A: b\x00c\r\n\r\n", []int{400}},
	{"F12 control", post + "X-A: b\x01c\r\n\r\n", []int{400}},
	{"F12 DEL", post + "X-A: b\x7fc\r\n\r\n", []int{400}},
	{"F13 empty name", post + ": b\r\n\r\n", []int{400}},
	{"F13 no colon", post + "X-A\r\n\r\n", []int{400}},
	{"F13 byte of a name above 0x7f", post + "X-\x80: b\r\n\r\n", []int{400}},
	{"F14 bare LF behind the size", post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", []int{400}},
	{"F14 0x", post + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F14 leading space", post + "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F14 overflow", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F14 data overrun", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n", []int{400}},
	{"F15 CR in an extension", post + "Transfer-Encoding: chunked\r\n\r\n5;a=\rb\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F15 LF in an extension", post + "Transfer-Encoding: chunked\r\n\r\n5;a=\nb\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F15 endless extension", post + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n", []int{400}},
	{"F20 HTTP/0.9", "GET http://{h}/\r\n", []int{400, 505}},
	{"F20 HTTP/2.0", "GET http://{h}/ HTTP/2.0\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F20 HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400, 505}},
	{"F20 lower case", "GET http://{h}/ http/1.1\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F21 two spaces", "GET  http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F21 two spaces behind the target", "GET http://{h}/  HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F21 tab", "GET\thttp://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F21 space in the target", "GET http://{h}/a b HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400, 505}},
	{"F23 target", "GET http://{h}/" + strings.Repeat("a", 70<<10) + " HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{414}},
	{"F23 one field", post + "X-A: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", []int{431}},
	{"F23 many fields", post + strings.Repeat("X-A: b\r\n", 9000) + "\r\n", []int{431}},
	{"R2 no Host", "GET http://{h}/ HTTP/1.1\r\n\r\n", []int{400}},
	{"R2 two Hosts", "GET http://{h}/ HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R3 empty host", "GET http:///path HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R3 port alone", "GET http://:80/path HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 user information and no host", "GET http://user:secret@/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 a host, then none", "GET http://{h}@/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 a backslash before the at sign", "GET http://{h}\\@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 a backslash behind it", "GET http://u@{h}\\x/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 an encoded at sign", "GET http://u%40{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 a slash in the password", "GET http://u:p/w@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 in CONNECT", "CONNECT u:p@{h} HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R5 nothing but a fragment", "GET http://#{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R5 a fragment before the at sign", "GET http://127.1#@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R5 a fragment before a slash", "GET http://127.1#/@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 the host before the query", "GET http://127.1?@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 the host before the path", "GET http://127.1/@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R4 the last at sign counts", "GET http://{h}@127.1/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R24 origin-form", "GET /path HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
	{"R24 another scheme", "GET ftp://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", []int{400}},
}

// A malformed request is answered, the connection closes behind the answer,
// what follows is never taken for a request, and nothing goes upstream.
func TestMalformedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	for _, c := range malformed {
		t.Run(c.name, func(t *testing.T) {
			client := r.client()
			client.t = t
			smuggled := o.get("/smuggled")
			// The proxy may have closed its side before all is sent.
			_ = client.trySend(strings.ReplaceAll(c.request, "{h}", o.addr) + smuggled)
			client.refused(c.status...)
			if o.served(0); t.Failed() {
				t.FailNow()
			}
		})
	}
	if n := r.proxy.Stats().Refused; n != uint64(len(malformed)) {
		t.Errorf("%d refusals are counted, want %d", n, len(malformed))
	}
	if n := r.stats(o).Opened; n != 0 && !spoken("connect") {
		t.Errorf("%d connections were opened", n)
	}
}

// F14: the fault comes after the first part was passed on.
func TestMalformedChunkAfterAGoodOne(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]string{
		"F14 size":     "zz\r\nhello\r\n0\r\n\r\n",
		"F14 overrun":  "5\r\nhello!\r\n0\r\n\r\n",
		"F14 bare LF":  "5\nhello\r\n0\r\n\r\n",
		"F14 trailer":  "0\r\nno colon\r\n\r\n",
		"F14 overflow": "fffffffffffffffff\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			more := "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
			client.send(o.request("POST", "/", more))
			up := o.accept()
			up.want(o.forwarded("POST", "/", more))
			client.send(rest + o.get("/smuggled"))
			client.refused(400)
			if s, _ := up.rest(); strings.Contains(s, "0\r\n\r\n") || strings.Contains(s, "smuggled") {
				t.Errorf("the upstream got a whole request: %q", s)
			}
			r.free(o)
			o.served(1)
		})
	}
}

// F14: the fault comes after the answer has begun, so it can only be cut off.
func TestMalformedChunkAfterTheAnswerBegan(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	more := "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
	client.send(o.request("POST", "/", more))
	up := o.accept()
	up.want(o.forwarded("POST", "/", more))
	up.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
	client.want("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n")
	client.send("zz\r\n")
	client.cut()
	up.cut()
	r.free(o)
	o.served(1)
}

// Requests that look odd but say clearly where they end.
func TestOddRequestsAreFramedRightly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, request, arrives string }{
		{
			"F8 leading zero is decimal",
			post + "Content-Length: 010\r\n\r\n0123456789",
			"POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 10\r\n\r\n0123456789",
		}, {
			"F15 extensions are left out",
			post + "Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		}, {
			"F16 trailers are not merged",
			post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 5\r\nhost: evil\r\nX-T: v\r\n" +
				"TE: gzip\r\nAuthorization: evil\r\nTransfer-Encoding: gzip\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: v\r\n\r\n",
		}, {
			"F17 an underscore frames nothing",
			"GET http://{h}/ HTTP/1.1\r\nHost: {h}\r\nContent_Length: 5\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: {h}\r\nContent_Length: 5\r\n\r\n",
		}, {
			"F22 empty lines before the request",
			"\r\n\r\nGET http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: {h}\r\n\r\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			// The next request is right behind, so that its first byte would be missed.
			client.send(strings.ReplaceAll(c.request, "{h}", o.addr) + o.get("/next"))
			up := o.accept()
			up.want(strings.ReplaceAll(c.arrives, "{h}", o.addr))
			up.send(ok)
			client.want(ok)
			up.want(o.forwarded("GET", "/next", ""))
			up.send(ok)
			client.want(ok)
			o.served(1)
		})
	}
}

// P6c: what is odd in Connection names no field, and it cannot be told whether
// the client wants to go on.
func TestP6cOddConnectionOfARequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ lines, arrives string }{
		"P6c semicolon":        {"Connection: close;\r\n", ""},
		"P6c parameter":        {"Connection: keep-alive, timeout=5\r\n", ""},
		"P6c two words":        {"Connection: Keep-Alive close\r\n", ""},
		"P6c quoted":           {"Connection: \"close\"\r\n", ""},
		"P6c a field, oddly":   {"X-A: 1\r\nConnection: X-A;\r\n", "X-A: 1\r\n"},
		"P6c a field beside":   {"X-A: 1\r\nConnection: a b, x-a\r\n", ""},
		"P6c the length":       {"Content-Length: 2\r\nConnection: Content-Length;\r\n\r\nhi", "Content-Length: 2\r\n\r\nhi"},
		"P6c and an odd Proxy": {"Proxy-Connection: keep-alive;\r\nConnection: a=b\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.request("GET", "/", c.lines) + o.get("/not-looked-at"))
			up := o.accept()
			up.want(o.forwarded("GET", "/", c.arrives))
			up.send(ok)
			client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			client.end()
			o.exchange(r.client(), up) // the upstream's has nothing to do with it
		})
	}
}

// R4, R5: what does not belong into a target goes nowhere.
func TestUserInformationAndFragmentsAreCutOff(t *testing.T) {
	t.Parallel()
	notInside(t, "Host has to be the tunnel's")
	for name, c := range map[string]struct{ target, arrives string }{
		"R4 user":                  {"http://user@{h}/a", "/a"},
		"R4 user and password":     {"http://user:secret@{h}/a?b", "/a?b"},
		"R4 empty":                 {"http://@{h}/", "/"},
		"R4 no path":               {"http://user:secret@{h}", "/"},
		"R4 several at signs":      {"http://user@secret:80@{h}/", "/"},
		"R4 brackets":              {"http://[::1]:80@{h}/", "/"},
		"R4 encoded":               {"http://us%40er:sec%2Fret@{h}/", "/"},
		"R4 what no URI has":       {"http://us|er:\"sec^ret\"@{h}/", "/"},
		"R4 at sign in the path":   {"http://{h}/a@b", "/a@b"},
		"R4 at sign in the query":  {"http://{h}?a@b", "/?a@b"},
		"R4 both":                  {"http://user:secret@{h}/a@b?c@d", "/a@b?c@d"},
		"R5 fragment":              {"http://{h}/a?b#secret", "/a?b"},
		"R5 empty":                 {"http://{h}/a#", "/a"},
		"R5 behind the host":       {"http://{h}#secret", "/"},
		"R5 with all that ends it": {"http://{h}/a#/b?c@d#e", "/a"},
		"R5 behind the query":      {"http://{h}?a#secret", "/?a"},
		"R4 R5 together":           {"http://user:secret@{h}/#secret", "/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			target := strings.ReplaceAll(c.target, "{h}", o.addr)
			userinfo, _, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
			for _, host := range []string{o.addr, "other", userinfo} { // in the target's own way, too
				client.send("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			}
			up := o.accept()
			for n := range 3 {
				up.want(o.forwarded("GET", c.arrives, ""))
				up.send(ok)
				client.want(ok)
				if rec := r.logged(n + 1); rec.Origin != translated("http://"+o.addr) || rec.Path != strings.Split(c.arrives, "?")[0] {
					t.Errorf("logged as %+v", rec)
				}
			}
			o.served(1) // they are one origin
		})
	}
}

func TestR4TRACEShowsNoUserInformation(t *testing.T) {
	t.Parallel()
	client := start(t).client()
	client.send("TRACE HTTP://user:secret@host.test:81/a?b#secret HTTP/1.1\r\nHost: host.test\r\nMax-Forwards: 0\r\n\r\n")
	if _, _, body := client.reply(); !strings.HasPrefix(body, "TRACE HTTP://host.test:81/a?b HTTP/1.1\r\n") {
		t.Errorf("%q", body)
	}
}

func TestBodiesOnMethodsThatHaveNone(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"} {
		for _, more := range []string{
			"Content-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		} {
			framing, _, _ := strings.Cut(more, ":")
			t.Run("F18 "+method+" "+framing, func(t *testing.T) {
				t.Parallel()
				r, o := start(t), newOrigin(t)
				client := r.client()
				client.send(o.request(method, "/", more) + o.get("/next"))
				up := o.accept()
				up.want(o.forwarded(method, "/", more))
				head, want := ok, ok
				if method == "HEAD" {
					head, _, _ = strings.Cut(ok, "ok")
					want = head
				}
				up.send(head)
				client.want(want)
				up.want(o.forwarded("GET", "/next", ""))
				up.send(ok)
				client.want(ok)
			})
		}
	}
}

func TestF19PipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	notInside(t, "a tunnel leads to one upstream")
	r, a, b := start(t), newOrigin(t), newOrigin(t)
	client := r.client()
	put := "Content-Length: 3\r\n\r\nabc"
	client.send(a.get("/1") + b.request("PUT", "/2", put) + a.get("/3") + b.get("/4"))
	upA := a.accept()
	upA.want(a.forwarded("GET", "/1", ""))
	b.served(0) // one after the other
	upA.send(answer("one"))
	client.want(answer("one"))
	upB := b.accept()
	upB.want(b.forwarded("PUT", "/2", put))
	upB.send(answer("two"))
	upA.want(a.forwarded("GET", "/3", ""))
	upA.send(answer("three"))
	upB.want(b.forwarded("GET", "/4", ""))
	upB.send(answer("four"))
	client.want(answer("two") + answer("three") + answer("four"))
	a.served(1)
	b.served(1)
}

// A pipeline ends with the answer that closes, and what is behind it is lost,
// as it must be.
func TestF19NothingIsAnsweredBehindTheLastAnswer(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.request("GET", "/1", "Connection: close\r\n\r\n") + o.get("/2"))
	up := o.accept()
	up.want(o.forwarded("GET", "/1", ""))
	up.send(ok)
	client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	client.end()
	r.idle(o, 1)
	if n := r.stats(o).Closed[pool.StrayBytes]; n != 0 {
		t.Errorf("%d connections were closed", n)
	}
}

// F22: an empty line is no beginning of a request, so it sets no clock going.
func TestF22EmptyLinesBehindARequest(t *testing.T) {
	t.Parallel()
	r, o := start(t, func(s *settings) { s.proxy.ClientHeaderTimeout = 100 * time.Millisecond }), newOrigin(t)
	client := r.client()
	client.send(o.request("POST", "/", "Content-Length: 2\r\n\r\nhi") + "\r\n")
	up := o.accept()
	up.want(o.forwarded("POST", "/", "Content-Length: 2\r\n\r\nhi"))
	up.send(ok)
	client.want(ok)
	client.silence(300 * time.Millisecond)
	client.send("\r\n")
	client.silence(300 * time.Millisecond)
	o.exchange(client, up)
}

// R23 for the last answer of a pipeline: what is behind it and will never be
// read must not reset the connection.
func TestR23LastAnswerOfALongPipeline(t *testing.T) {
	t.Parallel()
	for range 5 {
		r, o := start(t), newOrigin(t)
		r.proxy.Drain()
		client := r.client()
		client.send(strings.Repeat(o.get("/"), 2000))
		up := o.accept()
		up.want(o.forwarded("GET", "/", ""))
		reply := answer(strings.Repeat("x", 1<<20))
		sent := make(chan error, 1)
		go func() { sent <- up.trySend(reply) }()
		r.logged(1) // all was passed on, and nothing of it read
		client.want(strings.Replace(reply, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		client.end()
		check(t, sent)
	}
}

// A head may come byte by byte, and a body in any pieces.
func TestRequestsArriveInPieces(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	more := "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-T: v\r\n\r\n"
	for _, b := range []byte(o.request("POST", "/pieces", more)) {
		client.send(string(b))
	}
	up := o.accept()
	up.want(o.forwarded("POST", "/pieces", strings.Replace(more, ";x=y", "", 1)))
	up.send(ok)
	client.want(ok)
	o.exchange(client, up)
}
