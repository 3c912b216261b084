package proxy_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// A passage is one request and one answer, as sent and as they have to arrive.
// {h} is the upstream. An empty "arrives" or "seen" means unchanged.
type passage struct {
	name             string
	request, arrives string
	answer, seen     string
}

func (p passage) run(t *testing.T, change ...func(*settings)) {
	t.Helper()
	r, o := start(t, change...), newOrigin(t)
	in := func(s string) string { return strings.ReplaceAll(s, "{h}", o.addr) }
	if p.arrives == "" {
		p.arrives = strings.Replace(p.request, "http://{h}", "", 1)
	}
	if p.answer == "" {
		p.answer = ok
	}
	if p.seen == "" {
		p.seen = p.answer
	}
	client := r.client()
	client.send(in(p.request))
	up := o.accept()
	up.want(in(p.arrives))
	up.send(in(p.answer))
	client.want(in(p.seen))
	// Neither side got a byte more.
	o.exchange(client, up)
}

const (
	getLine = "GET http://{h}/ HTTP/1.1\r\nHost: {h}\r\n"
	gotLine = "GET / HTTP/1.1\r\nHost: {h}\r\n"
)

func TestHeadsAreForwarded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 15<<10/16)
	for _, p := range []passage{
		{
			name:    "R1 Host is made from the target",
			request: "GET http://{h}/a HTTP/1.1\r\nX: y\r\nHost: evil.example\r\nZ: z\r\n\r\n",
			arrives: "GET /a HTTP/1.1\r\nHost: {h}\r\nX: y\r\nZ: z\r\n\r\n",
		}, {
			name:    "R1 a Host that Connection names",
			request: "GET http://{h}/a HTTP/1.1\r\nConnection: Host\r\nHost: {h}\r\n\r\n",
			arrives: "GET /a HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R7 OPTIONS with an empty path",
			request: "OPTIONS http://{h} HTTP/1.1\r\nHost: {h}\r\n\r\n",
			arrives: "OPTIONS * HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R7 OPTIONS with a path",
			request: "OPTIONS http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R7 GET with an empty path",
			request: "GET http://{h} HTTP/1.1\r\nHost: {h}\r\n\r\n",
			arrives: "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R7 a query behind the authority",
			request: "GET http://{h}?a=b HTTP/1.1\r\nHost: {h}\r\n\r\n",
			arrives: "GET /?a=b HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R8 Max-Forwards counts down",
			request: "OPTIONS http://{h}/ HTTP/1.1\r\nHost: {h}\r\nMax-Forwards: 10\r\n\r\n",
			arrives: "OPTIONS / HTTP/1.1\r\nHost: {h}\r\nMax-Forwards: 9\r\n\r\n",
		}, {
			name:    "R8 Max-Forwards means nothing to GET",
			request: getLine + "Max-Forwards: 0\r\n\r\n",
		}, {
			name: "R10 hop-by-hop fields of a request",
			request: getLine + "Connection: X-Hop, keep-alive , x-other\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n" +
				"Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Other: 2\r\nX-Stays: 3\r\nx-hop: 4\r\n\r\n",
			arrives: gotLine + "X-Stays: 3\r\n\r\n",
		}, {
			name:    "R10 framing cannot be nominated away",
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\nConnection: Content-Length, Transfer-Encoding\r\nContent-Length: 2\r\n\r\nhi",
			arrives: "POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 2\r\n\r\nhi",
		}, {
			name:   "R11 hop-by-hop fields of a response",
			answer: "HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: 1\r\nKeep-Alive: timeout=50\r\nProxy-Connection: keep-alive\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
			seen:   "HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok", request: getLine + "\r\n",
		}, {
			name:    "R12 whose credentials they are",
			request: getLine + "Proxy-Authorization: Basic c2VjcmV0\r\nAuthorization: Basic dXNlcg==\r\nCookie: a=b\r\n\r\n",
			arrives: gotLine + "Authorization: Basic dXNlcg==\r\nCookie: a=b\r\n\r\n",
		}, {
			name:    "R13 order, repeats and letter case",
			request: "GET http://{h}/ HTTP/1.1\r\nx-b: 1\r\nhOsT: {h}\r\nX-a:2\r\nX-B:   3  \r\nX-Empty:\r\nX-UTF: \xc3\xa9\xff\r\n\r\n",
			answer:  "HTTP/1.1 200 Very Fine\r\nsEt-cookie: a=b\r\nX-z: 1\r\nSet-Cookie: c=d\r\nx-Z:2\r\nX-Latin: \xe9\r\ncontent-LENGTH: 2\r\n\r\nok",
		}, {
			name:    "R14 nothing is added",
			request: getLine + "\r\n", answer: "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
		}, {
			name:    "R14 Accept-Encoding is passed on",
			request: getLine + "Accept-Encoding: gzip;q=0.5, br\r\nUser-Agent:\r\n\r\n",
		}, {
			name: "R15 trailers of a request, and that they are wanted",
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\nTE: deflate;q=0.5, trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n" +
				"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
			arrives: "POST / HTTP/1.1\r\nHost: {h}\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n" +
				"2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
			answer: "HTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Back: 43\r\nx-more: 44\r\n\r\n",
		}, {
			name: "R15 a trailer line longer than a small buffer, both ways",
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\nX-Long: " +
				long + "\r\n\r\n",
			answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\nX-Long: " + long + "\r\n\r\n",
		}, {
			name:    "R13 heads longer than a small buffer, both ways",
			request: getLine + "X-Long: " + long + "\r\n\r\n",
			answer:  "HTTP/1.1 200 OK\r\nX-Long: " + long + "\r\nContent-Length: 2\r\n\r\nok",
		}, {
			name:    "R16 informational answers",
			request: getLine + "\r\n",
			answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-A\r\nX-A: b\r\n\r\n" +
				"HTTP/1.1 102 Processing\r\n\r\n" + ok,
			seen: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok,
		}, {
			name:    "R10 an Upgrade with a body in chunks",
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
			arrives: "POST / HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		}, {
			name:    "R10 an Upgrade with a long body",
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537),
			arrives: "POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537),
		}, {
			name:    "C12 an upgrade that is required",
			request: getLine + "\r\n",
			answer:  "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade, X-A\r\nX-A: b\r\nContent-Length: 2\r\n\r\nno",
			seen:    "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, HTTP/1.1\r\nContent-Length: 2\r\nConnection: Upgrade\r\n\r\nno",
		}, {
			name:    "C12 an upgrade that is required, without saying to what",
			request: getLine + "\r\n", answer: "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
		}, {
			name:    "R10 an upgrade that is offered",
			request: getLine + "\r\n",
			answer:  "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
			seen:    ok,
		}, {
			name:    "R10 an Upgrade to HTTP/2 among others",
			request: getLine + "Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: bar, h2c\r\n\r\n",
			arrives: gotLine + "\r\n",
		}, {
			name:    "R21 no Date, no reason, other minor version",
			request: getLine + "\r\n", answer: "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", seen: "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
		}, {
			name:    "R21 a version of its own in the request line",
			request: "GET http://{h}/ HTTP/1.9\r\nHost: {h}\r\n\r\n", arrives: "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n",
		}, {
			name:    "R22 no length in 1xx and 204",
			request: getLine + "\r\n",
			answer:  "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
			seen:    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		}, {
			name:    "R22 no Transfer-Encoding in 1xx", // nor in 204, which P24 shows
			request: getLine + "\r\n",
			answer:  "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + ok,
			seen:    "HTTP/1.1 103 Early Hints\r\n\r\n" + ok,
		}, {
			name:    "R22 304 keeps its length",
			request: getLine + "\r\n", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nVary: *\r\n\r\n",
		}, {
			name:    "R22 the answer to HEAD keeps its length",
			request: "HEAD http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nContent-Length: 123456\r\n\r\n",
		}, {
			name:    "R22 the answer to HEAD keeps its coding",
			request: "HEAD http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		}, {
			name:    "S8 a redirect is passed on",
			request: getLine + "\r\n", answer: "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
		}, {
			name:    "P8 folding and spaces before a colon are put right",
			request: getLine + "\r\n",
			answer:  "HTTP/1.1 200 OK\r\nX-A: b\r\n  c\r\nX-B : d\r\nContent-Length: 2\r\n\r\nok",
			seen:    "HTTP/1.1 200 OK\r\nX-A: b    c\r\nX-B: d\r\nContent-Length: 2\r\n\r\nok",
		},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(p.request, "evil.example") {
				notInside(t, "Host has to be the tunnel's")
			}
			p.run(t)
		})
	}
}

