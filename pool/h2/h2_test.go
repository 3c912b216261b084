package h2_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool/h2"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// piped is a layer of which nothing is known before it is read.
type piped struct{ net.Conn }

func (piped) ReadMore([]byte) int { return 0 }

// peer is the server's end of a connection, played by hand.
type peer struct {
	t    *testing.T
	c    net.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	text bytes.Buffer

	frames chan http2.Frame // what has come, payloads copied
}

// events notes what a connection tells.
type events struct {
	mu      sync.Mutex
	room    int
	leaving bool
	gone    error
	ended   chan struct{}
}

func (e *events) Room() { e.mu.Lock(); e.room++; e.mu.Unlock() }

func (e *events) Leaving() { e.mu.Lock(); e.leaving = true; e.mu.Unlock() }

func (e *events) Gone(err error) { e.gone = err; close(e.ended) }

// connect makes a connection to a peer that reads all the time.
func connect(t *testing.T) (*h2.Conn, *events, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	e := &events{ended: make(chan struct{})}
	c := h2.New(h2.Config{Transport: sock.Over(piped{ours}), MaxHeader: 8 << 10, Events: e})
	p := &peer{t: t, c: theirs, fr: http2.NewFramer(theirs, theirs), frames: make(chan http2.Frame, 10000)}
	p.enc = hpack.NewEncoder(&p.text)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	go p.read()
	go c.Run()
	t.Cleanup(func() {
		c.Close()
		_ = ours.Close()
		_ = theirs.Close()
		<-e.ended
	})
	return c, e, p
}

func (p *peer) read() {
	defer close(p.frames)
	hello := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.c, hello); err != nil || string(hello) != http2.ClientPreface {
		return
	}
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return
		}
		if d, ok := f.(*http2.DataFrame); ok { // its payload is gone with the next
			p.frames <- &data{d.FrameHeader, bytes.Clone(d.Data())}
			continue
		}
		p.frames <- f
	}
}

// data is a frame of data.
type data struct {
	http2.FrameHeader
	b []byte
}

// settle sends the settings, and waits until they have come.
func (p *peer) settle(c *h2.Conn, s ...http2.Setting) {
	p.t.Helper()
	if err := p.fr.WriteSettings(s...); err != nil {
		p.t.Fatal(err)
	}
	<-c.Ready()
	synctest.Wait()
}

// next returns the next frame of a kind.
func next[F any](p *peer) F {
	p.t.Helper()
	for f := range p.frames {
		if x, ok := f.(F); ok {
			return x
		}
	}
	p.t.Fatalf("the connection ended, no %T", *new(F))
	panic("not reached")
}

// head encodes a head.
func (p *peer) head(pairs ...string) []byte {
	p.text.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(p.text.Bytes())
}

func (p *peer) answer(id uint32, end bool, pairs ...string) {
	p.t.Helper()
	if err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.head(pairs...), EndHeaders: true, EndStream: end}); err != nil {
		p.t.Fatal(err)
	}
}

var get = []h2.Field{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: "/"}}

