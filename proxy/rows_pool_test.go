package proxy_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// notReused has a client do a second request and checks that it goes over
// another connection than up, which is over.
func notReused(r *rig, o *origin, client, up *wire) {
	r.t.Helper()
	o.exchange(client, nil)
	up.cut()
	o.served(2)
}

func TestP1TwoAnswersInOneWrite(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send(ok + answer("not asked for"))
	client.want(ok)
	notReused(r, o, client, up)
	r.closedFor(o, pool.StrayBytes)
}

// The second answer comes when the connection is idle (P2), or between the
// pieces of the first.
func TestP2BytesOnAnIdleConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	up := o.exchange(client, nil)
	r.idle(o, 1)
	up.send(answer("not asked for"))
	notReused(r, o, client, up)
	r.closedFor(o, pool.StrayBytes)
}

// P1 under load: every answer names its request, and some come twice.
func TestP1AnswersAreNeverMixedUp(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	o.handle(func(up *wire) {
		for n := 0; ; n++ {
			head, err := tryHead(up)
			if err != nil {
				return
			}
			path := strings.Fields(head)[1]
			reply := answer(path)
			if n%5 == 4 {
				reply += answer(path)
			}
			if up.trySend(reply) != nil {
				return
			}
		}
	})
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			c := r.client()
			for k := range 60 {
				path := fmt.Sprintf("/%d/%d", i, k)
				if err := c.trySend(o.get(path)); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				if status, _, body := c.reply(); status != 200 || body != path {
					t.Errorf("%s was answered %d %q", path, status, body)
					return
				}
			}
		})
	}
	clients.Wait()
}

// tryHead reads a head for as long as the peer is there.
func tryHead(w *wire) (string, error) {
	for {
		if head, rest, ok := strings.Cut(string(w.in), "\r\n\r\n"); ok {
			w.in = []byte(rest)
			return head, nil
		}
		if err := w.fill(); err != nil {
			return "", err
		}
	}
}

func TestP3EarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"P3 with a length":     fmt.Sprintf("Content-Length: %d\r\n\r\nbegin", 10<<20),
		"P3 in chunks":         "Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
		"P3 no byte yet":       "Content-Length: 5\r\n\r\n",
		"P3 with many at once": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 10<<20, strings.Repeat("x", 60<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.request("POST", "/", more))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
			client.want("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			_, _ = up.rest() // what was sent of the body, and the end
			r.closedFor(o, pool.EarlyAnswer)
			// R23: what the client still sends does not reset the connection.
			client.send(strings.Repeat("x", 100<<10))
			client.end()
			o.exchange(r.client(), nil)
		})
	}
}

// P3 when the pieces of the body and the answer cross, with a limit on silence
// that must not hold the answer up.
func TestP3EarlyAnswersThatCross(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.proxy.BodyIdleTimeout = time.Hour; s.proxy.ResponseHeaderTimeout = time.Hour })
	o := newOrigin(t)
	const reply = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n"
	for range 100 {
		client := r.client()
		client.send(o.request("POST", "/", "Content-Length: 1000000\r\n\r\n"))
		up := o.accept()
		up.head()
		crossing := make(chan struct{})
		go func() {
			defer close(crossing)
			for range 20 {
				_ = client.trySend("a few bytes")
			}
		}()
		up.send(reply + "\r\nbig")
		client.want(reply + "Connection: close\r\n\r\nbig")
		<-crossing
		_, _ = client.Close(), up.Close()
	}
	r.free(o)
	if n := r.stats(o).Closed[pool.EarlyAnswer]; n != 100 {
		t.Errorf("%d of 100 connections were closed as they should", n)
	}
}

// A client that sends without end is cut off (R23: 256 KiB, or a second).
func TestR23LingeringHasAnEnd(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.request("POST", "/", fmt.Sprintf("Content-Length: %d\r\n\r\n", 1<<40)))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
	client.want("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	part := strings.Repeat("x", 64<<10)
	sent := 0
	for client.trySend(part) == nil {
		if sent += len(part); sent > 64<<20 {
			t.Fatal("the proxy goes on reading for ever")
		}
	}
}

