package proxy_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

func TestX6StallBeforeTheHead(t *testing.T) {
	t.Parallel()
	limit := func(s *settings) { s.proxy.ResponseHeaderTimeout = 600 * time.Millisecond }
	for name, begin := range map[string]string{"X6 nothing": "", "X6 half a head": "HTTP/1.1 200 OK\r\nX-A:", "X6 after a 103": "HTTP/1.1 103 Early Hints\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t, limit), newOrigin(t)
			client := r.client()
			client.send(o.request("POST", "/", "Content-Length: 5\r\n\r\nhello"))
			up := o.accept()
			up.head()
			up.want("hello")
			up.send(begin)
			if strings.HasSuffix(begin, "\r\n\r\n") {
				client.want(begin)
			}
			client.problem(504)
			up.end()
			r.closedFor(o, pool.TimedOut)
			o.exchange(client, nil) // the request was whole, so the client goes on
		})
	}
	t.Run("X6 counts from the end of the request", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", "Content-Length: 10\r\n\r\nfirst"))
		up := o.accept()
		up.head()
		up.want("first")
		up.silence(900 * time.Millisecond)
		client.send("other")
		up.want("other")
		client.problem(504)
		up.end()
	})
	t.Run("X6 does not bound the body", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		client.head()
		up.silence(900 * time.Millisecond)
		up.send("ok")
		client.want("ok")
		o.exchange(client, up)
		up.silence(900 * time.Millisecond) // nor does it lie in wait in the pool
		o.exchange(client, up)
	})
	t.Run("X6 does not bound a body that began before the request was whole", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", "Content-Length: 10\r\n\r\nfirst"))
		up := o.accept()
		up.head()
		up.want("first")
		up.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
		client.take(len("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfirst"))
		client.send("other")
		up.want("other")
		up.silence(900 * time.Millisecond)
		up.send("other")
		client.want("other")
	})
}

// silence checks that nothing comes, and no end, for a while.
func (w *wire) silence(d time.Duration) {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	if n, err := w.Read(b[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("%s got %q, %v, want silence", w.name, b[:n], err)
	}
}

func TestX7StallInABody(t *testing.T) {
	t.Parallel()
	limit := func(s *settings) { s.proxy.BodyIdleTimeout = 100 * time.Millisecond }
	t.Run("X7 of a response", func(t *testing.T) {
		t.Parallel()
		for _, framing := range []string{"Content-Length: 10", "Transfer-Encoding: chunked", "X: until close"} {
			r, o := start(t, limit), newOrigin(t)
			client := r.client()
			client.send(o.get("/"))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 200 OK\r\n" + framing + "\r\n\r\n5\r\n")
			client.head()
			client.want("5\r\n")
			if s, err := client.rest(); s != "" || strings.HasPrefix(framing, "X") && !isReset(err) {
				t.Errorf("%s: the client got %q, %v", framing, s, err)
			}
			up.cut()
			r.closedFor(o, pool.TimedOut)
			if rec := r.logged(1); rec.Error != "http_response_timeout" {
				t.Errorf("logged as %+v", rec)
			}
		}
	})
	t.Run("X7 of a request", func(t *testing.T) {
		t.Parallel()
		for range 5 {
			r, o := start(t, limit), newOrigin(t)
			client := r.client()
			client.send(o.request("PUT", "/", "Content-Length: 10\r\n\r\nhalf"))
			up := o.accept()
			client.refused(408)
			_, _ = up.rest()
			r.free(o)
			o.served(1)
		}
	})
	t.Run("X7 of a client that does not read", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		part := strings.Repeat("x", 64<<10)
		for up.trySend(part) == nil {
		}
		r.free(o)
	})
	t.Run("X7 of an upstream that does not read", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		client.send(o.request("PUT", "/", "Content-Length: 1000000000\r\n\r\n"))
		go func() {
			for part := strings.Repeat("x", 64<<10); client.trySend(part) == nil; {
			}
		}()
		up := o.accept()
		up.head()
		client.refused(504)
		r.closedFor(o, pool.TimedOut)
	})
	t.Run("X7 an exchange that moves is not bounded", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, limit), newOrigin(t)
		client := r.client()
		up := o.exchange(client, nil)
		client.silence(300 * time.Millisecond) // nor is an idle connection
		o.exchange(client, up)
	})
}

