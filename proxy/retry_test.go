package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// stale prepares a connection that was used once and is idle now.
func stale(t *testing.T, change ...func(*settings)) (r *rig, o *origin, client, up *wire) {
	t.Helper()
	r, o = start(t, change...), newOrigin(t)
	client = r.client()
	up = o.exchange(client, nil)
	r.idle(o, 1)
	return r, o, client, up
}

// How an upstream ends a connection just as a request comes.
var endings = map[string]func(*wire){
	"FIN": func(w *wire) { _ = w.Close() },
	"RST": (*wire).reset,
}

// A request that can be sent twice is, once, when the kept connection dies
// under it.
func TestRetryOnAFreshConnection(t *testing.T) {
	t.Parallel()
	most := 64 << 10 // of a body that is kept
	if spoken("rationed") {
		most = 3 << 10
	}
	for name, c := range map[string]struct{ method, more string }{
		"P15 GET":              {"GET", ""},
		"P15 HEAD":             {"HEAD", ""},
		"P15 OPTIONS":          {"OPTIONS", ""},
		"P15 TRACE":            {"TRACE", ""},
		"P16 DELETE":           {"DELETE", ""},
		"P16 PUT, no body":     {"PUT", "Content-Length: 0\r\n\r\n"},
		"P16 PUT, small body":  {"PUT", "Content-Length: 5\r\n\r\nhello"},
		"P16 PUT, chunks":      {"PUT", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"},
		"P16 PUT, all it can":  {"PUT", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", most, strings.Repeat("x", most))},
		"P28 GET, conditional": {"GET", "If-None-Match: \"a\"\r\nIf-Modified-Since: x\r\n"},
		"P28 PUT, not quite":   {"PUT", "X-If-Match: a\r\nIffy: b\r\nI: c\r\nContent-Length: 0\r\n\r\n"},
	} {
		for how, end := range endings {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				r, o, client, up := stale(t)
				client.send(o.request(c.method, "/", c.more))
				up.want(o.forwarded(c.method, "/", c.more))
				end(up)
				again := o.accept()
				again.want(o.forwarded(c.method, "/", c.more))
				reply := ok
				if c.method == "HEAD" {
					reply = strings.TrimSuffix(ok, "ok")
				}
				again.send(reply)
				client.want(reply)
				o.exchange(client, again)
				o.served(2)
				if n := r.proxy.Stats().Retries; n != 1 {
					t.Errorf("%d retries are counted", n)
				}
				if rec := r.logged(2); !rec.Retried || rec.Status != 200 {
					t.Errorf("logged as %+v", rec)
				}
			})
		}
	}
}

// P16: the connection dies when a part of the body has come, and the rest
// goes over the fresh one.
func TestRetryInTheMiddleOfABody(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][2]string{
		"P16 length": {"Content-Length: 10\r\n\r\nfirst", "other"},
		"P16 chunks": {"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", "5\r\nother\r\n0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, o, client, up := stale(t)
			client.send(o.request("PUT", "/", parts[0]))
			up.want(o.forwarded("PUT", "/", parts[0]))
			up.reset()
			again := o.accept()
			again.want(o.forwarded("PUT", "/", parts[0]))
			client.send(parts[1] + o.get("/next"))
			again.want(parts[1])
			again.send(ok)
			client.want(ok)
			again.want(o.forwarded("GET", "/next", ""))
			again.send(ok)
			client.want(ok)
			o.served(2)
		})
	}
}

