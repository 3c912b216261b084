package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/carpoolproxy/carpool/pool"
)

// h2Server is a server of net/http that speaks HTTP/2 in plain text, by prior
// knowledge, and HTTP/1.1 no more.
func h2Server(t *testing.T, h http.HandlerFunc) *origin {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	o := &origin{t: t, addr: s.Listener.Addr().String()}
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			o.accepted.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return o
}

// inHTTP2 has all http origins spoken to in HTTP/2.
func inHTTP2(s *settings) { s.pool.H2C = func(pool.Key) bool { return true } }

func TestH2BodiesOfAllSizes(t *testing.T) {
	t.Parallel()
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %d %s", r.Proto, r.Method, r.Host, len(b), r.Header.Get("X-One"))
	})
	c := start(t, inHTTP2).client()
	for _, size := range []int{0, 10, 70_000, 100_000, 3_000_000} {
		want := fmt.Sprintf("HTTP/2.0 POST %s %d 1", o.addr, size)
		c.send(o.request("POST", "/x", fmt.Sprintf("X-One: 1\r\nContent-Length: %d\r\n", size)))
		c.send(strings.Repeat("x", size))
		if status, _, body := c.reply(); status != 200 || body != want {
			t.Errorf("got %d %q", status, body)
		}
	}
	o.served(1)
}

func TestH2AnswersOfAllSizes(t *testing.T) {
	t.Parallel()
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &n)
		if n != 1_000_000 { // that one in chunks
			w.Header().Set("Content-Length", fmt.Sprint(n))
		}
		_, _ = io.WriteString(w, strings.Repeat("y", n))
	})
	c := start(t, inHTTP2).client()
	for _, size := range []int{0, 1, 16 << 10, 300_000, 5_000_000} {
		c.send(o.get(fmt.Sprintf("/%d", size)))
		if status, _, body := c.reply(); status != 200 || body != strings.Repeat("y", size) {
			t.Errorf("got %d and %d bytes", status, len(body))
		}
	}
	c.send(o.get("/1000000"))
	if head := c.head(); field(head, "Transfer-Encoding") != "chunked" {
		t.Errorf("%q", head)
	}
	n := 0
	for {
		var size int
		_, _ = fmt.Sscanf(c.until("\r\n"), "%x", &size)
		c.take(size + 2)
		if n += size; size == 0 {
			break
		}
	}
	if n != 1_000_000 {
		t.Errorf("%d bytes", n)
	}
	old := "GET http://" + o.addr + "/1000000 HTTP/1.0\r\nHost: a\r\n\r\n" // which knows no chunks
	c = start(t, inHTTP2).client()
	c.send(old)
	c.head()
	if body, err := c.rest(); len(body) != 1_000_000 || err != nil {
		t.Errorf("HTTP/1.0: %d bytes, %v", len(body), err)
	}
}

// A first burst waits for one handshake, and is then carried together.
func TestH2ABurstSharesOneConnection(t *testing.T) {
	t.Parallel()
	const many = 60
	var there sync.WaitGroup
	there.Add(many)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there.Done()
		there.Wait() // all at a time
		_, _ = io.WriteString(w, r.Proto)
	}))
	var conns atomic.Int64
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.EnableHTTP2 = true
	cert, roots := identity()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	r := start(t, func(s *settings) { s.pool.HTTP2, s.pool.RootCAs = true, roots })
	var work sync.WaitGroup
	for range many {
		work.Go(func() {
			c := r.client()
			c.send("GET " + s.URL + "/ HTTP/1.1\r\nHost: " + s.Listener.Addr().String() + "\r\n\r\n")
			if status, _, body := c.reply(); status != 200 || body != "HTTP/2.0" {
				t.Errorf("got %d %q", status, body)
			}
		})
	}
	work.Wait()
	if n := conns.Load(); n > 2 { // a second for so many at a time
		t.Errorf("%d connections", n)
	}
	if got := r.pool.Snapshot().Total; got.Reused < many-2 || got.Shared != int(conns.Load()) {
		t.Errorf("%d reused, %d shared", got.Reused, got.Shared)
	}
}

// An https origin that offers no HTTP/2 is served as before, a burst too.
func TestH2AnOriginWithoutIt(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	cert, roots := identity()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	r := start(t, func(s *settings) { s.pool.HTTP2, s.pool.RootCAs = true, roots })
	var work sync.WaitGroup
	for range 30 {
		work.Go(func() {
			c := r.client()
			for range 3 {
				c.send("GET " + s.URL + "/ HTTP/1.1\r\nHost: " + s.Listener.Addr().String() + "\r\n\r\n")
				if status, _, body := c.reply(); status != 200 || body != "HTTP/1.1" {
					t.Errorf("got %d %q", status, body)
				}
			}
		})
	}
	work.Wait()
}