// R23 for an answer of the proxy's own: it arrives although the rest of the
// request is still on its way.
func TestR23ErrorWhileTheBodyIsUnread(t *testing.T) {
	t.Parallel()
	r := start(t)
	client := r.client()
	client.send("POST /not-for-a-proxy HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
	client.send(strings.Repeat("x", 50_000))
	client.send(strings.Repeat("x", 50_000))
	client.refused(400)
}

func TestP4ClientAborts(t *testing.T) {
	t.Parallel()
	t.Run("P4 mid-upload", func(t *testing.T) {
		t.Parallel()
		for name, leave := range map[string]func(*wire){"FIN": func(w *wire) { _ = w.Close() }, "RST": (*wire).reset} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r, o := start(t), newOrigin(t)
				client := r.client()
				more := "Content-Length: 100\r\n\r\nhalf"
				client.send(o.request("POST", "/", more))
				up := o.accept()
				up.want(o.forwarded("POST", "/", more))
				leave(client)
				up.cut()
				r.free(o)
				r.closedFor(o, pool.ClientGone)
				if rec := r.logged(1); rec.Status != 499 || rec.Error != "client_gone" {
					t.Errorf("logged as %+v", rec)
				}
				o.served(1)
			})
		}
	})
	t.Run("P4 mid-download", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		client.head()
		client.reset()
		part := strings.Repeat("x", 64<<10)
		for up.trySend(part) == nil {
		}
		r.free(o)
		r.closedFor(o, pool.ClientGone)
		if rec := r.logged(1); rec.Error != "client_gone" {
			t.Errorf("logged as %+v", rec)
		}
	})
}

func TestP23ClientLeavesWhileTheUpstreamThinks(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*wire){"FIN": func(w *wire) { _ = w.Close() }, "RST": (*wire).reset} {
		for when, begin := range map[string]string{"head": "", "body": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"} {
			t.Run("P23 "+name+" before the "+when, func(t *testing.T) {
				t.Parallel()
				r, o := start(t), newOrigin(t)
				client := r.client()
				client.send(o.get("/"))
				up := o.accept()
				up.head()
				up.send(begin)
				client.want(begin)
				leave(client)
				up.end()
				r.free(o)
				r.closedFor(o, pool.ClientGone)
				r.idle(o, 0)
			})
		}
	}
	t.Run("P23 behind pipelined bytes", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.get("/1") + o.get("/2"))
		up := o.accept()
		up.want(o.forwarded("GET", "/1", ""))
		client.send(o.get("/3")) // stays unread
		_ = client.Close()
		up.end()
		r.closedFor(o, pool.ClientGone)
		o.served(1)
	})
}

func TestP5BodyWhereThereIsNone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ method, head string }{
		"P5 HEAD": {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		"P5 204":  {"GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		"P5 304":  {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.request(c.method, "/", ""))
			up := o.accept()
			up.head()
			up.send(c.head + "hello")
			client.want(c.head)
			notReused(r, o, client, up)
		})
	}
}

func TestP6InvalidAnswers(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"length minus":             "Content-Length: -1\r\n",
		"length hexadecimal":       "Content-Length: 0x5\r\n",
		"length empty":             "Content-Length:\r\n",
		"lengths differ":           "Content-Length: 5\r\nContent-Length: 6\r\n",
		"length list":              "Content-Length: 5, 6\r\n",
		"length too large":         "Content-Length: 9223372036854775808\r\n",
		"NUL":                      "X-A: b\x00c\r\nContent-Length: 5\r\n",
		"CR":                       "X-A: b\rc\r\nContent-Length: 5\r\n",
		"no colon, but a length":   "Content-Length 5\r\nContent-Length: 5\r\n",
		"blank in a length's name": "Content Length: 5\r\nContent-Length: 5\r\n",
		"coding gzip":              "Transfer-Encoding: gzip\r\n",
		"coding gzip and chunked":  "Transfer-Encoding: gzip, chunked\r\n",
		"coding twice in a list":   "Transfer-Encoding: chunked, chunked\r\n",
		"coding identity as well":  "Transfer-Encoding: identity, chunked\r\n",
		"coding empty":             "Transfer-Encoding:\r\n",
		"coding with a comma":      "Transfer-Encoding: ,chunked\r\n",
		"chunk size":               "Transfer-Encoding: chunked\r\n\r\nzz",
		"head too large":           "X-A: " + strings.Repeat("a", 80<<10) + "\r\n",
	} {
		t.Run("P6 "+name, func(t *testing.T) {
			t.Parallel()
			invalid(t, "HTTP/1.1 200 OK\r\n"+head+"\r\nhello")
		})
	}
	for _, line := range []string{"HTTP/1.10 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 OK", "ICY 200 OK", "HTTP/1.1 200OK", "\x15\x03\x03\x00\x02\x02\x16"} {
		t.Run("P6 status line "+line, func(t *testing.T) {
			t.Parallel()
			invalid(t, line+"\r\nContent-Length: 5\r\n\r\nhello")
		})
	}
}