// What must not be sent twice is answered 502, and the upstream has got it
// once at most.
func TestNoRetry(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 65537)
	for name, c := range map[string]struct{ method, more, says string }{
		"P17 POST":                        {"POST", "Content-Length: 5\r\n\r\nhello", "not idempotent"},
		"P17 POST, no body":               {"POST", "Content-Length: 0\r\n\r\n", "not idempotent"},
		"P17 PATCH":                       {"PATCH", "Content-Length: 5\r\n\r\nhello", "not idempotent"},
		"P17 unknown method":              {"PURGE", "", "not idempotent"},
		"P17 method in lower case":        {"get", "", "not idempotent"},
		"P17 key without the option":      {"POST", "Idempotency-Key: 1\r\nContent-Length: 5\r\n\r\nhello", "not idempotent"},
		"P16 PUT with too long a body":    {"PUT", "Content-Length: 65537\r\n\r\n" + big, ""},
		"P16 PUT with too many chunks":    {"PUT", "Transfer-Encoding: chunked\r\n\r\n10001\r\n" + big + "\r\n0\r\n\r\n", ""},
		"P16 PUT, long, with a key":       {"PUT", "Idempotency-Key: 1\r\nContent-Length: 65537\r\n\r\n" + big, ""},
		"P28 PUT with If-Match":           {"PUT", "If-Match: \"a\"\r\nContent-Length: 5\r\n\r\nhello", "conditional"},
		"P28 PUT with If-None-Match":      {"PUT", "if-none-match: *\r\nContent-Length: 0\r\n\r\n", "conditional"},
		"P28 DELETE with a date":          {"DELETE", "IF-UNMODIFIED-SINCE: Thu, 20 Nov 2026 10:00:00 GMT\r\n", "conditional"},
		"P28 DELETE with WebDAV's If":     {"DELETE", "If: (<urn:uuid:1>)\r\n", "conditional"},
		"P28 PUT with CalDAV's":           {"PUT", "If-Schedule-Tag-Match: \"a\"\r\nContent-Length: 0\r\n\r\n", "conditional"},
		"P28 PUT with a condition, keyed": {"PUT", "If-Match: *\r\nIdempotency-Key: 1\r\nContent-Length: 0\r\n\r\n", "conditional"},
		"P17 POST of which half is sent":  {"POST", "Content-Length: 10\r\n\r\nhello", "not idempotent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o, client, up := stale(t)
			client.send(o.request(c.method, "/", c.more))
			up.want(o.forwarded(c.method, "/", c.more))
			_ = up.Close()
			_, body := client.problem(502)
			if !strings.Contains(body, c.says) {
				t.Errorf("the answer does not name the reason: %q", body)
			}
			o.served(1)
			if n := r.proxy.Stats().Retries; n != 0 {
				t.Errorf("%d retries are counted", n)
			}
		})
	}
}

// P18: what is dead before a byte was written never gets the request.
func TestP18DeadBeforeTheRequest(t *testing.T) {
	t.Parallel()
	for how, end := range endings {
		t.Run("P18 "+how, func(t *testing.T) {
			t.Parallel()
			_, o, client, up := stale(t)
			for i := range 20 {
				end(up)
				more := fmt.Sprintf("X-Nr: %d\r\nContent-Length: 5\r\n\r\nhello", i)
				client.send(o.request("POST", "/", more))
				up = o.accept()
				up.want(o.forwarded("POST", "/", more))
				up.send(ok)
				client.want(ok)
			}
			o.served(21)
		})
	}
}

func TestP19FreshConnectionDies(t *testing.T) {
	t.Parallel()
	for how, end := range endings {
		for _, method := range []string{"GET", "POST"} {
			t.Run("P19 "+method+" "+how, func(t *testing.T) {
				t.Parallel()
				if method == "GET" {
					notInside(t, "the connection was open before the request came")
				}
				r, o := start(t), newOrigin(t)
				client := r.client()
				client.send(o.request(method, "/", ""))
				up := o.accept()
				up.head()
				end(up)
				client.problem(502)
				o.served(1)
				o.exchange(client, nil)
			})
		}
	}
}

func TestRetryHappensOnce(t *testing.T) {
	t.Parallel()
	r, o, client, up := stale(t)
	client.send(o.get("/"))
	up.head()
	_ = up.Close()
	again := o.accept()
	again.head()
	_ = again.Close()
	client.problem(502)
	o.served(2)
	if n := r.proxy.Stats().Retries; n != 1 {
		t.Errorf("%d retries are counted", n)
	}
	o.exchange(client, nil)
}

// The retry does not take another kept connection, which may be as dead.
func TestRetryTakesNoKeptConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t, oneConnection), newOrigin(t)
	a, b := r.client(), r.client()
	a.send(o.get("/a"))
	upA := o.accept()
	upA.head()
	upB := o.exchange(b, nil)
	upA.send(ok)
	a.want(ok)
	r.idle(o, 2) // upA was used last
	a.send(o.get("/again"))
	upA.head()
	_ = upA.Close()
	fresh := o.accept()
	fresh.want(o.forwarded("GET", "/again", ""))
	fresh.send(ok)
	a.want(ok)
	o.served(3)
	_ = upB
}

// Where there is room for one connection only, the dead one makes room.
func TestRetryWithinTheLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*settings){
		"one connection to a host": func(s *settings) { s.pool.MaxConnsPerHost = 1 },
		"one connection in all":    func(s *settings) { s.pool.MaxConns = 1 },
		"no place to wait":         func(s *settings) { s.pool.MaxConnsPerHost, s.pool.MaxPendingPerHost = 1, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, o, client, up := stale(t, limit)
			client.send(o.get("/"))
			up.head()
			_ = up.Close()
			up = o.accept()
			up.head()
			up.send(ok)
			client.want(ok)
			o.exchange(client, up)
			o.served(2)
		})
	}
}