// A 200 to an Upgrade is an ordinary answer; but the upstream may still wait for
// the other protocol on that connection.
func TestR19ADeclinedUpgradeEndsItsConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	c := r.client()
	c.send(o.request("GET", "/", "Connection: Upgrade\r\nUpgrade: websocket\r\n"))
	up := o.accept()
	up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	up.send(ok)
	c.want(ok)
	up.end()
	o.exchange(c, nil)
}

func TestC12AnUpgradeIsRequiredOfAClientThatLeaves(t *testing.T) {
	t.Parallel()
	for request, connection := range map[string]string{
		"HTTP/1.1\r\nConnection: close\r\n":      "close, Upgrade",
		"HTTP/1.0\r\n":                           "close, Upgrade",
		"HTTP/1.0\r\nConnection: keep-alive\r\n": "keep-alive, Upgrade",
	} {
		r, o := start(t), newOrigin(t)
		c := r.client()
		c.send("GET http://" + o.addr + "/ " + request + "Host: " + o.addr + "\r\n\r\n")
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 426 x\r\nUpgrade: foo\r\nContent-Length: 0\r\n\r\n")
		c.want("HTTP/1.1 426 x\r\nUpgrade: foo\r\nContent-Length: 0\r\nConnection: " + connection + "\r\n\r\n")
	}
}