// Streaming both ways, with trailers both ways, as gRPC does it.
func TestH2StreamsBothWays(t *testing.T) {
	t.Parallel()
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Te") != "trailers" {
			t.Errorf("TE: %q", r.Header.Get("Te"))
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0"+r.Trailer.Get("X-Sum"))
	})
	c := start(t, inHTTP2).client()
	c.send(o.request("POST", "/svc/M", "TE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n"))
	for _, word := range []string{"one", "two", "three"} {
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(word), word))
		if word == "one" {
			if head := c.head(); field(head, "Content-Type") != "application/grpc" {
				t.Errorf("%q", head)
			}
		}
		c.want(fmt.Sprintf("%x\r\n%s\r\n", len(word), word))
	}
	c.send("0\r\nX-Sum: 7\r\n\r\n")
	c.want("0\r\ngrpc-status: 07\r\n\r\n")
}

// h2Peer is a server played by hand.
type h2Peer struct {
	t   *testing.T
	c   net.Conn
	fr  *http2.Framer
	out *hpack.Encoder
	b   strings.Builder
}

// h2Peers plays every connection to an origin by f, which gets its number, from 0.
func h2Peers(t *testing.T, settings []http2.Setting, f func(n int, p *h2Peer)) *origin {
	t.Helper()
	o := newOrigin(t)
	var n atomic.Int64
	o.handle(func(w *wire) {
		hello := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(w.Conn, hello); err != nil {
			return
		}
		p := &h2Peer{t: t, c: w.Conn, fr: http2.NewFramer(w.Conn, w.Conn)}
		p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		p.out = hpack.NewEncoder(&p.b)
		_ = p.fr.WriteSettings(settings...)
		_ = p.fr.WriteSettingsAck()
		f(int(n.Add(1)-1), p)
	})
	return o
}

// request waits for the next request that is whole, nil at the end.
func (p *h2Peer) request() *http2.MetaHeadersFrame {
	var heads = map[uint32]*http2.MetaHeadersFrame{}
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return nil
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if heads[id] = f; f.StreamEnded() {
				return f
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return heads[id]
			}
		}
	}
}

func (p *h2Peer) answer(id uint32, status, body string) {
	p.b.Reset()
	_ = p.out.WriteField(hpack.HeaderField{Name: ":status", Value: status})
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(p.b.String()), EndHeaders: true})
	_ = p.fr.WriteData(id, true, []byte(body))
}

func (p *h2Peer) serve() {
	for r := p.request(); r != nil; r = p.request() {
		p.answer(r.StreamID, "200", r.PseudoValue("path"))
	}
}

// What was not processed is sent again, a POST too: once.
func TestH2WhatWasNotProcessedIsSentAgain(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*h2Peer, uint32){
		"refused": func(p *h2Peer, id uint32) { _ = p.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"a farewell": func(p *h2Peer, id uint32) {
			_ = p.fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
		"a farewell and the end": func(p *h2Peer, id uint32) {
			_ = p.fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil)
			_ = p.c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := h2Peers(t, nil, func(n int, p *h2Peer) {
				if r := p.request(); n == 0 && r != nil {
					refuse(p, r.StreamID)
				} else if r != nil {
					p.answer(r.StreamID, "200", "done")
				}
				p.serve()
			})
			r := start(t, inHTTP2)
			c := r.client()
			c.send(o.request("POST", "/", "Content-Length: 4\r\n\r\nbody"))
			c.head()
			c.want("4\r\ndone\r\n0\r\n\r\n")
			o.served(2)
			if n := r.proxy.Stats().Retries; n != 1 {
				t.Errorf("%d retries", n)
			}
		})
	}
}

// A server that takes no request on any connection gets it a few times, not more.
func TestH2AServerThatSaysFarewellEachTime(t *testing.T) {
	t.Parallel()
	o := h2Peers(t, nil, func(n int, p *h2Peer) {
		_ = p.request()
		_ = p.fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = p.request()
	})
	c := start(t, inHTTP2).client()
	c.send(o.get("/"))
	c.problem(502)
	o.served(4)
}

