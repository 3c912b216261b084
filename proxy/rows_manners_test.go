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

// What servers do to kept connections that no answer has told of.

// late are bytes of an answer that come when it was taken for whole, or that
// belong to none.
var late = map[string]string{
	"an empty line":     "\r\n",
	"the last chunk":    "0\r\n\r\n",
	"the rest of a 204": "{}",
	"a page":            "<html>\r\n<body>\r\n\r\n",
}

func TestP24LateBytesBehindTheNextRequest(t *testing.T) {
	t.Parallel()
	for name, bytes := range late {
		for _, c := range []struct{ method, more string }{{"GET", ""}, {"PUT", "Content-Length: 5\r\n\r\nhello"}} {
			t.Run("P24 "+name+" "+c.method, func(t *testing.T) {
				t.Parallel()
				r, o, client, up := stale(t)
				client.send(o.request(c.method, "/", c.more))
				up.want(o.forwarded(c.method, "/", c.more))
				up.send(bytes)
				again := o.accept()
				again.want(o.forwarded(c.method, "/", c.more))
				again.send(ok)
				client.want(ok)
				up.cut()
				r.closedFor(o, pool.StrayBytes)
				if n := r.proxy.Stats().Retries; n != 1 {
					t.Errorf("%d retries are counted", n)
				}
				again.end() // nothing is kept of such an upstream for a while
				o.exchange(client, nil)
				o.served(3)
			})
		}
	}
}

// The answer that follows such bytes is not passed on either: the request may
// have been read as something else.
func TestP24LateBytesInFrontOfAnAnswer(t *testing.T) {
	t.Parallel()
	r, o, client, up := stale(t)
	client.send(o.get("/"))
	up.head()
	up.send("\r\n" + answer("whose?"))
	again := o.accept()
	again.head()
	again.send(ok)
	client.want(ok)
	up.cut()
	r.closedFor(o, pool.StrayBytes)
}

func TestP24LateBytesBehindWhatIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, bytes := range late {
		t.Run("P24 "+name, func(t *testing.T) {
			t.Parallel()
			r, o, client, up := stale(t)
			client.send(o.request("POST", "/", "Content-Length: 5\r\n\r\nhello"))
			up.head()
			up.want("hello")
			up.send(bytes)
			if _, body := client.problem(502); !strings.Contains(body, "not idempotent") {
				t.Errorf("the answer does not name the reason: %q", body)
			}
			up.cut()
			r.closedFor(o, pool.StrayBytes)
			o.served(1)
			o.exchange(client, nil).end()
		})
	}
}

// What is no answer on a new connection is no late one either.
func TestP24SuchBytesOnAFreshConnection(t *testing.T) {
	t.Parallel()
	for name, bytes := range late {
		t.Run("P24 "+name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.get("/"))
			up := o.accept()
			up.head()
			up.send(bytes)
			client.problem(502)
			r.closedFor(o, pool.BadAnswer)
			o.served(1)
		})
	}
}

// A 204 that announces a body may have one: it would come late.
func TestP24NoContentThatAnnouncesABody(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{"P24 R22 length": "Content-Length: 2", "P24 R22 chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.request("DELETE", "/", ""))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 204 No Content\r\n" + line + "\r\n\r\n")
			client.want("HTTP/1.1 204 No Content\r\n\r\n")
			notReused(r, o, client, up)
			r.closedFor(o, pool.BadAnswer)
		})
	}
}

// A whole answer that nobody asked for, in a segment of its own, looks like the
// answer to the request that is next on the connection. Once an upstream was
// seen to send one, no request gets a connection on which one could come.
func TestP24StrayAnswersReachNobodyOnceOneWasSeen(t *testing.T) {
	t.Parallel()
	r, o := start(t, func(s *settings) { s.pool.MaxConnsPerHost = 1 }), newOrigin(t)
	o.handle(func(up *wire) {
		for {
			head, err := tryHead(up)
			if err != nil {
				return
			}
			path := strings.Fields(head)[1]
			if up.trySend(answer(path)) != nil {
				return
			}
			if up.trySend(answer(path)) != nil {
				return
			}
		}
	})
	first := r.client()
	eventually(t, "a stray was seen", func() bool {
		first.send(o.get("/"))
		first.reply()
		return r.stats(o).Closed[pool.StrayBytes] > 0
	})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			c := r.client()
			for k := range 50 {
				path := fmt.Sprintf("/%d/%d", i, k)
				c.send(o.get(path))
				if status, _, body := c.reply(); status != 200 || body != path {
					t.Errorf("%s was answered %d %q", path, status, body)
					return
				}
			}
		})
	}
	clients.Wait()
}

const timeout408 = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"

