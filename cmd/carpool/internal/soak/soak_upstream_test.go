package soak_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// habit is how an upstream of the soak behaves. Shares are from 0 to 1.
type habit struct {
	idle     time.Duration // after which it closes, by a reset every other time
	faults   float64       // the share of exchanges that it spoils
	oddities float64       // the share of exchanges with something unusual about them that must do no harm
	silent   float64       // the share of answers after which it closes without having said so
	twice    float64       // the share of exchanges in which it sends a second answer, after which it is not kept for long
	most     int           // requests per connection, which it tells, as it tells how long it keeps them; 0 is any
	http10   bool          // it speaks HTTP/1.0
	pause    time.Duration // it takes up to so long for an answer
	tls      bool          // it speaks TLS
}

var badHabits = []habit{
	{idle: 50 * time.Millisecond, faults: 0.02, oddities: 0.2, silent: 0.02},
	{idle: 120 * time.Millisecond, faults: 0.2, oddities: 0.5, twice: 0.1, pause: 5 * time.Millisecond},
	{idle: 500 * time.Millisecond, silent: 0.2, oddities: 0.2},
	{idle: 200 * time.Millisecond, oddities: 1, pause: 20 * time.Millisecond},
	{idle: 1500 * time.Millisecond, most: 20, oddities: 0.1},
	{idle: 300 * time.Millisecond, http10: true, faults: 0.05, oddities: 0.2},
	{idle: 10 * time.Second}, // a good one
	{tls: true, idle: 120 * time.Millisecond, faults: 0.1, oddities: 0.3, silent: 0.05, pause: 5 * time.Millisecond},
	{tls: true, idle: 10 * time.Second, oddities: 0.1},
}

// habits is an upstream of the soak.
type habits struct {
	habit
	l     *ledger
	cert  *tls.Config
	ln    net.Listener
	work  sync.WaitGroup
	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

func newHabits(t testing.TB, l *ledger, h habit, cert tls.Certificate) *habits {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &habits{habit: h, l: l, cert: &tls.Config{Certificates: []tls.Certificate{cert}}, ln: ln, conns: map[net.Conn]bool{}}
	u.work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns[c] = true
			u.mu.Unlock()
			u.work.Go(func() {
				u.serve(c.(*net.TCPConn))
				u.mu.Lock()
				delete(u.conns, c)
				u.mu.Unlock()
			})
		}
	})
	t.Cleanup(u.close)
	return u
}

func (u *habits) addr() string { return u.ln.Addr().String() }

func (u *habits) open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

func (u *habits) close() {
	_ = u.ln.Close()
	u.mu.Lock()
	for c := range u.conns {
		_ = c.Close()
	}
	u.mu.Unlock()
	u.work.Wait()
}

func chance(share float64) bool { return rand.Float64() < share }

// reset closes a connection so that the peer sees a reset. What the kernel has
// not delivered by then is lost, so who means no harm asks for that first.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// How a connection is to end.
var (
	errReset = errors.New("to be reset")
	errClose = errors.New("to be closed")
)