// invalid checks what is made of an answer that is not HTTP.
func invalid(t *testing.T, reply string) {
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	_ = up.trySend(reply)
	client.problem(502)
	up.cut()
	r.closedFor(o, pool.BadAnswer)
	o.exchange(client, nil) // the client's connection is not to blame
}

func TestP7AnswerWithLengthAndCoding(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	client.want("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	notReused(r, o, client, up)
}

func TestP9TruncatedBodies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ reply, seen string }{
		"P9 length":      {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "half"},
		"P9 chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf", "a\r\nhalf"},
		"P9 chunk ends":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "4\r\nhalf\r\n"},
		"P9 no last end": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", "4\r\nhalf\r\n0\r\n"},
		"P9 bad chunk":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", "4\r\nhalf\r\n"},
		"P9 no byte":     {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""},
	} {
		for _, version := range []string{"1.1", "1.0"} {
			t.Run(name+" to "+version, func(t *testing.T) {
				t.Parallel()
				truncated(t, version, c.reply, c.seen)
			})
		}
	}
}

func truncated(t *testing.T, version, reply, seen string) {
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send("GET http://" + o.addr + "/ HTTP/" + version + "\r\nHost: " + o.addr + "\r\n\r\n")
	up := o.accept()
	up.head()
	up.send(reply)
	_ = up.Close()
	head := client.head()
	body, err := client.rest()
	switch {
	case version == "1.0" && strings.Contains(reply, "chunked"):
		// Only a reset tells this from a body that ends.
		if !isReset(err) {
			t.Errorf("the client sees a whole body, %q, %v", body, err)
		}
	case body != seen || err != nil && !isReset(err):
		t.Errorf("got %q %q, %v, want %q", head, body, err, seen)
	}
	r.free(o)
	r.idle(o, 0)
	if rec := r.logged(1); rec.Error != "http_response_incomplete" {
		t.Errorf("logged as %+v", rec)
	}
}

func TestP10BodyThatEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\n\r\npiece")
	client.want("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npiece")
	up.send(" by piece")
	_ = up.Close()
	client.want(" by piece")
	client.end()
	r.closedFor(o, pool.NotKept)
	r.idle(o, 0)
}

// X8 for such a body: the end of it must not look like its end.
func TestP9ResetInsteadOfTheEnd(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\n\r\npiece")
	client.want("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npiece")
	up.reset()
	if s, err := client.rest(); !isReset(err) {
		t.Errorf("the client sees the end: %q, %v", s, err)
	}
}

func TestP20ConnectionsThatAuthenticateStayWithTheirClient(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"NTLM", "Negotiate"} {
		t.Run("P20 "+scheme, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			alice, bob := r.client(), r.client()
			alice.send(o.get("/"))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: " + scheme + "\r\nContent-Length: 0\r\n\r\n")
			alice.head()
			for _, token := range []string{"one", "two"} {
				alice.send(o.request("GET", "/", "Authorization: "+scheme+" "+token+"\r\n"))
				up.want(o.forwarded("GET", "/", "Authorization: "+scheme+" "+token+"\r\n"))
				up.send(ok)
				alice.want(ok)
			}
			// The connection is Alice's now, so her requests need no credentials.
			o.exchange(alice, up)
			other := o.exchange(bob, nil)
			o.exchange(alice, up)
			o.exchange(bob, other)
			_ = alice.Close()
			up.end()
			r.closedFor(o, pool.Pinned)
			r.free(o)
		})
	}
}

// A pinned connection that has died does not keep its client from others.
func TestP20PinnedConnectionDies(t *testing.T) {
	t.Parallel()
	notInside(t, "a tunnel leads to one upstream")
	r, o := start(t), newOrigin(t)
	client := r.client()
	auth := "Authorization: Negotiate abc\r\n"
	client.send(o.request("GET", "/", auth))
	up := o.accept()
	up.head()
	up.send(ok)
	client.want(ok)
	_ = up.Close()
	client.send(o.request("POST", "/", auth))
	up = o.accept()
	up.want(o.forwarded("POST", "/", auth))
	up.send(ok)
	client.want(ok)
	// Another origin takes the session's attention; the first one is let go.
	other := newOrigin(t)
	other.exchange(client, nil)
	up.end()
	r.free(o)
}