// An answer that breaks off does so for the client, whatever of it has come.
func TestH2AnAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	o := h2Peers(t, nil, func(_ int, p *h2Peer) {
		for r := p.request(); r != nil; r = p.request() {
			fields := []string{":status", "200"}
			path := r.PseudoValue("path")
			if strings.HasPrefix(path, "/sized") {
				fields = append(fields, "content-length", "5")
			}
			p.b.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = p.out.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: r.StreamID, BlockFragment: []byte(p.b.String()), EndHeaders: true})
			switch {
			case strings.HasSuffix(path, "none"):
			case strings.HasSuffix(path, "less"):
				_ = p.fr.WriteData(r.StreamID, true, []byte("half"))
				continue
			case strings.HasSuffix(path, "more"):
				_ = p.fr.WriteData(r.StreamID, true, []byte("and more"))
				continue
			default:
				_ = p.fr.WriteData(r.StreamID, false, []byte("half"))
			}
			_ = p.fr.WriteRSTStream(r.StreamID, http2.ErrCodeInternal)
		}
	})
	r := start(t, inHTTP2)
	for path, want := range map[string]string{
		"/none": "", "/half": "4\r\nhalf\r\n", "/sized/none": "", "/sized/half": "half", "/sized/less": "half", "/sized/more": "and m",
	} {
		c := r.client()
		c.send(o.get(path))
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Errorf("%s: %q", path, head)
		}
		if got, _ := c.rest(); path != "/sized/more" && got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	o.served(1)
}

// A reset that does not say so follows the one rule: POST is not sent again.
func TestH2AResetOfAPost(t *testing.T) {
	t.Parallel()
	o := h2Peers(t, nil, func(n int, p *h2Peer) {
		r := p.request()
		p.answer(r.StreamID, "200", "")
		_ = p.fr.WriteRSTStream(p.request().StreamID, http2.ErrCodeInternal)
		p.serve()
	})
	r := start(t, inHTTP2)
	c := r.client()
	c.send(o.request("POST", "/", "Content-Length: 0\r\n"))
	c.until("0\r\n\r\n")
	c.send(o.request("POST", "/", "Content-Length: 0\r\n"))
	c.problem(502)
	c.send(o.get("/other"))
	c.until("/other\r\n0\r\n\r\n")
	o.served(1) // nobody else lost anything
}

// nginx says farewell after so many requests. That costs none of them.
func TestH2AFarewellCostsNoRequest(t *testing.T) {
	t.Parallel()
	const each = 25
	o := h2Peers(t, nil, func(_ int, p *h2Peer) {
		last := uint32(0)
		for n := 1; ; n++ {
			r := p.request()
			if r == nil {
				return
			}
			if last != 0 && r.StreamID > last {
				continue
			}
			if n == each {
				last = r.StreamID
				_ = p.fr.WriteGoAway(last, http2.ErrCodeNo, nil)
			}
			p.answer(r.StreamID, "200", r.PseudoValue("path"))
		}
	})
	r := start(t, inHTTP2)
	var work sync.WaitGroup
	for i := range 10 {
		work.Go(func() {
			c := r.client()
			for k := range 50 {
				path := fmt.Sprintf("/%d/%d", i, k)
				c.send(o.request("POST", path, "Content-Length: 2\r\n\r\nok"))
				if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
					t.Errorf("got %q", head)
					return
				}
				c.want(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(path), path))
			}
		})
	}
	work.Wait()
	if got := r.stats(o); got.GoAways < 500/each/2 {
		t.Errorf("%d farewells", got.GoAways)
	}
}

// A server may take one request at a time on each connection.
func TestH2AServerThatTakesOneAtATime(t *testing.T) {
	t.Parallel()
	o := h2Peers(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, func(_ int, p *h2Peer) { p.serve() })
	r := start(t, inHTTP2)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			c := r.client()
			for range 20 {
				c.send(o.get("/x"))
				if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
					t.Errorf("got %q", head)
					return
				}
				c.want("2\r\n/x\r\n0\r\n\r\n")
			}
		})
	}
	work.Wait()
	if n := r.proxy.Stats().Retries; n != 0 {
		t.Errorf("%d retries", n)
	}
}

// What HTTP/2 does not have, or the server does not want in it, goes in HTTP/1.1.
func TestH2WhatGoesInHTTP1(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "x" {
			w.Header().Set("Upgrade", "x")
			w.Header().Set("Connection", "Upgrade")
			w.WriteHeader(101)
			return
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	s.EnableHTTP2 = true
	cert, roots := identity()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	r := start(t, func(s *settings) { s.pool.HTTP2, s.pool.RootCAs = true, roots })
	get := func(more string) string {
		return "GET " + s.URL + "/ HTTP/1.1\r\nHost: " + s.Listener.Addr().String() + "\r\n" + more + "\r\n"
	}
	for _, to := range []struct{ more, proto string }{{"", "HTTP/2.0"}, {"Authorization: Negotiate abc\r\n", "HTTP/1.1"}, {"", "HTTP/2.0"}} {
		c := r.client()
		c.send(get(to.more))
		if _, _, body := c.reply(); body != to.proto {
			t.Errorf("%q went in %q", to.more, body)
		}
	}
	c := r.client()
	c.send(get("Upgrade: x\r\nConnection: Upgrade\r\n"))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Errorf("%q", head)
	}
}