func TestP25TimeoutOfAKeptConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, more, reply string
		reason              pool.Reason
	}{
		"P25 GET":            {"GET", "", timeout408, pool.ClosedOnReuse},
		"P25 PUT":            {"PUT", "Content-Length: 5\r\n\r\nhello", timeout408, pool.ClosedOnReuse},
		"P25 in HTTP/1.0":    {"GET", "", "HTTP/1.0 408 Request Time-out\r\nCache-Control: no-cache\r\n\r\n<html>", pool.ClosedOnReuse},
		"P25 without a word": {"GET", "", "HTTP/1.1 408 Request Timeout\r\n\r\n", pool.NotKept},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o, client, up := stale(t)
			client.send(o.request(c.method, "/", c.more))
			up.want(o.forwarded(c.method, "/", c.more))
			up.send(c.reply)
			again := o.accept()
			again.want(o.forwarded(c.method, "/", c.more))
			again.send(ok)
			client.want(ok)
			up.cut()
			r.closedFor(o, c.reason)
			o.exchange(client, again)
			if rec := r.logged(2); !rec.Retried || rec.Status != 200 {
				t.Errorf("logged as %+v", rec)
			}
		})
	}
}

// P25: it is passed on where it may be the answer, or where nothing else can be
// done; the idle limit is learned from it all the same.
func TestP25TimeoutThatIsPassedOn(t *testing.T) {
	t.Parallel()
	t.Run("P25 POST", func(t *testing.T) {
		t.Parallel()
		r, o, client, up := stale(t)
		client.send(o.request("POST", "/", "Content-Length: 5\r\n\r\nhello"))
		up.head()
		up.send(timeout408)
		client.want("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")
		r.closedFor(o, pool.ClosedOnReuse)
		o.served(1)
	})
	t.Run("P25 of a new connection", func(t *testing.T) {
		t.Parallel()
		notInside(t, "the connection was open before the request came")
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		up.send(timeout408)
		client.want("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")
		r.closedFor(o, pool.NotKept)
		o.served(1)
	})
	t.Run("P25 twice", func(t *testing.T) {
		t.Parallel()
		_, o, client, up := stale(t)
		client.send(o.get("/"))
		up.head()
		up.send(timeout408)
		again := o.accept()
		again.head()
		again.send(timeout408)
		client.want("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")
		o.served(2)
	})
	t.Run("P25 behind a 100", func(t *testing.T) {
		t.Parallel()
		_, o, client, up := stale(t)
		client.send(o.get("/"))
		up.head()
		up.send("HTTP/1.1 103 Early Hints\r\n\r\n" + timeout408)
		client.want("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate")
		o.served(1)
	})
}

// P25 while a body is on its way: what of it has come is sent again.
func TestP25TimeoutInTheMiddleOfABody(t *testing.T) {
	t.Parallel()
	_, o, client, up := stale(t)
	client.send(o.request("PUT", "/", "Content-Length: 10\r\n\r\nfirst"))
	up.want(o.forwarded("PUT", "/", "Content-Length: 10\r\n\r\nfirst"))
	up.send(timeout408)
	again := o.accept()
	again.want(o.forwarded("PUT", "/", "Content-Length: 10\r\n\r\nfirst"))
	client.send("other")
	again.want("other")
	again.send(ok)
	client.want(ok)
	o.served(2)
}

// The upstream closes after each answer, and its FIN is a little late. After a
// few closes no POST fails.
func TestP26ClosesAfterEveryAnswer(t *testing.T) {
	t.Parallel()
	for name, share := range map[string]int64{"P26 each": 1, "P26 one in ten": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			var posts, answers atomic.Int64
			o.handle(func(up *wire) {
				for {
					head, err := tryHead(up)
					if err != nil {
						return
					}
					if strings.HasPrefix(head, "POST") {
						posts.Add(1)
					}
					if up.trySend(ok) != nil {
						return
					}
					if answers.Add(1)%share == 0 {
						pause := time.NewTimer(time.Duration(answers.Load()%3) * time.Millisecond / 2)
						<-pause.C
						return
					}
				}
			})
			client := r.client()
			const total, learning = 400, 100
			failed := 0
			for i := range total {
				method := []string{"POST", "GET", "POST", "POST"}[i%4]
				client.send(o.request(method, "/", ""))
				switch status, head, _ := client.reply(); {
				case status == 200:
				case method == "POST" && i < learning:
					failed++
				default:
					t.Errorf("%s %d was answered %q", method, i, head)
				}
			}
			t.Logf("%d POSTs failed before it was learned, %d were carried out", failed, posts.Load())
		})
	}
}

func TestP29HandshakesTakeAFreshConnection(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*settings){
		"P29":              func(*settings) {},
		"P29 at the limit": func(s *settings) { s.pool.MaxConnsPerHost = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, o, client, _ := stale(t, limit)
			client.send(o.request("GET", "/", "Upgrade: websocket\r\nConnection: Upgrade\r\n"))
			up := o.accept()
			up.head()
			const switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
			up.send(switched)
			client.until("\r\n\r\n")
			client.send("ping")
			up.want("ping")
			o.served(2)
		})
	}
}
