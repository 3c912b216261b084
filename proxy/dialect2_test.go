package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// In the dialect "h2" the upstreams speak HTTP/2, though the tests play them in
// HTTP/1.1. A bridge stands between: what comes on a stream is read from a lane as a
// request, and what is written there goes back as its answer. A lane carries one
// request after the other, as a connection does; a request that comes while others
// are under way gets one of its own.

// bridge is one connection in HTTP/2.
type bridge struct {
	o  *origin
	c  net.Conn
	fr *http2.Framer

	mu      sync.Mutex
	changed *sync.Cond
	enc     *hpack.Encoder
	text    bytes.Buffer
	lanes   []*lane2
	window  int64
	initial int64
	over    bool
}

// lane2 is a connection as the tests know it.
type lane2 struct {
	net.Conn // for its addresses
	b        *bridge
	in       []byte // for the test to read
	out      []byte // written, and not understood yet
	id       uint32 // of the stream under way, 0: none
	window   int64  // of that
	isHead   bool
	chunked  bool // the request's body comes in chunks
	begun    bool // the final head was sent
	left     int64
	framing  string // of the answer: sized, chunked, close
	cut      bool   // nothing more comes
	closed   bool   // by the test
	by       time.Time
}

// speakH2 plays the server's half of a connection until it ends.
func (o *origin) speakH2(c net.Conn) {
	b := &bridge{o: o, c: c, fr: http2.NewFramer(c, c), window: 65535, initial: 65535}
	b.changed = sync.NewCond(&b.mu)
	b.enc = hpack.NewEncoder(&b.text)
	b.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	defer b.end()
	hello := make([]byte, len(http2.ClientPreface))
	if b.fr.WriteSettings() != nil {
		return
	}
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != http2.ClientPreface {
		return
	}
	for {
		f, err := b.fr.ReadFrame()
		if err != nil {
			return
		}
		b.take(f)
	}
}

func (b *bridge) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for _, l := range b.lanes {
		l.cut = true
	}
	b.changed.Broadcast()
	_ = b.c.Close()
}

func (b *bridge) take(f http2.Frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.changed.Broadcast()
	id := f.Header().StreamID
	l := b.laneOf(id)
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return
		}
		_ = f.ForeachSetting(func(s http2.Setting) error {
			if s.ID == http2.SettingInitialWindowSize {
				b.initial = int64(s.Val)
			}
			return nil
		})
		_ = b.fr.WriteSettingsAck()
	case *http2.WindowUpdateFrame:
		if id == 0 {
			b.window += int64(f.Increment)
		} else if l != nil {
			l.window += int64(f.Increment)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = b.fr.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		switch {
		case l == nil:
			b.begin(f)
		case l.chunked:
			l.in = append(l.in, "0\r\n"...)
			for _, t := range f.Fields {
				l.in = append(l.in, textproto.CanonicalMIMEHeaderKey(t.Name)+": "+t.Value+"\r\n"...)
			}
			l.in = append(l.in, "\r\n"...)
		}
	case *http2.DataFrame:
		if n := len(f.Data()); n > 0 {
			_ = b.fr.WriteWindowUpdate(0, uint32(n))
			if l != nil {
				_ = b.fr.WriteWindowUpdate(id, uint32(n))
			}
		}
		if l != nil {
			l.data(f.Data(), f.StreamEnded())
		}
	case *http2.RSTStreamFrame:
		if l != nil {
			l.id, l.cut = 0, true
		}
	}
}

func (l *lane2) data(p []byte, end bool) {
	if !l.chunked {
		l.in = append(l.in, p...)
		return
	}
	if len(p) > 0 {
		l.in = append(append(append(l.in, strconv.FormatInt(int64(len(p)), 16)+"\r\n"...), p...), "\r\n"...)
	}
	if end {
		l.in = append(l.in, "0\r\n\r\n"...)
	}
}

func (b *bridge) laneOf(id uint32) *lane2 {
	for _, l := range b.lanes {
		if l.id == id && id != 0 {
			return l
		}
	}
	return nil
}

// begin begins a request on a lane.
func (b *bridge) begin(f *http2.MetaHeadersFrame) {
	var l *lane2
	for _, x := range b.lanes {
		if x.id == 0 && !x.cut && !x.closed {
			l = x
		}
	}
	if l == nil {
		l = &lane2{Conn: b.c, b: b}
		b.lanes = append(b.lanes, l)
		b.o.accepted.Add(1)
		b.o.conns <- l
	}
	l.id, l.window, l.begun, l.isHead, l.out = f.StreamID, b.initial, false, f.PseudoValue("method") == "HEAD", nil
	text := f.PseudoValue("method") + " " + f.PseudoValue("path") + " HTTP/1.1\r\nHost: " + f.PseudoValue("authority") + "\r\n"
	sized := false
	for _, h := range f.RegularFields() {
		sized = sized || h.Name == "content-length"
		if h.Name == "te" {
			continue
		}
		text += textproto.CanonicalMIMEHeaderKey(h.Name) + ": " + h.Value + "\r\n"
	}
	if l.chunked = !sized && !f.StreamEnded(); l.chunked {
		text += "Transfer-Encoding: chunked\r\n"
	}
	l.in = append(l.in, text+"\r\n"...)
}

