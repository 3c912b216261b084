package check

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/status"
	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

const (
	// patience bounds the wait for the head of an answer, bodyTime that for its body: a stream of events has no end.
	patience = 30 * time.Second
	bodyTime = 3 * time.Second
	// maxBody is how much of a body is read, and maxHead of all before it.
	maxBody = 1 << 20
	maxHead = 2 << 20
	// maxFields is how many header fields are shown.
	maxFields = 30
)

// Response is the answer to a GET, as the app would get it.
type Response struct {
	Status int                 `json:"status"`
	Own    bool                `json:"own"` // it is carpool's
	Header map[string][]string `json:"header,omitempty"`
	// FirstByte and Took are when the head was there, and all that was read.
	FirstByte float64 `json:"first_byte_ms"`
	Took      float64 `json:"took_ms"`
	// Body is how many bytes were read; Whole says that these are all.
	Body  int64 `json:"body_bytes"`
	Whole bool  `json:"body_whole"`
	// Kept says that carpool keeps the connection, Closed why not. IdleHint is for how many seconds the upstream said that
	// it may idle; 0: it did not say.
	Kept     bool        `json:"kept"`
	Closed   pool.Reason `json:"closed,omitempty"`
	IdleHint float64     `json:"idle_hint_seconds"`
	Error    string      `json:"error,omitempty"`

	text string // the body of an answer of carpool's own
}

// answer sends a GET, or a CONNECT, to a proxy of this check's own, which is as the one that serves.
func (t *trip) answer(ctx context.Context) found {
	if !t.verbose {
		return found{}
	}
	var r Response
	err := t.request(ctx, &r)
	t.kept(&r)
	switch {
	case err != nil:
		r.Error = logs.Text(err.Error())
		a := proxy.Answer{Text: "the request was sent, and there was no whole answer: " + r.Error}
		if isTimeout(err) {
			a.Text = fmt.Sprintf("the upstream has not answered in %v. carpool waits on: CARPOOL_RESPONSE_HEADER_TIMEOUT=%v", patience, t.cfg.ResponseHeaderTimeout)
		}
		return failed(r, a, "", r.lines(t)...)
	case r.Own:
		return failed(r, proxy.Answer{Status: r.Status, Error: ownError(r.Header), Text: r.text}, "", r.lines(t)...)
	}
	if t.reached = http.StatusText(r.Status); t.reached == "" {
		t.reached = "with a status of its own"
	}
	t.reached = fmt.Sprintf("%d %s", r.Status, t.reached)
	if t.isTunnel() {
		t.reached = ""
	}
	f := found{lines: r.lines(t), facts: r}
	if r.Status >= 500 {
		f.state = Warning
	}
	return f
}

// request sends the request and reads the answer, but not more than a bound of it.
func (t *trip) request(ctx context.Context, r *Response) error {
	l, err := sock.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = t.proxy.Serve(l, proxy.Lane{}) }() // ends with proxy.Close
	ctx, cancel := context.WithTimeout(ctx, patience+bodyTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	began, own := time.Now(), t.ownAnswers()
	_ = c.SetReadDeadline(began.Add(patience))
	method, target := http.MethodGet, t.url
	if t.isTunnel() {
		method, target = http.MethodConnect, t.authority
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: carpool-check\r\nAccept: */*\r\nConnection: close\r\n\r\n", method, target, t.authority); err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	if err := r.read(c, method, began); err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	r.Took, r.Own = ms(time.Since(began)), t.ownAnswers() > own
	return nil
}

// read reads the answer, and to the end of the connection, by when carpool has done with the upstream's.
func (r *Response) read(c net.Conn, method string, began time.Time) error {
	head := &io.LimitedReader{R: c, N: maxHead}
	in := bufio.NewReader(head)
	var answer *http.Response
	for answer == nil || answer.StatusCode < 200 && answer.StatusCode != http.StatusSwitchingProtocols {
		var err error
		if answer, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			return err
		}
	}
	r.Status, r.FirstByte = answer.StatusCode, ms(time.Since(began))
	r.Header = shown(answer.Header)
	if method == http.MethodConnect && r.Status == http.StatusOK {
		r.Whole = true
		return nil
	}
	head.N = 2 * maxBody // with what is around it
	_ = c.SetReadDeadline(time.Now().Add(bodyTime))
	return r.readBody(answer.Body, in)
}

// readBody reads a bounded part of a body, and if that is all the end of the connection.
func (r *Response) readBody(body io.Reader, connection io.Reader) error {
	var text strings.Builder
	n, err := io.CopyN(&text, body, 1<<10)
	r.text = logs.Text(strings.TrimSpace(text.String()))
	if r.Body = n; err == nil {
		n, err = io.CopyN(io.Discard, body, maxBody-n)
		r.Body += n
	}
	switch {
	case err == nil, isTimeout(err):
		return nil // there is more than anybody needs
	case !errors.Is(err, io.EOF):
		return err
	}
	r.Whole = true
	_, err = io.Copy(io.Discard, io.LimitReader(connection, 1)) // carpool closes behind the answer
	return err
}

// ownAnswers is how many answers carpool has made itself.
func (t *trip) ownAnswers() (n uint64) {
	for _, count := range t.proxy.Stats().Errors {
		n += count
	}
	return n
}

// ownError is the error that Proxy-Status names.
func ownError(h map[string][]string) string {
	for _, v := range h["Proxy-Status"] {
		if _, name, ok := strings.Cut(v, "error="); ok {
			name, _, _ = strings.Cut(name, ";")
			return name
		}
	}
	return ""
}

// shown are header fields that can be printed, a bounded number of them.
func shown(h http.Header) map[string][]string {
	out := map[string][]string{}
	for i, name := range slices.Sorted(maps.Keys(h)) {
		if i == maxFields {
			break
		}
		for _, v := range h[name][:min(len(h[name]), maxFields)] {
			out[logs.Text(name)] = append(out[logs.Text(name)], logs.Text(v))
		}
	}
	return out
}

// kept says what has become of the upstream's connection.
func (t *trip) kept(r *Response) {
	x, ok := t.pool.Inspect(t.origin.Key())
	if !ok {
		return
	}
	r.Kept, r.IdleHint = x.Idle > 0, x.Hint.Seconds()
	for reason := range x.Closed {
		if !r.Kept {
			r.Closed = reason // there was one connection
		}
	}
}

func (r *Response) lines(t *trip) []string {
	if r.Status == 0 {
		return []string{r.Error}
	}
	lines := []string{fmt.Sprintf("%d %s, first byte after %.1f ms, all after %.1f ms", r.Status, http.StatusText(r.Status), r.FirstByte, r.Took)}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			lines = append(lines, name+": "+v)
		}
	}
	switch {
	case t.isTunnel() && r.Status == http.StatusOK:
		return lines
	case r.Whole:
		lines = append(lines, fmt.Sprintf("body of %s, not shown", count(int(r.Body), "byte")))
	default:
		lines = append(lines, fmt.Sprintf("body of %s and more, not read on", count(int(r.Body), "byte")))
	}
	if r.Own {
		return lines
	}
	switch {
	case r.Kept && r.IdleHint > 0:
		lines = append(lines, fmt.Sprintf("the connection is kept; the upstream lets it idle for %.0f s", r.IdleHint))
	case r.Kept:
		lines = append(lines, "the connection is kept; the upstream does not say for how long it may idle")
	case r.Whole && r.Closed != "":
		lines = append(lines, fmt.Sprintf("the connection is not kept, %s: %s", r.Closed, status.Meaning(r.Closed)))
	}
	return lines
}