func TestX8ResetInABody(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		r, o := start(t), newOrigin(t)
		client := r.client()
		up := o.exchange(client, nil)
		client.send(o.get("/"))
		up.head()
		up.send("HTTP/1.1 200 OK\r\n" + framing + "\r\n\r\n5\r\n")
		client.head()
		client.want("5\r\n")
		up.reset()
		client.cut()
		r.free(o)
		o.served(1)
		if n := r.proxy.Stats().Retries; n != 0 {
			t.Errorf("%d retries are counted", n)
		}
	}
}

func TestX10SlowClients(t *testing.T) {
	t.Parallel()
	limit := func(s *settings) { s.proxy.ClientHeaderTimeout = 200 * time.Millisecond }
	t.Run("X10 a head that does not end", func(t *testing.T) {
		t.Parallel()
		r := start(t, limit)
		client := r.client()
		client.send("GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n")
		client.refused(408)
	})
	t.Run("X10 a head byte by byte", func(t *testing.T) {
		t.Parallel()
		r := start(t, limit)
		client := r.client()
		done := make(chan struct{})
		client.send("GET http://127.0.0.1/ HTTP/1.1\r\n")
		go func() {
			defer close(done)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if client.trySend("X: y\r\n") != nil {
					return
				}
			}
		}()
		client.problem(408)
		_, _ = client.rest()
		_ = client.Close()
		<-done
	})
	t.Run("X10 a client that is idle", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, func(s *settings) { s.proxy.ClientIdleTimeout = 200 * time.Millisecond }), newOrigin(t)
		client := r.client()
		client.send(o.get("/"))
		up := o.accept()
		up.head()
		client.silence(400 * time.Millisecond) // who waits for an answer is not idle
		up.send(ok)
		client.want(ok)
		client.end()
	})
}

// X11: what the client does not read is not read from the upstream either.
func TestX11SlowReader(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	r, o := start(t), newOrigin(t)
	client := r.client()
	_ = client.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	client.send(o.get("/"))
	up := o.accept()
	up.head()
	up.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
	client.head()
	source, sum := newNoise(size), sha256.New()
	stuck, left := pushUntilStuck(t, up, io.TeeReader(source, sum))
	if stuck > 64<<20 { // the kernel itself holds up to 40 MiB
		t.Errorf("the upstream was rid of %d bytes that nobody reads", stuck)
	}
	finished := make(chan error, 1)
	go func() {
		_ = up.SetWriteDeadline(time.Now().Add(patience))
		_, err := io.Copy(onlyWriter{up}, io.MultiReader(strings.NewReader(left), io.TeeReader(source, sum)))
		finished <- err
	}()
	got := sha256.New()
	if err := client.drain(got, size); err != nil {
		t.Fatal(err)
	}
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if string(got.Sum(nil)) != string(sum.Sum(nil)) {
		t.Error("what arrived is not what was sent")
	}
	o.exchange(client, up)
}

// pushUntilStuck writes until that blocks. It returns how much went, and what
// of r did not.
func pushUntilStuck(t *testing.T, w *wire, r io.Reader) (total int, left string) {
	part := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, part)
		if err != nil {
			t.Fatalf("all %d bytes were taken", total)
		}
		for p := part[:n]; len(p) > 0; {
			_ = w.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			k, err := w.Write(p)
			total += k
			if p = p[k:]; err == nil {
				continue
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return total, string(p)
		}
	}
}

// noise is a reproducible body.
type noise struct {
	left int
	*rand.ChaCha8
}

