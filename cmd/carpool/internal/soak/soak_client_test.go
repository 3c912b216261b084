package soak_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// visitor is a client of the soak.
type visitor struct {
	ctx       context.Context
	l         *ledger
	proxy     string
	upstreams []*habits
	local     map[*habits]string // local ports that lead to some of them
	conn      *carpooltest.Client
	at        string // where conn leads if it is a local port
}

// manners are the kinds of clients, and how many there are of each.
var manners = []struct {
	many int
	do   func(*visitor)
}{
	{10, (*visitor).keepsOne}, {8, (*visitor).opensOneEach}, {4, (*visitor).isOldFashioned},
	{3, (*visitor).pipelines}, {4, (*visitor).leaves}, {3, (*visitor).tunnels},
	{4, (*visitor).usesALocalPort},
}

// crowd lets the clients do as they use to for a while.
func crowd(t testing.TB, l *ledger, proxy string, upstreams []*habits, local map[*habits]string, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var work sync.WaitGroup
	for _, m := range manners {
		for range m.many {
			work.Go(func() {
				v := &visitor{ctx: ctx, l: l, proxy: proxy, upstreams: upstreams, local: local}
				defer v.hangUp()
				for v.rest() {
					m.do(v)
				}
			})
		}
	}
	work.Wait()
}

// rest makes a pause: mostly a short one, sometimes one that is as long as
// upstreams keep idle connections. It reports whether there is time for more.
func (v *visitor) rest() bool {
	pause := rand.N(4 * time.Millisecond)
	if chance(0.05) {
		pause = rand.N(600 * time.Millisecond)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-v.ctx.Done():
		return false
	}
}

// connect sees to it that there is a connection, and that nothing has come on
// it that was not asked for.
func (v *visitor) connect() bool {
	if v.conn != nil && v.conn.In.Buffered() > 0 {
		rest, _ := v.conn.In.Peek(min(v.conn.In.Buffered(), 60))
		v.l.violate("bytes behind an answer: %q", rest)
		v.hangUp()
	}
	if v.conn == nil {
		var err error
		if v.conn, err = carpooltest.Dial(cmp.Or(v.at, v.proxy)); err != nil {
			v.l.violate("connecting to carpool: %v", err)
			return false
		}
	}
	_ = v.conn.SetDeadline(time.Now().Add(2 * testkit.Patience))
	return true
}

func (v *visitor) hangUp() {
	if v.conn != nil {
		_ = v.conn.Close()
		v.conn = nil
	}
}

// wish is a request to be made.
type wish struct {
	*deal
	to      *habits
	size    int  // of the answer
	chunked bool // the upload
	http10  bool
	close   bool
	expect  bool
	tunnel  bool
	local   bool
	think   int // milliseconds
}

// wish makes a request up, and enters it in the ledger.
func (v *visitor) wish(change func(*wish)) *wish {
	w := &wish{deal: &deal{}, to: v.upstreams[rand.IntN(len(v.upstreams))], size: someSize()}
	w.method = []string{"GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"}[rand.IntN(8)]
	if w.method == "POST" || w.method == "PUT" || w.method == "DELETE" && chance(0.2) {
		if w.upload = someSize(); chance(0.1) {
			w.upload = 0
		}
		w.chunked, w.expect = chance(0.4), chance(0.1)
	}
	change(w)
	if w.upload == 0 {
		w.chunked, w.expect = false, false
	}
	v.l.begin(w.deal)
	return w
}

// someSize is a size of a body: mostly small, up to 1 MB.
func someSize() int {
	most := 2000
	switch n := rand.IntN(20); {
	case n == 0:
		most = 1 << 20
	case n < 5:
		most = 100 << 10
	}
	return 2*contentTag + rand.IntN(most-2*contentTag)
}