// ask begins a stream by a request without a body.
func ask(t *testing.T, c *h2.Conn) *h2.Stream {
	t.Helper()
	s := c.Open()
	if s == nil {
		t.Fatal("no stream")
	}
	if _, err := s.Send(get, nil, true); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARequestAndItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c)
		s := c.Open()
		n, err := s.Send(get, []byte("hello"), false)
		if n != 6 || err != nil {
			t.Errorf("Send: %d, %v", n, err)
		}
		if err := s.End([]h2.Field{{Name: "x-sum", Value: "1"}}); err != nil {
			t.Error(err)
		}
		if h := next[*http2.MetaHeadersFrame](p); h.StreamEnded() || h.PseudoValue("path") != "/" {
			t.Errorf("the head is %v", h)
		}
		if d := next[*data](p); string(d.b) != "hello" {
			t.Errorf("the body is %q", d.b)
		}
		if h := next[*http2.MetaHeadersFrame](p); !h.StreamEnded() || h.Fields[0].Value != "1" {
			t.Errorf("the trailers are %v", h)
		}
		p.answer(1, false, ":status", "103", "link", "x")
		p.answer(1, false, ":status", "200", "a", "1", "a", "2")
		_ = p.fr.WriteData(1, false, []byte("body"))
		p.answer(1, true, "x-trail", "t")
		if status, f, end, err := s.Head(); status != 103 || len(f) != 1 || end || err != nil {
			t.Errorf("first %d %v %v %v", status, f, end, err)
		}
		if status, f, end, err := s.Head(); status != 200 || len(f) != 2 || end || err != nil {
			t.Errorf("then %d %v %v %v", status, f, end, err)
		}
		synctest.Wait()
		b, end, err := s.Body(true)
		if string(b[h2.Room:]) != "body" || !end || err != nil || len(s.Trailers()) != 1 {
			t.Errorf("body %q %v %v %v", b, end, err, s.Trailers())
		}
		if !s.Close() {
			t.Error("it is not whole")
		}
		if n := c.Lent(); n != 0 {
			t.Errorf("%d are lent", n)
		}
	})
}

// reset checks what a stream fails with.
func wantReset(t *testing.T, err error, code h2.Code, remote, unprocessed bool) {
	t.Helper()
	var r *h2.ResetError
	if !errors.As(err, &r) || r.Code != code || r.Remote != remote || r.Unprocessed != unprocessed {
		t.Errorf("got %#v, want code %d, remote %v, unprocessed %v", err, code, remote, unprocessed)
	}
}