func TestH2HTTP11Required(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.handle(func(w *wire) {
		var b [4]byte
		if _, err := io.ReadFull(w.Conn, b[:]); err != nil {
			return
		}
		if string(b[:]) == "POST" {
			w.head()
			w.take(2)
			w.send(ok)
			return
		}
		hello := make([]byte, len(http2.ClientPreface)-4)
		_, _ = io.ReadFull(w.Conn, hello)
		p := &h2Peer{t: t, c: w.Conn, fr: http2.NewFramer(w.Conn, w.Conn)}
		p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = p.fr.WriteSettings()
		if r := p.request(); r != nil {
			_ = p.fr.WriteRSTStream(r.StreamID, http2.ErrCodeHTTP11Required)
			_ = p.request()
		}
	})
	c := start(t, inHTTP2).client()
	c.send(o.request("POST", "/", "Content-Length: 2\r\n\r\nok"))
	c.want(ok)
}

// A client that leaves costs its stream, not the connection.
func TestH2AClientThatLeaves(t *testing.T) {
	t.Parallel()
	reset := make(chan struct{})
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			close(reset)
		}
	})
	r := start(t, inHTTP2)
	c := r.client()
	c.send(o.get("/slow"))
	eventually(t, "it is carried", func() bool { return r.stats(o).Streams == 1 })
	c.reset()
	<-reset
	c = r.client()
	c.send(o.get("/"))
	if status, _, _ := c.reply(); status != 200 {
		t.Error(status)
	}
	o.served(1)
}

// An upload is as slow as the upstream takes it.
func TestH2AnUploadHasBackPressure(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		<-let
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	r := start(t, inHTTP2)
	c := r.client()
	const size = 64 << 20
	c.send(o.request("POST", "/", fmt.Sprintf("Content-Length: %d\r\n", size)))
	piece, sent := make([]byte, 1<<20), 0
	for sent < size {
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(piece)
		if sent += n; err != nil {
			break
		}
	}
	if sent == size {
		t.Fatal("all of it was taken though the upstream takes nothing")
	}
	close(let)
	_ = c.SetWriteDeadline(time.Time{})
	for sent < size {
		n, err := c.Write(piece[:min(len(piece), size-sent)])
		if sent += n; err != nil {
			t.Fatal(err, r.logged(1))
		}
	}
	if _, _, body := c.reply(); body != fmt.Sprint(size) {
		t.Errorf("%s bytes came", body)
	}
}

func TestH2AnEarlyAnswer(t *testing.T) {
	t.Parallel()
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(413) })
	r := start(t, inHTTP2)
	c := r.client()
	c.send(o.request("POST", "/", "Content-Length: 100000000\r\n"))
	go func() {
		_, _ = c.Write(make([]byte, 10_000_000))
	}()
	if status, head, _ := c.reply(); status != 413 || field(head, "Connection") != "close" {
		t.Errorf("%d %q", status, head)
	}
}

// A connection that has come of age gets no more requests when another is there.
func TestH2AConnectionIsReplacedBeforeItGoes(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	o := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-hold
			_, _ = io.WriteString(w, "end")
		}
	})
	r := start(t, inHTTP2, func(s *settings) { s.pool.MaxAge = 50 * time.Millisecond })
	long := r.client()
	long.send(o.get("/long"))
	long.head()
	c := r.client()
	eventually(t, "another connection is there", func() bool {
		c.send(o.get("/"))
		if status, _, _ := c.reply(); status != 200 {
			t.Error(status)
		}
		return o.accepted.Load() > 1
	})
	close(hold)
	long.want("3\r\nend\r\n0\r\n\r\n")
	r.closedFor(o, pool.MaxAge)
}

func TestH2AnOriginThatDoesNotSpeakIt(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.handle(func(w *wire) { _ = w.trySend("HTTP/1.1 400 Bad Request\r\n\r\n") })
	c := start(t, inHTTP2).client()
	c.send(o.get("/"))
	_, body := c.problem(502)
	if !strings.Contains(body, "CARPOOL_H2C") {
		t.Errorf("%q", body)
	}
}