// Some clients take a 205 for an answer without a body, so nothing follows one
// that has one.
func TestP5ResetContentWithABodyIsTheLastAnswer(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	c := r.client()
	c.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok")
	c.want("HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	c.end()
	o.exchange(r.client(), up)
}

func TestR6TargetsStayByteIdentical(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/%zz", "/%", "/a;b", "/a|b", "/\xff", "//x//y", "/a/../b/./c", "/?q=%00&r=a+b", "/?", "/\"{}<>\\^`", "/?a=http://b/", "/a@b:c", "/*",
	} {
		t.Run("R6 "+path, func(t *testing.T) {
			t.Parallel()
			passage{request: "GET http://{h}" + path + " HTTP/1.1\r\nHost: {h}\r\n\r\n"}.run(t)
		})
	}
}

func TestR14CompressedBodiesAreNotTouched(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, strings.Repeat("compressed ", 1000))
	_ = z.Close()
	passage{
		request: getLine + "Accept-Encoding: gzip\r\n\r\n",
		answer:  strings.Replace(answer(b.String()), "\r\n", "\r\nContent-Encoding: gzip\r\n", 1),
	}.run(t)
}

func TestR8AnswersWhereMaxForwardsEnds(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.request("TRACE", "/x?y", "Max-Forwards: 0\r\nX-A: b\r\nAuthorization: secret\r\nCookie: secret\r\nProxy-Authorization: secret\r\n"))
	status, head, body := client.reply()
	if status != 200 || field(head, "Content-Type") != "message/http" {
		t.Errorf("TRACE is answered %q", head)
	}
	if !strings.HasPrefix(body, "TRACE "+scheme()+"://"+o.addr+"/x?y HTTP/1.1\r\n") || !strings.Contains(body, "X-A: b\r\n") {
		t.Errorf("the request does not come back: %q", body)
	}
	if strings.Contains(body, "secret") {
		t.Errorf("TRACE tells a secret: %q", body)
	}
	client.send(o.request("OPTIONS", "/", "Max-Forwards: 0\r\n"))
	if status, head, body := client.reply(); status != 200 || field(head, "Allow") == "" || body != "" {
		t.Errorf("OPTIONS is answered %q %q", head, body)
	}
	o.served(0)
	o.exchange(client, nil)
}