// Each of these ends the connection, by the code that RFC 9113 says.
func TestAPeerThatBreaksARuleLosesTheConnection(t *testing.T) {
	big := strings.Repeat("x", 1<<14)
	for name, test := range map[string]struct {
		code h2.Code
		does func(*peer)
	}{
		"a frame that is too long":       {6, func(p *peer) { _ = p.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<14+1)) }},
		"a head that cannot be decoded":  {9, func(p *peer) { p.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\xff\xff\xff\xff\xff") }},
		"data for a stream that is idle": {1, func(p *peer) { _ = p.fr.WriteData(3, true, nil) }},
		"a head for a stream of its own": {1, func(p *peer) { p.answer(2, true, ":status", "200") }},
		"a reset of an idle stream":      {1, func(p *peer) { _ = p.fr.WriteRSTStream(9, 0) }},
		"a reset that is too short":      {6, func(p *peer) { p.raw(http2.FrameRSTStream, 0, 1, "abc") }},
		"a push": {1, func(p *peer) {
			p.raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, "\x00\x00\x00\x02\x88")
		}},
		"more padding than frame": {1, func(p *peer) { p.raw(http2.FrameData, http2.FlagDataPadded, 1, "\x09abc") }},
		"an empty padded frame":   {6, func(p *peer) { p.raw(http2.FrameData, http2.FlagDataPadded, 1, "") }},
		"a head without room for a priority": {6, func(p *peer) {
			p.raw(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders, 1, "abc")
		}},
		"a head that is interrupted": {1, func(p *peer) {
			p.raw(http2.FrameHeaders, 0, 1, "\x88")
			_ = p.fr.WriteData(1, true, nil)
		}},
		"a head that goes on elsewhere": {1, func(p *peer) {
			p.raw(http2.FrameHeaders, 0, 1, "\x88")
			p.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, "")
		}},
		"a head that goes on from nothing": {1, func(p *peer) { p.raw(http2.FrameContinuation, 4, 1, "") }},
		"a head in very many frames": {11, func(p *peer) {
			p.raw(http2.FrameHeaders, 0, 1, "\x88")
			for range 100 {
				p.raw(http2.FrameContinuation, 0, 1, "")
			}
		}},
		"a head that never ends": {11, func(p *peer) {
			p.raw(http2.FrameHeaders, 0, 1, "\x88")
			for range 10 {
				p.raw(http2.FrameContinuation, 0, 1, big)
			}
		}},
		"settings of a stream":         {1, func(p *peer) { p.raw(http2.FrameSettings, 0, 1, "") }},
		"settings that are cut":        {6, func(p *peer) { p.raw(http2.FrameSettings, 0, 0, "12345") }},
		"an acknowledgement with more": {6, func(p *peer) { p.raw(http2.FrameSettings, 1, 0, "123456") }},
		"a window that is too large":   {3, func(p *peer) { _ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) }},
		"frames that are too short":    {1, func(p *peer) { _ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) }},
		"a window that overflows":      {3, func(p *peer) { _ = p.fr.WriteWindowUpdate(0, 1<<31-1) }},
		"a window that grows by 0":     {1, func(p *peer) { _ = p.fr.WriteWindowUpdate(0, 0) }},
		"a ping of a stream":           {1, func(p *peer) { p.raw(http2.FramePing, 0, 1, "12345678") }},
		"a ping that is too short":     {6, func(p *peer) { p.raw(http2.FramePing, 0, 0, "1234567") }},
		"a farewell of a stream":       {1, func(p *peer) { p.raw(http2.FrameGoAway, 0, 1, "12345678") }},
		"a farewell that is cut":       {6, func(p *peer) { p.raw(http2.FrameGoAway, 0, 0, "1234567") }},
		"a flood of pings": {11, func(p *peer) {
			for range 3000 {
				_ = p.fr.WritePing(false, [8]byte{})
			}
		}},
		"a flood of settings": {11, func(p *peer) {
			for range 3000 {
				_ = p.fr.WriteSettings()
			}
		}},
		"a flood of empty data": {11, func(p *peer) {
			p.answer(1, false, ":status", "200")
			for range 3000 {
				_ = p.fr.WriteData(1, false, nil)
			}
		}},
		"a flood of what is not known": {11, func(p *peer) {
			for range 3000 {
				p.raw(0xbe, 0, 0, "")
			}
		}},
		"more than a stream's window": {3, func(p *peer) {
			p.answer(1, false, ":status", "200")
			for range 20 {
				_ = p.fr.WriteData(1, false, []byte(big))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e, p := connect(t)
				p.settle(c)
				s := ask(t, c)
				go test.does(p)
				<-e.ended
				var broken *h2.Error
				if !errors.As(e.gone, &broken) || broken.Code != test.code {
					t.Errorf("it ended by %v, want code %d", e.gone, test.code)
				}
				var err error
				for err == nil { // a head may have come before
					_, _, _, err = s.Head()
				}
				s.Close()
				_ = p.c.Close()
				synctest.Wait()
			})
		})
	}
}

func (p *peer) raw(kind http2.FrameType, flags http2.Flags, id uint32, payload string) {
	_ = p.fr.WriteRawFrame(kind, flags, id, []byte(payload))
}