// Not after a byte of an answer, be it a 1xx.
func TestNoRetryOnceAnAnswerHasBegun(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"one byte":     "H",
		"half a head":  "HTTP/1.1 200 OK\r\nX-A",
		"early hints":  "HTTP/1.1 103 Early Hints\r\n\r\n",
		"100 and half": "HTTP/1.1 100 Continue\r\n\r\nHTTP",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o, client, up := stale(t)
			client.send(o.get("/"))
			up.head()
			up.send(begin)
			_ = up.Close()
			if i := strings.Index(begin, "\r\n\r\n"); i >= 0 {
				client.want(begin[:i+4])
			}
			client.problem(502)
			o.served(1)
			r.free(o)
		})
	}
}

// Not after one of the proxy's own timeouts.
func TestNoRetryAfterATimeout(t *testing.T) {
	t.Parallel()
	r, o, client, up := stale(t, func(s *settings) { s.proxy.ResponseHeaderTimeout = 600 * time.Millisecond })
	client.send(o.get("/"))
	up.head()
	client.problem(504)
	up.end()
	r.closedFor(o, pool.TimedOut)
	o.served(1)
}

func TestIdempotencyKeyAllowsTheRetry(t *testing.T) {
	t.Parallel()
	keyed := func(s *settings) { s.proxy.RetryIdempotencyKey = true }
	t.Run("with a key", func(t *testing.T) {
		t.Parallel()
		_, o, client, up := stale(t, keyed)
		more := "Idempotency-Key: \"abc\"\r\nContent-Length: 5\r\n\r\nhello"
		client.send(o.request("POST", "/", more))
		up.want(o.forwarded("POST", "/", more))
		_ = up.Close()
		up = o.accept()
		up.want(o.forwarded("POST", "/", more))
		up.send(ok)
		client.want(ok)
		o.served(2)
	})
	t.Run("without", func(t *testing.T) {
		t.Parallel()
		_, o, client, up := stale(t, keyed)
		client.send(o.request("POST", "/", "Content-Length: 5\r\n\r\nhello"))
		up.head()
		_ = up.Close()
		client.problem(502)
		o.served(1)
	})
}

// P28: a key that does not arrive, or says nothing, keeps no upstream from
// carrying a request out twice.
func TestP28UselessIdempotencyKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ lines, arrives string }{
		"P28 empty":                 {"Idempotency-Key:\r\n", "Idempotency-Key:\r\n"},
		"P28 blank":                 {"Idempotency-Key: \t\r\n", "Idempotency-Key: \t\r\n"},
		"P28 quotes":                {"Idempotency-Key: \"\"\r\n", "Idempotency-Key: \"\"\r\n"},
		"P28 one of two":            {"Idempotency-Key: a\r\nIdempotency-Key:\r\n", "Idempotency-Key: a\r\nIdempotency-Key:\r\n"},
		"P28 named by Connection":   {"Idempotency-Key: a\r\nConnection: idempotency-key\r\n", ""},
		"P28 and named before it":   {"Connection: keep-alive, Idempotency-Key\r\nIdempotency-Key: a\r\n", ""},
		"P28 named with other ones": {"Connection: X\r\nIdempotency-Key: a\r\nConnection: Idempotency-Key\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, o, client, up := stale(t, func(s *settings) { s.proxy.RetryIdempotencyKey = true })
			const body = "Content-Length: 5\r\n\r\nhello"
			client.send(o.request("POST", "/", c.lines+body))
			up.want(o.forwarded("POST", "/", c.arrives+body))
			_ = up.Close()
			client.problem(502)
			o.served(1)
		})
	}
}

// Under constant closing by the upstream every POST is carried out at most
// once, and every GET is answered.
func TestP17CountsAtAnUpstreamThatCloses(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	seen := make(chan string, 10_000)
	o.handle(func(up *wire) {
		for n := 0; n < 3; n++ { // closes without a word after three
			head, err := tryHead(up)
			if err != nil {
				return
			}
			seen <- strings.Fields(head)[1]
			if up.trySend(ok) != nil {
				return
			}
		}
	})
	client := r.client()
	failed := 0
	const total = 300
	for i := range total {
		method := []string{"GET", "POST"}[i%2]
		client.send(o.request(method, fmt.Sprint("/", i), ""))
		switch status, _, _ := client.reply(); {
		case status == 200:
		case status == 502 && method == "POST":
			failed++
		default:
			t.Fatalf("%s was answered %d", method, status)
		}
	}
	count := map[string]int{}
	for len(seen) > 0 {
		count[<-seen]++
	}
	for i := range total {
		if n := count[fmt.Sprint("/", i)]; i%2 == 1 && n > 1 {
			t.Errorf("POST %d arrived %d times", i, n)
		}
	}
	t.Logf("%d of %d POSTs failed, %d GETs were retried", failed, total/2, r.proxy.Stats().Retries)
}