// head writes the head of the request.
func (w *wish) head() string {
	var b strings.Builder
	target, version := "http://"+w.to.addr(), 1
	if w.to.tls && chance(0.5) { // or else it leaves in TLS all the same
		target = "https://" + w.to.addr()
	}
	if w.tunnel || w.local {
		target = ""
	}
	if w.http10 {
		version = 0
	}
	fmt.Fprintf(&b, "%s %s/some/path?n=%d HTTP/1.%d\r\nHost: %s\r\nX-Tag: %d\r\nX-Size: %d\r\n", w.method, target, w.tag, version, w.to.addr(), w.tag, w.size)
	switch {
	case w.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\nTrailer: X-After\r\n")
	case w.upload > 0 || w.method == "POST" || w.method == "PUT":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", w.upload)
	}
	if w.expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	if w.tunnel {
		b.WriteString("X-Tunnel: 1\r\n")
	} else {
		b.WriteString("TE: trailers\r\nProxy-Connection: keep-alive\r\n")
	}
	if w.think > 0 {
		fmt.Fprintf(&b, "X-Think: %d\r\n", w.think)
	}
	switch {
	case w.close:
		b.WriteString("Connection: close\r\n")
	case w.http10:
		b.WriteString("Connection: keep-alive\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// body writes the first n bytes of the upload, and the end if that is all.
func (w *wish) body(to io.Writer, n int) error {
	dst := to
	if w.chunked {
		dst = httputil.NewChunkedWriter(to)
	}
	for src := (&content{tag: w.tag, n: w.upload}); src.at < n; {
		if _, err := io.CopyN(dst, src, int64(min(n-src.at, 1+rand.IntN(32<<10)))); err != nil {
			return err
		}
	}
	if !w.chunked || n < w.upload {
		return nil
	}
	_, err := fmt.Fprintf(to, "0\r\nX-After: %d\r\n\r\n", w.tag)
	return err
}

// do makes a request on the visitor's connection and settles it. It reports
// whether the connection can be used further; it is closed if not.
func (v *visitor) do(w *wish) bool {
	if !v.connect() {
		v.l.settle(w.deal, broken, "no connection to carpool")
		return false
	}
	_, err := io.WriteString(v.conn, w.head())
	if err == nil && w.expect {
		// A server may keep silent about it, and then gets the body after a while.
		_ = v.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		first, _ := v.conn.In.Peek(len("HTTP/1.1 1"))
		_ = v.conn.SetReadDeadline(time.Now().Add(2 * testkit.Patience))
		if len(first) > 0 && !strings.HasSuffix(string(first), " 1") {
			err = io.EOF // the answer is there: it did not want the body
		}
	}
	if err == nil {
		_ = w.body(v.conn, w.upload) // there may be an answer even if that fails
	}
	got, detail, keep := v.receive(w)
	v.l.settle(w.deal, got, detail)
	if !keep || w.close || err != nil {
		v.hangUp()
		return false
	}
	return true
}

// receive reads the answer and compares it with what it should be.
func (v *visitor) receive(w *wish) (got outcome, detail string, keep bool) {
	r, err := http.ReadResponse(v.conn.In, &http.Request{Method: w.method})
	for err == nil && r.StatusCode < 200 {
		switch {
		case w.http10:
			return wrong, "an informational answer to HTTP/1.0", false
		case r.StatusCode == http.StatusEarlyHints && r.Header.Get("X-Tag") != strconv.FormatUint(w.tag, 10):
			return wrong, "early hints for " + r.Header.Get("X-Tag"), false
		}
		r, err = http.ReadResponse(v.conn.In, &http.Request{Method: w.method})
	}
	if err != nil {
		return broken, err.Error(), false
	}
	keep = !r.Close
	if status := r.Header.Get("Proxy-Status"); status != "" {
		_, err := io.Copy(io.Discard, r.Body)
		return gateway, status, keep && err == nil
	}
	if r.Header.Get("X-Tag") != strconv.FormatUint(w.tag, 10) {
		return wrong, fmt.Sprintf("status %d for %q", r.StatusCode, r.Header.Get("X-Tag")), false
	}
	if w.http10 && r.TransferEncoding != nil {
		return wrong, "chunks for HTTP/1.0", false
	}
	size, _ := strconv.Atoi(r.Header.Get("X-Length"))
	if w.method == "HEAD" {
		size = 0
	}
	bad, read := (&content{tag: w.tag, n: size}).check(r.Body)
	_, announced := r.Trailer["X-After"]
	switch {
	case read != nil:
		return broken, read.Error(), false
	case bad != "":
		return wrong, bad, false
	case announced && w.method != "HEAD" && !w.http10 && r.Trailer.Get("X-After") != strconv.FormatUint(w.tag, 10):
		return wrong, fmt.Sprintf("trailers %v", r.Trailer), false
	}
	return good, "", keep
}

func (v *visitor) keepsOne() { v.do(v.wish(func(*wish) {})) }

func (v *visitor) opensOneEach() {
	v.do(v.wish(func(w *wish) { w.close = chance(0.7) }))
	v.hangUp() // whether it said so or not
}

func (v *visitor) isOldFashioned() {
	v.do(v.wish(func(w *wish) { w.http10, w.chunked, w.expect, w.close = true, false, false, chance(0.5) }))
}

// pipelines sends some requests in one go.
func (v *visitor) pipelines() {
	if !v.connect() {
		return
	}
	var all []*wish
	var heads strings.Builder
	for range 2 + rand.IntN(4) {
		w := v.wish(func(w *wish) { w.upload = 0 })
		all = append(all, w)
		heads.WriteString(w.head())
	}
	_, _ = io.WriteString(v.conn, heads.String())
	for ; len(all) > 0; all = all[1:] {
		got, detail, keep := v.receive(all[0])
		if keep {
			v.l.settle(all[0].deal, got, detail)
			continue
		}
		v.hangUp()
		if got == broken {
			v.l.brokenOff(all, detail)
			return
		}
		v.l.settle(all[0].deal, got, detail)
		for _, w := range all[1:] {
			if v.l.runs(w.deal) > 0 {
				v.l.violate("%s %d was carried out behind the last answer of its connection", w.method, w.tag)
			}
			v.l.drop(w.deal, "behind the last answer")
		}
		return
	}
}

// leaves goes away in the middle of something.
func (v *visitor) leaves() {
	if !v.connect() {
		return
	}
	when := rand.IntN(3)
	w := v.wish(func(w *wish) {
		w.aborts = true
		switch when {
		case 0: // the upload
			w.method, w.upload, w.expect = []string{"POST", "PUT"}[rand.IntN(2)], 2*contentTag+rand.IntN(1<<20), false
		case 1: // the answer
			w.method, w.upload, w.size = "GET", 0, 200<<10+rand.IntN(1<<20)
		case 2: // the wait
			w.upload, w.think = 0, 100+rand.IntN(900)
		}
	})
	_, _ = io.WriteString(v.conn, w.head())
	got := broken
	switch when {
	case 0:
		_ = w.body(v.conn, rand.IntN(w.upload))
	case 1:
		r, err := http.ReadResponse(v.conn.In, &http.Request{Method: w.method})
		for err == nil && r.StatusCode < 200 {
			r, err = http.ReadResponse(v.conn.In, &http.Request{Method: w.method})
		}
		if err == nil && r.Header.Get("Proxy-Status") == "" {
			if r.Header.Get("X-Tag") != strconv.FormatUint(w.tag, 10) {
				got = wrong
			}
			_, _ = io.CopyN(io.Discard, r.Body, rand.Int64N(int64(w.size)/2))
		}
	}
	v.l.settle(w.deal, got, "")
	if chance(0.5) {
		reset(v.conn.Conn.(*net.TCPConn))
	}
	v.hangUp()
}

// usesALocalPort asks the upstream of a local port for things, on a connection that
// it keeps or does not.
func (v *visitor) usesALocalPort() {
	for to, at := range v.local { // any
		v.hangUp()
		v.at = at
		defer func() {
			v.hangUp()
			v.at = ""
		}()
		for range 1 + rand.IntN(5) {
			w := v.wish(func(w *wish) { w.to, w.local, w.close = to, true, chance(0.3) })
			if !v.do(w) || !v.rest() {
				return
			}
		}
		return
	}
}

// tunnels speaks to an upstream through a CONNECT tunnel.
func (v *visitor) tunnels() {
	v.hangUp()
	if !v.connect() {
		return
	}
	defer v.hangUp()
	to := v.upstreams[rand.IntN(len(v.upstreams))]
	fmt.Fprintf(v.conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to.addr(), to.addr())
	r, err := http.ReadResponse(v.conn.In, &http.Request{Method: "CONNECT"})
	if err != nil || r.StatusCode != 200 {
		v.l.violate("CONNECT is answered %v, %v", r, err)
		return
	}
	v.l.count("requests: CONNECT")
	for n := range 1 + rand.IntN(5) {
		w := v.wish(func(w *wish) {
			w.to, w.tunnel, w.lateStart, w.upload = to, true, n > 0, 0
			w.method = []string{"GET", "POST"}[rand.IntN(2)]
		})
		if !v.do(w) || !v.rest() {
			return
		}
	}
}