// Each of these ends the stream alone: another one goes on.
func TestAPeerThatBreaksARuleOfAStreamLosesThatAlone(t *testing.T) {
	for name, does := range map[string]func(*peer){
		"no status":                  func(p *peer) { p.answer(1, true, "a", "b") },
		"two statuses":               func(p *peer) { p.answer(1, true, ":status", "200", ":status", "200") },
		"a status behind a field":    func(p *peer) { p.answer(1, true, "a", "b", ":status", "200") },
		"a status that is no number": func(p *peer) { p.answer(1, true, ":status", "2xx") },
		"a pseudo-field of requests": func(p *peer) { p.answer(1, true, ":status", "200", ":path", "/") },
		"a switch of protocols":      func(p *peer) { p.answer(1, false, ":status", "101") },
		"a 1xx that ends it":         func(p *peer) { p.answer(1, true, ":status", "103") },
		"very many 1xx": func(p *peer) {
			for range 100 {
				p.answer(1, false, ":status", "103")
			}
		},
		"capital letters":          func(p *peer) { p.answer(1, true, ":status", "200", "Aa", "b") },
		"a line end in a value":    func(p *peer) { p.answer(1, true, ":status", "200", "a", "b\r\nc: d") },
		"a NUL in a value":         func(p *peer) { p.answer(1, true, ":status", "200", "a", "b\x00") },
		"a space in a name":        func(p *peer) { p.answer(1, true, ":status", "200", "a b", "c") },
		"an empty name":            func(p *peer) { p.answer(1, true, ":status", "200", "", "c") },
		"a head that is too large": func(p *peer) { p.answer(1, true, ":status", "200", "a", strings.Repeat("x", 9<<10)) },
		"a bomb": func(p *peer) { // each byte stands for a field of the table
			b := append(p.head(":status", "200", "a", strings.Repeat("x", 3000)), bytes.Repeat([]byte{0xbe}, 8000)...)
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: true, EndStream: true})
		},
		"data before a head": func(p *peer) { _ = p.fr.WriteData(1, false, []byte("x")) },
		"a second head": func(p *peer) {
			p.answer(1, false, ":status", "200")
			p.answer(1, false, ":status", "200")
		},
		"a window that overflows":  func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 1<<31-1) },
		"a window that grows by 0": func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, p := connect(t)
				p.settle(c)
				s, other := ask(t, c), ask(t, c)
				does(p)
				if name == "a second head" {
					synctest.Wait()
					if _, _, _, err := s.Head(); err != nil {
						t.Errorf("the first: %v", err)
					}
					_, _, err := s.Body(true)
					wantReset(t, err, 1, false, false)
				} else {
					var err error
					for err == nil {
						_, _, _, err = s.Head()
					}
					var r *h2.ResetError
					if !errors.As(err, &r) || r.Remote || r.Text == "" {
						t.Errorf("the stream ended by %v", err)
					}
				}
				if f := next[*http2.RSTStreamFrame](p); f.StreamID != 1 {
					t.Errorf("stream %d was reset", f.StreamID)
				}
				p.answer(3, true, ":status", "204")
				if status, _, _, err := other.Head(); status != 204 || err != nil {
					t.Errorf("the other got %d, %v", status, err)
				}
				s.Close()
				other.Close()
			})
		})
	}
}

func TestWhatDoesNotBeginWithSettingsIsNotHTTP2(t *testing.T) {
	for name, text := range map[string]string{
		"a ping first": "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "HTTP/1.1": "HTTP/1.1 400 Bad Request\r\n\r\n",
		"an acknowledgement first": "\x00\x00\x00\x04\x01\x00\x00\x00\x00", "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e, p := connect(t)
				go func() { _, _ = io.WriteString(p.c, text) }()
				if name == "nothing" {
					_ = p.c.Close()
				}
				<-c.Ready()
				<-e.ended
				if c.Err() == nil || c.Open() != nil {
					t.Error("it is taken for a connection")
				}
			})
		})
	}
}

func TestWhatWasNotProcessedIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, p := connect(t)
		p.settle(c)
		refused, reset, below, above, old := ask(t, c), ask(t, c), ask(t, c), ask(t, c), c.Open()
		_ = p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		_ = p.fr.WriteRSTStream(3, http2.ErrCodeInternal)
		_ = p.fr.WriteGoAway(5, http2.ErrCodeNo, nil)
		_, _, _, err := refused.Head()
		wantReset(t, err, 7, true, true)
		_, _, _, err = reset.Head()
		wantReset(t, err, 2, true, false)
		_, _, _, err = above.Head()
		wantReset(t, err, 0, true, true)
		synctest.Wait()
		if !e.leaving || c.Open() != nil {
			t.Error("it takes more streams")
		}
		n, err := old.Send(get, nil, true)
		if wantReset(t, err, 0, false, true); n != 0 {
			t.Errorf("%d bytes were accepted", n)
		}
		p.answer(5, true, ":status", "200")
		if status, _, _, err := below.Head(); status != 200 || err != nil {
			t.Errorf("the one that was processed: %d, %v", status, err)
		}
		for _, s := range []*h2.Stream{refused, reset, below, above, old} {
			s.Close()
		}
	})
}

func TestTheLimitOfThePeerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, p := connect(t)
		if c.Open() != nil {
			t.Error("a stream is lent before the peer has said how many it takes")
		}
		p.settle(c, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		s := ask(t, c)
		if c.Open() != nil {
			t.Error("a second is lent")
		}
		p.settle(c, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		if e.room != 2 {
			t.Errorf("told of room %d times", e.room)
		}
		other := ask(t, c)
		s.Close()
		other.Close()
	})
}

// X18 in this lane: who does not read is sent no more than a window, and nobody else
// waits for that.
func TestX18ASlowReaderSlowsItsStreamAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c)
		var slow []*h2.Stream
		piece := make([]byte, 1<<14)
		for i := range 8 {
			slow = append(slow, ask(t, c))
			id := uint32(2*i + 1)
			p.answer(id, false, ":status", "200")
			for range 16 { // a stream's window
				if err := p.fr.WriteData(id, false, piece); err != nil {
					t.Fatal(err)
				}
			}
		}
		fast := ask(t, c)
		p.answer(17, false, ":status", "200")
		for range 100 {
			_ = p.fr.WriteData(17, false, piece[:1<<13])
			if b, _, err := fast.Body(true); err != nil || len(b) != h2.Room+1<<13 {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		}
		if len(slow) == 8 {
			for i, s := range slow {
				n := 0
				for n < 1<<18 {
					b, _, err := s.Body(true)
					if err != nil {
						t.Fatal(err)
					}
					n += len(b) - h2.Room
				}
				_, _, _ = s.Body(false)
				synctest.Wait()
				for u := next[*http2.WindowUpdateFrame](p); u.StreamID != uint32(2*i+1); u = next[*http2.WindowUpdateFrame](p) {
				}
				s.Close()
			}
		}
		fast.Close()
	})
}

// More than 4 MiB that nobody takes do not come.
func TestX11WhatWaitsForReadersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c)
		window := 1 << 20
		windows := testkit.In(func() int {
			n := 0
			for f := range p.frames {
				if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == 0 {
					n += int(u.Increment)
				}
			}
			return n
		})
		sent := 0
		var all []*h2.Stream
		for i := range 19 {
			all = append(all, ask(t, c))
			p.answer(uint32(2*i+1), false, ":status", "200")
			for range 16 {
				_ = p.fr.WriteData(uint32(2*i+1), false, make([]byte, 1<<14))
				sent += 1 << 14
			}
		}
		synctest.Wait()
		_ = p.c.Close()
		granted := 1<<16 - 1 + <-windows
		if granted > 4<<20+window || granted < sent {
			t.Errorf("the peer was let send %d, and sent %d", granted, sent)
		}
		for _, s := range all {
			s.Close()
		}
	})
}

func TestAWindowOfNothingHoldsTheBodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		s := c.Open()
		sent := testkit.In(func() error {
			_, err := s.Send(get, make([]byte, 100_000), true)
			return err
		})
		synctest.Wait()
		select {
		case err := <-sent:
			t.Fatalf("sent: %v", err)
		default:
		}
		other := ask(t, c)
		p.answer(3, true, ":status", "200")
		if _, _, _, err := other.Head(); err != nil {
			t.Errorf("another: %v", err)
		}
		_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		_ = p.fr.WriteWindowUpdate(1, 200_000)
		got := 0
		for got < 65535 {
			got += len(next[*data](p).b)
		}
		synctest.Wait()
		if got != 65535 {
			t.Errorf("%d bytes came, more than the connection's window", got)
		}
		_ = p.fr.WriteWindowUpdate(0, 100_000)
		for got < 100_000 {
			got += len(next[*data](p).b)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		s.Close()
		other.Close()
	})
}