func newNoise(n int) *noise { return &noise{n, rand.NewChaCha8([32]byte{byte(n)})} }

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), n.left)]
	n.left -= len(p)
	return n.ChaCha8.Read(p)
}

// onlyWriter hides that a connection can do more.
type onlyWriter struct{ io.Writer }

// drain reads n bytes into dst.
func (w *wire) drain(dst io.Writer, n int) error {
	for n > 0 {
		if len(w.in) == 0 {
			if err := w.fill(); err != nil {
				return err
			}
		}
		k := min(n, len(w.in))
		_, _ = dst.Write(w.in[:k])
		w.in, n = w.in[k:], n-k
		if len(w.in) == 0 {
			w.in = nil
		}
	}
	return nil
}

// X12: large bodies both ways.
func TestX12LargeBodies(t *testing.T) {
	t.Parallel()
	const size = 12 << 20
	t.Run("X12 lengths", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		var up *wire
		for i := range 2 {
			client.send(o.request("POST", "/", fmt.Sprintf("Content-Length: %d\r\n\r\n", size)))
			copied := push(client, newNoise(size))
			if i == 0 {
				up = o.accept()
			}
			up.head()
			up.same(newNoise(size), size)
			check(t, copied)
			up.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
			copied = push(up, newNoise(size))
			client.head()
			client.same(newNoise(size), size)
			check(t, copied)
		}
		o.exchange(client, up)
	})
	t.Run("X12 chunks", func(t *testing.T) {
		t.Parallel()
		body := chunks(size)
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", "Transfer-Encoding: chunked\r\n\r\n"))
		copied := push(client, strings.NewReader(body))
		up := o.accept()
		up.head()
		up.same(strings.NewReader(body), len(body))
		check(t, copied)
		up.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		copied = push(up, strings.NewReader(body))
		client.head()
		client.same(strings.NewReader(body), len(body))
		check(t, copied)
		o.exchange(client, up)
	})
	t.Run("X12 both ways at once", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", fmt.Sprintf("Content-Length: %d\r\n\r\n", size)))
		up := o.accept()
		up.head()
		up.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
		client.head()
		sent := push(client, newNoise(size))
		echoed := push(up, io.LimitReader(onlyReader{up}, size))
		client.same(newNoise(size), size)
		check(t, sent)
		check(t, echoed)
	})
	t.Run("X12 in a tunnel", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		sent := push(client, newNoise(size))
		echoed := push(up, io.LimitReader(onlyReader{up}, size))
		client.same(newNoise(size), size)
		check(t, sent)
		check(t, echoed)
	})
}

// chunks returns a chunked body with chunks of all sizes.
func chunks(size int) string {
	var b strings.Builder
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Len() < size {
		n := 1 + rng.IntN(100_000)
		if rng.IntN(3) == 0 {
			n = 1 + rng.IntN(20)
		}
		fmt.Fprintf(&b, "%x\r\n", n)
		_, _ = io.CopyN(&b, newNoise(n), int64(n))
		b.WriteString("\r\n")
	}
	return b.String() + "0\r\nX-Sum: 1\r\n\r\n"
}

type onlyReader struct{ io.Reader }

// push sends a body beside the test.
func push(w *wire, r io.Reader) <-chan error {
	done := make(chan error, 1)
	_ = w.SetDeadline(time.Now().Add(patience))
	go func() {
		_, err := io.Copy(onlyWriter{w}, r)
		done <- err
	}()
	return done
}