// P30: what belongs to one client ends as others' connections do, though the
// client is still there, and the client finds another.
func TestP30PinnedConnectionsEndAsOthersDo(t *testing.T) {
	t.Parallel()
	auth := "Authorization: NTLM abc\r\n"
	for name, c := range map[string]struct {
		change func(*settings)
		end    func(r *rig, o *origin, up *wire)
		reason pool.Reason
	}{
		"idle time": {func(s *settings) { s.pool.IdleTimeout = 100 * time.Millisecond }, nil, pool.IdleTimeout},
		"hang-up":   {nil, func(_ *rig, _ *origin, up *wire) { _ = up.Close() }, pool.UpstreamClosed},
		"memory":    {nil, func(r *rig, _ *origin, _ *wire) { r.pool.CloseIdle(0) }, pool.Evicted},
		"budget": {func(s *settings) { s.pool.MaxConns = 1 }, func(r *rig, o *origin, _ *wire) {
			newOrigin(r.t).exchange(r.client(), nil)
		}, pool.Evicted},
	} {
		t.Run("P30 "+name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t, func(s *settings) {
				if c.change != nil {
					c.change(s)
				}
			}), newOrigin(t)
			client := r.client()
			client.send(o.request("GET", "/", auth))
			up := o.accept()
			up.head()
			up.send(ok)
			client.want(ok)
			if c.end != nil {
				r.idle(o, 1)
				c.end(r, o, up)
			}
			r.closedFor(o, c.reason)
			client.send(o.request("GET", "/", auth))
			again := o.accept()
			again.want(o.forwarded("GET", "/", auth))
			again.send(ok)
			client.want(ok)
		})
	}
}

func TestP21BoundedWaiting(t *testing.T) {
	t.Parallel()
	one := func(s *settings) { s.pool.MaxConnsPerHost = 1 }
	t.Run("P21 first come first served", func(t *testing.T) {
		t.Parallel()
		notInside(t, "CONNECT is what waits")
		r, o := start(t, one), newOrigin(t)
		a, b, c := r.client(), r.client(), r.client()
		a.send(o.get("/a"))
		up := o.accept()
		up.want(o.forwarded("GET", "/a", ""))
		b.send(o.get("/b"))
		r.waiting(o, 1)
		c.send(o.get("/c"))
		r.waiting(o, 2)
		up.send(answer("a"))
		up.want(o.forwarded("GET", "/b", ""))
		up.send(answer("b"))
		up.want(o.forwarded("GET", "/c", ""))
		up.send(answer("c"))
		a.want(answer("a"))
		b.want(answer("b"))
		c.want(answer("c"))
		o.served(1)
	})
	t.Run("P21 too many wait", func(t *testing.T) {
		t.Parallel()
		notInside(t, "CONNECT is what waits")
		r, o := start(t, one, func(s *settings) { s.pool.MaxPendingPerHost = 0 }), newOrigin(t)
		a, b := r.client(), r.client()
		a.send(o.get("/a"))
		up := o.accept()
		up.head()
		b.send(o.get("/b"))
		b.problem(503)
		up.send(ok)
		a.want(ok)
		o.exchange(b, up)
	})
	t.Run("P21 waited too long", func(t *testing.T) {
		t.Parallel()
		notInside(t, "CONNECT is what waits")
		r, o := start(t, one, func(s *settings) { s.pool.PendingTimeout = 50 * time.Millisecond }), newOrigin(t)
		a, b := r.client(), r.client()
		a.send(o.get("/a"))
		up := o.accept()
		up.head()
		b.send(o.get("/b"))
		b.problem(503)
		up.send(ok)
		a.want(ok)
		o.exchange(b, up)
	})
	t.Run("P21 who leaves frees its place", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, one), newOrigin(t)
		a, b, c := r.client(), r.client(), r.client()
		a.send(o.get("/a"))
		up := o.accept()
		up.head()
		b.send(o.get("/b"))
		r.waiting(o, 1)
		_ = b.Close()
		r.waiting(o, 0)
		c.send(o.get("/c"))
		up.send(ok)
		up.want(o.forwarded("GET", "/c", ""))
		up.send(ok)
		c.want(ok)
	})
}