// serve serves one connection. It does not close one before the first request:
// who has just connected to a server that lives may count on it.
func (u *habits) serve(c *net.TCPConn) {
	defer c.Close()
	over := stream(c)
	if u.tls {
		over = tls.Server(c, u.cert)
	}
	in := bufio.NewReader(over)
	for served := 0; ; served++ {
		if served > 0 {
			_ = c.SetReadDeadline(time.Now().Add(u.idle))
		}
		if _, err := in.Peek(1); err != nil {
			if chance(0.5) && delivered(c) {
				reset(c)
			}
			return
		}
		_ = c.SetDeadline(time.Now().Add(testkit.Patience))
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		tag, _ := strconv.ParseUint(r.Header.Get("X-Tag"), 10, 64)
		d := u.l.run(tag, r.Method)
		if d == nil {
			return
		}
		e := &episode{habits: u, deal: d, r: r, c: c, over: over, out: bufio.NewWriterSize(over, 8<<10), last: u.most > 0 && served+1 >= u.most, left: u.most - served - 1}
		if err := e.play(); err != nil {
			if err == errReset {
				reset(c)
			}
			return
		}
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// stream is what a connection's bytes go through.
type stream interface {
	net.Conn
	CloseWrite() error
}

// episode is one exchange as an upstream of the soak has it.
type episode struct {
	*habits
	deal *deal
	r    *http.Request
	c    *net.TCPConn
	over stream // c, or TLS over it
	out  *bufio.Writer
	last bool // of the connection
	left int  // requests it takes after this one

	status  int
	size    int
	framing framing
}

type framing int

const (
	sized framing = iota
	chunked
	chunkedTrailer
	untilClose
)

// play reads the request and answers it. An error says that the connection has
// to end, and how.
func (e *episode) play() error {
	e.size, _ = strconv.Atoi(e.r.Header.Get("X-Size"))
	e.framing = framing(rand.IntN(4))
	e.status = http.StatusOK
	if e.deal.method == http.MethodDelete && chance(0.3) {
		e.status, e.size = http.StatusNoContent, 0
	}
	odd := chance(e.oddities)
	if e.http10 && (e.framing == chunked || e.framing == chunkedTrailer) {
		e.framing = untilClose
	}
	if e.r.Header.Get("X-Tunnel") != "" && e.framing == untilClose || e.status == http.StatusNoContent {
		e.framing = sized
	}
	if odd && e.r.ContentLength != 0 && chance(0.3) {
		return e.answerEarly()
	}
	fault := ""
	if chance(e.faults) {
		fault = e.chooseFault()
	}
	if fault == "no answer" && chance(0.5) {
		e.l.inject(e.deal, fault)
		return pick(errReset, errClose)
	}
	if err := e.takeUpload(); err != nil {
		return err
	}
	if fault != "" {
		e.l.inject(e.deal, fault)
	}
	if fault == "no answer" {
		return pick(errReset, errClose)
	}
	e.think()
	if odd && chance(0.3) && !e.http10 {
		e.l.count("oddity: informed before")
		fmt.Fprintf(e.out, "HTTP/1.1 103 Early Hints\r\nX-Tag: %d\r\nLink: </style.css>\r\n\r\n", e.deal.tag)
		if chance(0.5) {
			_ = e.out.Flush()
		}
	}
	if chance(e.twice) && e.size < 2000 && e.deal.method != http.MethodHead && e.r.Header.Get("X-Tunnel") == "" {
		return e.answerTwice(fault)
	}
	return e.answer(fault)
}

// think lets the client wait, as long as it wants to.
func (e *episode) think() {
	if ms, err := strconv.Atoi(e.r.Header.Get("X-Think")); err == nil {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	if e.pause > 0 && chance(0.3) {
		time.Sleep(rand.N(e.pause))
	}
}

func pick(a, b error) error {
	if chance(0.5) {
		return a
	}
	return b
}

func (e *episode) chooseFault() string {
	faults := []string{"no answer", "half a head"}
	if e.deal.method != http.MethodHead && e.size > 0 {
		faults = append(faults, "reset in the body", "reset in the body")
		if e.framing != untilClose { // or nobody could tell it from the end
			faults = append(faults, "close in the body", "close in the body")
		}
	}
	return faults[rand.IntN(len(faults))]
}

// takeUpload reads the request's body.
func (e *episode) takeUpload() error {
	if e.r.Header.Get("Expect") != "" && !e.http10 {
		if _, err := io.WriteString(e.over, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return errClose
		}
	}
	bad, read := (&content{tag: e.deal.tag, n: e.deal.upload}).check(e.r.Body)
	if read != nil {
		return errClose // the client left
	}
	if bad == "" && e.deal.upload > 0 && e.r.ContentLength < 0 && e.r.Trailer.Get("X-After") != strconv.FormatUint(e.deal.tag, 10) {
		bad = fmt.Sprintf("the trailers are %v", e.r.Trailer)
	}
	if bad != "" {
		e.l.violate("%s %d: the upload arrived wrong: %s", e.deal.method, e.deal.tag, bad)
	}
	e.l.uploaded(e.deal, true, false)
	return nil
}

// answerEarly answers without having read the request's body.
func (e *episode) answerEarly() error {
	e.l.count("oddity: early answer")
	e.l.uploaded(e.deal, false, true)
	e.status, e.size, e.framing = http.StatusRequestEntityTooLarge, 200, sized
	e.last = e.last || chance(0.5)
	_ = e.answer("")
	return e.leave()
}

// leave ends a connection with the request half read: by the book (RFC 9112
// section 9.6), or not; or it goes on with it, as if more were to come.
func (e *episode) leave() error {
	switch rand.IntN(3) {
	case 0:
		return errClose
	case 1:
		bad, read := (&content{tag: e.deal.tag, n: e.deal.upload}).check(e.r.Body)
		if bad != "" {
			e.l.violate("%s %d: behind the half of an upload there came something else: %s", e.deal.method, e.deal.tag, bad)
		}
		if bad != "" || read != nil { // cut off, as a rule
			return errClose
		}
		e.l.count("oddity: early answer, and then all of the upload")
		return nil
	}
	_ = e.over.CloseWrite()
	_ = e.c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.Copy(io.Discard, e.over)
	return errClose
}

// answerTwice lets a second answer follow that nobody asked for.
func (e *episode) answerTwice(fault string) error {
	if fault != "" {
		return e.answer(fault)
	}
	e.l.count("oddity: two answers")
	e.framing, e.last = sized, false
	e.head()
	_, _ = io.Copy(e.out, &content{tag: e.deal.tag, n: e.size})
	io.WriteString(e.out, "HTTP/1.1 200 OK\r\nX-Tag: 0\r\nContent-Length: 6\r\n\r\npoison")
	_ = e.out.Flush()
	return errClose
}

// head writes the head of the answer.
func (e *episode) head() {
	version := "HTTP/1.1"
	if e.http10 {
		version = "HTTP/1.0"
	}
	fmt.Fprintf(e.out, "%s %d %s\r\nX-Tag: %d\r\nX-Length: %d\r\n", version, e.status, http.StatusText(e.status), e.deal.tag, e.size)
	switch {
	case e.status == http.StatusNoContent:
	case e.framing == sized:
		fmt.Fprintf(e.out, "Content-Length: %d\r\n", e.size)
	case e.framing == chunked:
		io.WriteString(e.out, "Transfer-Encoding: chunked\r\n")
	case e.framing == chunkedTrailer:
		io.WriteString(e.out, "Transfer-Encoding: chunked\r\nTrailer: X-After\r\n")
	}
	if e.http10 && e.framing != untilClose && !e.last {
		io.WriteString(e.out, "Connection: keep-alive\r\n")
	}
	if e.most > 0 {
		fmt.Fprintf(e.out, "Keep-Alive: timeout=%d, max=%d\r\n", int(e.idle.Seconds()), e.left)
	}
	if e.last && chance(0.5) || e.framing == untilClose && chance(0.5) {
		io.WriteString(e.out, "Connection: close\r\n")
	}
	io.WriteString(e.out, "\r\n")
}

// answer writes the answer, as far as the fault lets it.
func (e *episode) answer(fault string) error {
	e.head()
	if fault == "half a head" {
		n := rand.IntN(e.out.Buffered()-2) + 1
		// Without the end of the head, whatever was written.
		half := make([]byte, n)
		copy(half, fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Tag: %d\r\nX-Half", e.deal.tag))
		e.out.Reset(e.over)
		_, _ = e.over.Write(half[:min(n, 20)])
		return pick(errReset, errClose)
	}
	if e.deal.method != http.MethodHead && e.status != http.StatusNoContent {
		if err := e.body(fault); err != nil {
			return err
		}
	}
	if err := e.out.Flush(); err != nil {
		return errClose
	}
	switch {
	case e.framing == untilClose, e.last:
		return errClose
	case chance(e.silent):
		e.l.count("oddity: closed after the answer")
		if delivered(e.c) {
			return pick(errReset, errClose)
		}
		return errClose
	}
	return nil
}

func (e *episode) body(fault string) error {
	var to io.Writer = e.out
	var chunks io.WriteCloser
	if e.framing == chunked || e.framing == chunkedTrailer {
		chunks = httputil.NewChunkedWriter(e.out)
		to = chunks
	}
	src := &content{tag: e.deal.tag, n: e.size}
	stop := e.size
	if fault != "" {
		stop = rand.IntN(e.size)
	}
	for src.at < stop {
		piece := min(stop-src.at, 1+rand.IntN(64<<10))
		if _, err := io.CopyN(to, src, int64(piece)); err != nil {
			return errClose
		}
		if chance(0.05) {
			_ = e.out.Flush()
			time.Sleep(rand.N(5 * time.Millisecond)) // it stalls
		}
	}
	if fault != "" {
		_ = e.out.Flush()
		if fault == "reset in the body" {
			return errReset
		}
		return errClose
	}
	if chunks != nil {
		_ = chunks.Close()
		if e.framing == chunkedTrailer {
			fmt.Fprintf(e.out, "X-After: %d\r\n", e.deal.tag)
		}
		io.WriteString(e.out, "\r\n")
	}
	return nil
}