func check(t *testing.T, done <-chan error) {
	t.Helper()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// same reads n bytes that have to be what r gives.
func (w *wire) same(r io.Reader, n int) {
	w.t.Helper()
	want, got := sha256.New(), sha256.New()
	if _, err := io.CopyN(want, r, int64(n)); err != nil {
		w.t.Fatal(err)
	}
	if err := w.drain(got, n); err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
	if string(want.Sum(nil)) != string(got.Sum(nil)) {
		w.t.Fatalf("%s: the body is not what was sent", w.name)
	}
}

func TestX13PiecesAreDeliveredAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		head   string
		pieces []string
	}{
		"X13 SSE":       {"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked", []string{"9\r\ndata: 1\n\n\r\n", "9\r\ndata: 2\n\n\r\n", "0\r\n\r\n"}},
		"X13 NDJSON":    {"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked", []string{"8\r\n{\"a\":1}\n\r\n", "8\r\n{\"a\":2}\n\r\n", "0\r\n\r\n"}},
		"X13 long-poll": {"Content-Length: 6", []string{"abc", "d", "ef"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			client.send(o.get("/"))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 200 OK\r\n" + c.head + "\r\n\r\n")
			client.want("HTTP/1.1 200 OK\r\n" + c.head + "\r\n\r\n")
			for _, p := range c.pieces {
				up.send(p)
				client.want(p)
			}
			o.exchange(client, up)
		})
	}
	t.Run("X13 pieces of a request", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("POST", "/", "Transfer-Encoding: chunked\r\n\r\n"))
		up := o.accept()
		up.head()
		for _, p := range []string{"3\r\nabc\r\n", "1\r\nd\r\n", "0\r\n\r\n"} {
			client.send(p)
			up.want(p)
		}
		up.send(ok)
		client.want(ok)
		o.exchange(client, up)
	})
}

const (
	upgradeFields = "Upgrade: websocket\r\nSec-WebSocket-Key: abc\r\nConnection: keep-alive, Upgrade\r\n"
	switched      = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: def\r\nConnection: Upgrade\r\n\r\n"
)

// websocket opens one; either side's first frame comes right behind its head.
func websocket(r *rig, o *origin) (client, up *wire) {
	r.t.Helper()
	client = r.client()
	client.send(o.request("GET", "/ws", upgradeFields) + "frame 1")
	up = o.accept()
	up.want(o.forwarded("GET", "/ws", "Upgrade: websocket\r\nSec-WebSocket-Key: abc\r\nConnection: Upgrade\r\n"))
	up.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: def\r\n\r\nframe 2")
	client.want(switched + "frame 2")
	up.want("frame 1")
	return client, up
}

// C11: docker exec says in a body what is to run. The other protocol begins
// behind it.
func TestC11UpgradeWithABody(t *testing.T) {
	t.Parallel()
	body := `{"Detach":false,"Tty":false}` + "\r\n"
	for name, c := range map[string]struct {
		length int
		pieces []string // of the body, and of what is behind it
	}{
		"C11 whole":                       {30, []string{body}},
		"C11 whole, with more behind":     {30, []string{body + "stdin"}},
		"C11 behind its head":             {30, []string{"", body}},
		"C11 in pieces":                   {30, []string{body[:1], body[1:20], body[20:]}},
		"C11 in pieces, with more behind": {30, []string{body[:20], body[20:] + "stdin"}},
		"C11 empty":                       {0, []string{""}},
		"C11 empty, with more behind":     {0, []string{"stdin"}},
		"C11 of 64 KiB":                   {65536, []string{strings.Repeat("x", 65536)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client := r.client()
			length := fmt.Sprintf("Content-Length: %d\r\n", c.length)
			client.send(o.request("POST", "/exec", "Upgrade: tcp\r\nConnection: Upgrade\r\n"+length+"\r\n"+c.pieces[0]))
			up := o.accept()
			up.want(o.forwarded("POST", "/exec", "Upgrade: tcp\r\n"+length+"Connection: Upgrade\r\n"))
			up.want(c.pieces[0][:min(len(c.pieces[0]), c.length)])
			for _, p := range c.pieces[1:] {
				client.send(p)
				up.want(strings.TrimSuffix(p, "stdin"))
			}
			up.send("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nstdout")
			client.want("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nstdout")
			if strings.HasSuffix(c.pieces[len(c.pieces)-1], "stdin") {
				up.want("stdin")
			}
			client.send("more")
			up.want("more")
			_ = client.Close()
			up.end()
			_ = up.Close()
			r.closedFor(o, pool.Upgraded)
		})
	}
}