func TestR9Via(t *testing.T) {
	t.Parallel()
	via := func(s *settings) { s.proxy.Via = true }
	passage{
		request: getLine + "Via: 1.1 other\r\n\r\n", answer: ok,
		arrives: gotLine + "Via: 1.1 other\r\n\r\n", seen: ok,
	}.run(t)
	r, o := start(t, via), newOrigin(t)
	client := r.client()
	client.send("GET http://" + o.addr + "/ HTTP/1.0\r\nVia: 1.1 other\r\nConnection: keep-alive\r\n\r\n")
	up := o.accept()
	up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\nVia: 1.1 other\r\nVia: 1.0 carpool\r\n\r\n")
	up.send(ok)
	client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 carpool\r\nConnection: keep-alive\r\n\r\nok")
	client.send(o.get("/"))
	up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\nVia: 1.1 carpool\r\n\r\n")
	up.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
	client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.0 carpool\r\n\r\nok")
}

func TestR11AnswerThatCloses(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nConnection: X-A, close\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")
	client.want(ok) // the client's connection goes on
	up.end()
	r.closedFor(o, pool.NotKept)
	o.exchange(client, nil)
}

func TestR16InformationalAnswersAreNotForHTTP10(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send("GET http://" + o.addr + "/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
	up := o.accept()
	up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	up.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok)
	client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	client.end()
}

func TestR17Expect(t *testing.T) {
	t.Parallel()
	const expect = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	t.Run("R17 the upstream refuses", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", expect))
		up := o.accept()
		up.want(o.forwarded("POST", "/", expect))
		up.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		client.want("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		client.end()
		up.cut() // it may still wait for the body
		r.closedFor(o, pool.EarlyAnswer)
	})
	t.Run("R17 the upstream wants it", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", expect))
		up := o.accept()
		up.want(o.forwarded("POST", "/", expect))
		up.send("HTTP/1.1 100 Continue\r\n\r\n")
		client.want("HTTP/1.1 100 Continue\r\n\r\n")
		client.send("hello")
		up.want("hello")
		up.send(ok)
		client.want(ok)
		o.exchange(client, up)
	})
	t.Run("R17 the client does not wait", func(t *testing.T) {
		t.Parallel()
		passage{
			request: "POST http://{h}/ HTTP/1.1\r\nHost: {h}\r\n" + expect + "hello",
			answer:  "HTTP/1.1 100 Continue\r\n\r\n" + ok,
		}.run(t)
	})
}

func TestR18UpgradeFromHTTP10IsIgnored(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send("GET http://" + o.addr + "/ HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	up := o.accept()
	up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	up.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	client.refused(502)
	up.cut()
}

func TestR19UnsolicitedSwitch(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes")
	client.problem(502)
	up.cut()
	r.closedFor(o, pool.BadAnswer)
	o.exchange(client, nil)
}

func TestR20ClientsOfHTTP10(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, more, answer, seen string }{
		{"R20 chunks are taken off", "", "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nX-T: v\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde"},
		{"R20 chunks cannot be kept alive", "Connection: keep-alive\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab"},
		{"R20 closed unless asked", "", ok, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send("GET http://" + o.addr + "/ HTTP/1.0\r\n" + c.more + "\r\n")
			up := o.accept()
			up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
			up.send(c.answer)
			client.want(c.seen)
			client.end()
			r.idle(o, 1) // which is no reason to close the upstream's
		})
	}
	for _, ask := range []string{"Connection: Keep-Alive\r\n", "Proxy-Connection: keep-alive\r\n"} {
		t.Run("R20 kept alive by "+ask[:4], func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send("GET http://" + o.addr + "/ HTTP/1.0\r\n" + ask + "\r\n")
			up := o.accept()
			up.want("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
			up.send(ok)
			client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok")
			o.exchange(client, up)
		})
	}
}