func TestAWaitForAWindowCanBeEnded(t *testing.T) {
	for name, end := range map[string]func(*h2.Stream, *h2.Conn, *peer){
		"interrupted":    func(s *h2.Stream, c *h2.Conn, p *peer) { s.Interrupt() },
		"a deadline":     func(s *h2.Stream, c *h2.Conn, p *peer) { s.SetWriteDeadline(time.Now().Add(time.Second)) },
		"an answer":      func(s *h2.Stream, c *h2.Conn, p *peer) { p.answer(1, true, ":status", "413") },
		"a reset":        func(s *h2.Stream, c *h2.Conn, p *peer) { _ = p.fr.WriteRSTStream(1, 0) },
		"the connection": func(s *h2.Stream, c *h2.Conn, p *peer) { _ = p.c.Close() },
		"closed by us":   func(s *h2.Stream, c *h2.Conn, p *peer) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, p := connect(t)
				p.settle(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
				s := c.Open()
				sent := testkit.In(func() error {
					n, err := s.Send(get, []byte("body"), true)
					if n == 0 {
						t.Error("nothing was accepted")
					}
					return err
				})
				synctest.Wait()
				end(s, c, p)
				if err := <-sent; err == nil {
					t.Error("the whole was sent")
				}
				if name == "an answer" {
					if status, _, _, err := s.Head(); status != 413 || err != nil {
						t.Errorf("%d, %v", status, err)
					}
				}
				s.Close()
			})
		})
	}
}

// It cannot wedge: a peer that takes bytes and answers nothing is found within 20
// seconds.
func TestASilentPeerIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, p := connect(t)
		p.settle(c)
		for range 100 { // without requests nothing is asked
			c.Tend()
		}
		s := ask(t, c)
		n := 0
		for ; c.Err() == nil; n++ {
			c.Tend()
			if n == 17 && c.Open() != nil {
				t.Error("it gets new requests")
			}
		}
		if n > 21 || n < 18 {
			t.Errorf("it took %d seconds", n)
		}
		<-e.ended
		if _, _, _, err := s.Head(); !sock.TimedOut(err) {
			t.Errorf("the stream ended by %v", err)
		}
		s.Close()
		if got := c.Figures().Pings; got != 1 {
			t.Errorf("%d pings", got)
		}
	})
}

// Servers of gRPC take few pings while they have nothing to say.
func TestPingsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c)
		s := ask(t, c)
		go func() {
			for f := range p.frames {
				if g, ok := f.(*http2.PingFrame); ok && !g.IsAck() {
					_ = p.fr.WritePing(true, g.Data)
				}
			}
		}()
		var at []int
		for i := range 1000 {
			before := c.Figures().Pings
			c.Tend()
			synctest.Wait()
			if c.Figures().Pings > before {
				at = append(at, i)
			}
		}
		if c.Err() != nil {
			t.Fatal(c.Err())
		}
		if len(at) < 4 || len(at) > 6 {
			t.Errorf("pings at %v", at)
		}
		for i := 3; i < len(at); i++ {
			if at[i]-at[i-1] < 300 {
				t.Errorf("pings at %v", at)
			}
		}
		s.Close()
	})
}

func TestManyAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, p := connect(t)
		p.settle(c)
		go func() {
			for f := range p.frames {
				if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
					p.answer(h.StreamID, false, ":status", "200")
					_ = p.fr.WriteData(h.StreamID, true, []byte(h.PseudoValue("path")))
				}
			}
		}()
		var work sync.WaitGroup
		for range 50 {
			work.Go(func() {
				for range 20 {
					s := c.Open()
					if s == nil {
						t.Error("no stream")
						return
					}
					if _, err := s.Send(get, nil, true); err != nil {
						t.Error(err)
					}
					if status, _, _, err := s.Head(); status != 200 || err != nil {
						t.Error(status, err)
					}
					text := ""
					for end := false; !end; {
						b, last, err := s.Body(true)
						if err != nil {
							t.Error(err)
							break
						}
						text, end = text+string(b[h2.Room:]), last
					}
					if text != "/" {
						t.Errorf("got %q", text)
					}
					s.Close()
				}
			})
		}
		work.Wait()
		if c.Lent() != 0 || c.Err() != nil {
			t.Error(c.Lent(), c.Err())
		}
	})
}