// waiting waits until n requests wait for a connection to o.
func (r *rig) waiting(o *origin, n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d requests wait", n), func() bool { return r.stats(o).Waiting == n })
}

// Every kind of exchange at once, over few connections: whatever happens to
// one, nobody gets another's answer, and in the end nothing is lost.
func TestExchangesOfAllKindsAtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.pool.MaxConnsPerHost = 4; s.proxy.BodyIdleTimeout = patience })
	o := newOrigin(t)
	o.handle(erratic)
	var clients sync.WaitGroup
	var good atomic.Int64
	for i := range 12 {
		clients.Go(func() {
			for k := range 40 {
				if whimsical(t, r, o, i, k) {
					good.Add(1)
				}
			}
		})
	}
	clients.Wait()
	r.free(o)
	if n := good.Load(); n < 100 {
		t.Errorf("only %d of 480 exchanges went well", n)
	}
}

// erratic is an upstream that does what the path says, and names it.
func erratic(up *wire) {
	for {
		head, err := tryHead(up)
		if err != nil {
			return
		}
		path := strings.Fields(head)[1]
		switch {
		case strings.HasPrefix(path, "/early/"):
			_ = up.trySend(answer(path))
			return
		case strings.HasPrefix(path, "/die/"):
			return
		case strings.HasPrefix(path, "/half/"):
			_ = up.trySend("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + path)
			return
		case strings.HasPrefix(path, "/stray/"):
			_ = up.trySend(answer(path) + answer("stray"))
		case strings.HasPrefix(path, "/put/"):
			for len(up.in) < 100<<10 {
				if up.fill() != nil {
					return
				}
			}
			up.in = up.in[100<<10:]
			_ = up.trySend(answer(path))
		default:
			_ = up.trySend(answer(path))
		}
	}
}

// whimsical does one exchange on a connection of its own and reports whether
// there was a whole answer.
func whimsical(t *testing.T, r *rig, o *origin, i, k int) bool {
	c := r.client()
	defer c.Close()
	path, whole := whim(c, o, i, k)
	if whole && string(c.in) != path {
		t.Errorf("%s was answered %q", path, c.in)
	}
	return whole
}

// whim does an exchange of some kind, and leaves the body of the answer in c.in.
func whim(c *wire, o *origin, i, k int) (path string, whole bool) {
	kinds := []string{"/get/", "/early/", "/die/", "/half/", "/stray/", "/put/", "/get/", "/leave/"}
	path = fmt.Sprintf("%s%d/%d", kinds[(i+k)%len(kinds)], i, k)
	request := o.get(path)
	if strings.HasPrefix(path, "/early/") || strings.HasPrefix(path, "/put/") {
		request = o.request("PUT", path, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 100<<10, strings.Repeat("x", 100<<10)))
	}
	_ = c.trySend(request)
	if strings.HasPrefix(path, "/leave/") {
		return path, false
	}
	head, err := tryHead(c)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200") || strings.HasPrefix(path, "/half/") {
		return path, false
	}
	for len(c.in) < len(path) {
		if c.fill() != nil {
			return path, false
		}
	}
	return path, true
}

// P11: what an upstream says of its connection is believed.
func TestP11WhatTheUpstreamDoesNotKeep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		head string
		kept int
	}{
		"Connection: close":               {"HTTP/1.1 200 OK\r\nConnection: close\r\n", 0},
		"close among others":              {"HTTP/1.1 200 OK\r\nConnection: x-a, Close\r\n", 0},
		"HTTP/1.0":                        {"HTTP/1.0 200 OK\r\n", 0},
		"HTTP/1.0, keep-alive agreed on":  {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", 1},
		"HTTP/1.1 with nothing said":      {"HTTP/1.1 200 OK\r\n", 1},
		"HTTP/1.1 with keep-alive, close": {"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.get("/"))
			up := o.accept()
			up.want(o.forwarded("GET", "/", ""))
			up.send(c.head + "Content-Length: 2\r\n\r\nok")
			client.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			eventually(t, "the connection is given back", func() bool { s := r.stats(o); return s.InUse == 0 && s.Idle == c.kept })
		})
	}
}