func TestR21AnswersOfHTTP10(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
	client.want(ok)
	up.end() // it did not agree to be kept
	client.send(o.get("/"))
	up = o.accept()
	up.head()
	up.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
	client.want(ok)
	o.exchange(client, up)
}

// X25: a long line at the end of a body that comes in pieces finds no room in a
// small buffer that holds its beginning. Until it has ended nothing of it is
// passed on, and what was passed on before is no whole message.
func TestR15ALongTrailerInPieces(t *testing.T) {
	t.Parallel()
	const begin = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
	long := strings.Repeat("0123456789abcdef", 15<<10/16)
	pieces := []string{"0\r\nX-Long: ", long[:3000], long[3000:5000], long[5000:], "\r\n", "\r\n"}
	r, o := start(t), newOrigin(t)
	client := r.client()
	for range 2 { // the second time on kept connections
		client.send(o.request("PUT", "/", begin))
		up := o.accept()
		up.want(o.forwarded("PUT", "/", begin))
		for _, p := range pieces {
			client.send(p)
		}
		up.want(strings.Join(pieces, ""))
		up.send("HTTP/1.1 200 OK\r\n" + begin)
		client.want("HTTP/1.1 200 OK\r\n" + begin)
		for _, p := range pieces {
			up.send(p)
		}
		client.want(strings.Join(pieces, ""))
		o.conns <- up.Conn
	}
	o.served(1)
}

// A trailer section has a bound, whatever the size of the buffers.
func TestF16ATrailerThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	const begin = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
	endless := "0\r\nX-Long: " + strings.Repeat("x", 20<<10)
	t.Run("F16 of a request", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", begin))
		up := o.accept()
		up.want(o.forwarded("POST", "/", begin))
		client.send(endless)
		if body := client.refused(400); !strings.Contains(body, "trailer") {
			t.Errorf("the refusal says %q", body)
		}
		if s, _ := up.rest(); strings.Contains(s, "\r\n\r\n") {
			t.Errorf("the upstream got a whole request: %q", s)
		}
	})
	t.Run("F16 of an answer", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 200 OK\r\n" + begin)
		client.want("HTTP/1.1 200 OK\r\n" + begin)
		_ = up.trySend(endless)
		client.want("0\r\n") // and not the empty line that ends it
		client.cut()
		up.cut()
		r.closedFor(o, pool.BadAnswer)
	})
}

// No answer to HEAD has a body, the proxy's own included.
func TestHEADIsRefusedWithoutABody(t *testing.T) {
	t.Parallel()
	notInside(t, "CONNECT is what is refused")
	r := start(t)
	for target, status := range map[string]string{
		"http://#fragment": "400", "http://u@/": "400", "http://u@169.254.169.254/#x": "403", "http:///": "400", "/": "400", "http://127.1/": "400",
		"http://169.254.169.254/": "403", "http://" + testkit.Refused(t).String() + "/": "502",
	} {
		client := r.client()
		client.send("HEAD " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if head := client.head(); !strings.HasPrefix(head, "HTTP/1.1 "+status) || field(head, "Content-Length") == "" {
			t.Errorf("HEAD %s is answered %q", target, head)
		}
		client.end()
	}
}

func TestR24AProxyIsNotAWebServer(t *testing.T) {
	t.Parallel()
	r := start(t)
	client := r.client()
	client.send("GET /index.html HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n")
	body := client.refused(400)
	if !strings.Contains(body, "this is a proxy") || !strings.Contains(body, "HTTP_PROXY") {
		t.Errorf("the answer does not say what to do: %q", body)
	}
}