func (l *lane2) Read(p []byte) (int, error) {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(l.in) == 0 {
		switch {
		case l.cut:
			return 0, io.EOF
		case l.closed:
			return 0, net.ErrClosed
		case !l.by.IsZero() && !time.Now().Before(l.by):
			return 0, os.ErrDeadlineExceeded
		}
		b.changed.Wait()
	}
	n := copy(p, l.in)
	l.in = l.in[n:]
	return n, nil
}

func (l *lane2) SetReadDeadline(t time.Time) error {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.by = t
	if !t.IsZero() {
		time.AfterFunc(time.Until(t)+time.Millisecond, l.b.changed.Broadcast)
	}
	return nil
}

func (l *lane2) SetDeadline(t time.Time) error      { return l.SetReadDeadline(t) }
func (l *lane2) SetWriteDeadline(t time.Time) error { return nil }

func (l *lane2) Write(p []byte) (int, error) {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.cut || l.closed || l.id == 0 && len(p) > 0 {
		return 0, errors.New("nobody waits for this")
	}
	l.out = append(l.out, p...)
	for l.id != 0 && l.step() {
	}
	return len(p), nil
}

// step understands one piece of what was written.
func (l *lane2) step() bool {
	if !l.begun {
		head, rest, ok := bytes.Cut(l.out, []byte("\r\n\r\n"))
		if ok {
			l.out = rest
			l.head(string(head))
		}
		return ok
	}
	switch l.framing {
	case "close":
		return l.send(len(l.out), false)
	case "sized":
		n := min(int64(len(l.out)), l.left)
		l.left -= n
		return l.send(int(n), l.left == 0)
	}
	if l.left > 0 {
		n := min(int64(len(l.out)), l.left)
		l.left -= n
		return l.send(int(n), false)
	}
	if bytes.HasPrefix(l.out, []byte("\r\n")) {
		l.out = l.out[2:]
	}
	line, rest, ok := bytes.Cut(l.out, []byte("\r\n"))
	if !ok {
		return false
	}
	size, _, _ := strings.Cut(string(line), ";")
	n, _ := strconv.ParseInt(size, 16, 64)
	if n > 0 {
		l.left, l.out = n, rest
		return true
	}
	if bytes.HasPrefix(rest, []byte("\r\n")) {
		l.out = nil
		return l.send(0, true)
	}
	trailers, _, ok := bytes.Cut(rest, []byte("\r\n\r\n"))
	if ok {
		l.out = nil
		l.fields(string(trailers), true)
	}
	return ok
}

// head sends a head.
func (l *lane2) head(head string) {
	line, fields, _ := strings.Cut(head, "\r\n")
	status := 0
	if words := strings.Fields(line); len(words) > 1 {
		status, _ = strconv.Atoi(words[1])
	}
	if status < 100 || status == 101 { // HTTP/2 has no way to say it
		_ = l.b.fr.WriteRSTStream(l.id, http2.ErrCodeProtocol)
		l.id = 0
		return
	}
	h := http.Header{}
	for _, f := range strings.Split(fields, "\r\n") {
		k, v, _ := strings.Cut(f, ":")
		h.Add(k, strings.TrimSpace(v))
	}
	l.begun = status >= 200
	l.framing, l.left = "close", 0
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		l.framing, l.left = "sized", n
	}
	if h.Get("Transfer-Encoding") == "chunked" {
		l.framing, l.left = "chunked", 0
	}
	end := l.begun && (l.isHead || status == 204 || status == 304 || l.framing == "sized" && l.left == 0)
	l.fields(":status: "+strconv.Itoa(status)+"\r\n"+fields, end)
}

func (l *lane2) fields(fields string, end bool) {
	b := l.b
	b.text.Reset()
	for _, f := range strings.Split(fields, "\r\n") {
		i := strings.IndexByte(f[min(1, len(f)):], ':') + 1
		if i < 1 {
			continue
		}
		k, v := strings.ToLower(f[:i]), strings.TrimSpace(f[i+1:])
		switch k {
		case "connection", "transfer-encoding", "keep-alive":
			continue
		}
		_ = b.enc.WriteField(hpack.HeaderField{Name: k, Value: v})
	}
	_ = b.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: l.id, BlockFragment: b.text.Bytes(), EndHeaders: true, EndStream: end})
	if end {
		l.id = 0
	}
}

// send sends the first n bytes as data.
func (l *lane2) send(n int, end bool) bool {
	b := l.b
	for n > 0 || end {
		k := min(n, 16<<10)
		for l.id != 0 && !b.over && (b.window < int64(k) || l.window < int64(k)) {
			b.changed.Wait()
		}
		if l.id == 0 || b.over {
			return false
		}
		last := end && k == n
		_ = b.fr.WriteData(l.id, last, l.out[:k])
		b.window, l.window = b.window-int64(k), l.window-int64(k)
		l.out, n = l.out[k:], n-k
		if last {
			l.id = 0
			return false
		}
	}
	return len(l.out) > 0
}

// CloseWrite ends what is written.
func (l *lane2) CloseWrite() error {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	l.finish()
	return nil
}

func (l *lane2) finish() {
	switch {
	case l.id == 0:
	case l.begun && l.framing == "close":
		l.send(0, true)
	default:
		_ = l.b.fr.WriteRSTStream(l.id, http2.ErrCodeInternal)
		l.id = 0
	}
}

// Close ends the lane, and the connection with the last.
func (l *lane2) Close() error {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	if !l.cut {
		l.finish()
	}
	for _, x := range b.lanes {
		if !x.closed {
			return nil
		}
	}
	_ = b.c.Close()
	return nil
}