// An upstream that switches before it has the request leaves it open where the
// other protocol begins.
func TestC11SwitchBeforeTheBodyHasCome(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.request("POST", "/exec", "Upgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 9\r\n\r\nhalf"))
	up := o.accept()
	up.head()
	up.want("half")
	up.send("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
	client.refused(502)
	up.cut()
	r.free(o)
	o.served(1)
}

// RFC 9112 section 6.1, RFC 9110 section 8.6: there is no body before the other
// protocol.
func TestR22SwitchWithoutLengthAndCoding(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 5\r\n", "Content-Length: 007\r\n", "Transfer-Encoding: chunked\r\n", "content-length : 0\r\nTRANSFER-ENCODING:\tchunked\r\n"} {
		r, o := start(t), newOrigin(t)
		client := r.client()
		client.send(o.request("GET", "/ws", upgradeFields))
		up := o.accept()
		up.head()
		up.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" + framing + "Sec-WebSocket-Accept: def\r\nConnection: Upgrade\r\n\r\nframe")
		client.want(switched + "frame")
		_, _ = client.Close(), up.Close()
	}
}

func TestX13WebSockets(t *testing.T) {
	t.Parallel()
	t.Run("X13 frames both ways", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := websocket(r, o)
		for i := range 10 {
			client.send(fmt.Sprint("ping", i))
			up.want(fmt.Sprint("ping", i))
			up.send(fmt.Sprint("pong", i))
			client.want(fmt.Sprint("pong", i))
		}
		if !r.proxy.Busy() {
			t.Error("nothing is said to be open")
		}
		_ = client.Close()
		up.end()
		_ = up.Close()
		r.closedFor(o, pool.Upgraded)
		r.idle(o, 0)
	})
	t.Run("X9 the client ends first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := websocket(r, o)
		client.shut()
		up.end()
		client.silence(1200 * time.Millisecond) // longer than a client that has gone is given
		up.send("goes on")
		client.want("goes on")
		_ = up.Close()
		client.end()
	})
	t.Run("X9 the upstream ends first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := websocket(r, o)
		up.shut()
		client.end()
		client.send("goes on")
		up.want("goes on")
		_ = client.Close()
		up.end()
	})
	t.Run("X9 a reset ends both", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := websocket(r, o)
		up.reset()
		client.cut()
		r.free(o)
	})
}

// X15 with fewer.
func TestX15ManyIdleClients(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	o.handle(func(up *wire) {
		for {
			if _, err := tryHead(up); err != nil || up.trySend(ok) != nil {
				return
			}
		}
	})
	clients := make([]*wire, 500)
	for round := range 2 {
		for i := range clients {
			if round == 0 {
				clients[i] = r.client()
			}
			clients[i].send(o.get("/"))
			clients[i].want(ok)
		}
	}
	if n := r.proxy.Stats().Clients; n != len(clients) {
		t.Errorf("%d clients are counted", n)
	}
	o.served(1) // one after the other, so one connection did
}

// X22: with one P a transfer whose ends are always ready must not keep a small
// request of another client waiting for ever. Not parallel: it sets GOMAXPROCS.
func TestX22OneEndlessTransfer(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r, o := start(t), newOrigin(t)
	greedy := r.client()
	greedy.send(o.get("/endless"))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
	greedy.head()
	var ends sync.WaitGroup
	ends.Go(func() {
		part := strings.Repeat("x", 256<<10)
		for up.trySend(part) == nil {
		}
	})
	ends.Go(func() {
		_ = greedy.SetReadDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, onlyReader{greedy.Conn})
	})
	small := r.client()
	var other *wire
	for range 20 {
		other = o.exchange(small, other)
	}
	_, _ = greedy.Close(), up.Close()
	ends.Wait()
}
