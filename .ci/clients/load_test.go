package clients

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
)

// A load asks at a fixed rate, whatever becomes of the requests: GET and POST in
// turn, most of them on a connection of their own, as old Node.js does, and some on
// connections that are kept. It takes any answer but the right one for a failure,
// and repeats nothing.
type load struct {
	proxy, authority string
	stop             chan struct{}
	ended            <-chan error
	work             sync.WaitGroup
	kept             chan net.Conn
	restarts         []restart // of the test's own goroutine

	mu       sync.Mutex // guards the rest
	outcomes []outcome
	by       map[string]int // answers, by the server's address
}

// A restart is when a server was away.
type restart struct {
	server *nginxServer
	// From signalled to ended it may have cut off what it had been sent; from back
	// on it has its share again.
	signalled, ended, back time.Time
}

// An outcome is what has become of a request.
type outcome struct {
	id           int
	method       string
	begun, ended time.Time
	failure      string // "": it was answered rightly
}

// path names the request.
func (o *outcome) path() string { return fmt.Sprint("/", o.id) }

// keptClients bounds the clients' connections that are kept.
const keptClients = 64

// startLoad asks until the test ends, or end is called.
func startLoad(t *testing.T, proxy, authority string) *load {
	l := &load{
		proxy: proxy, authority: authority, stop: make(chan struct{}),
		kept: make(chan net.Conn, keptClients), by: map[string]int{},
	}
	l.ended = testkit.In(l.run)
	t.Cleanup(l.end)
	return l
}

// run begins each request when it is due.
func (l *load) run() error {
	tick := time.NewTicker(time.Second / rollingRate)
	defer tick.Stop()
	begin := time.Now()
	for next := 0; ; {
		select {
		case <-l.stop:
			return nil
		case <-tick.C:
		}
		due := int(time.Since(begin).Seconds() * rollingRate)
		for id := next; id < due; id++ {
			l.work.Go(func() { l.do(id) })
		}
		next = max(next, due)
	}
}

// end returns when all requests have ended.
func (l *load) end() {
	select {
	case <-l.stop:
		return
	default:
	}
	close(l.stop)
	<-l.ended
	l.work.Wait()
	close(l.kept)
	for c := range l.kept {
		c.Close()
	}
}

// do does one request.
func (l *load) do(id int) {
	o := outcome{id: id, method: []string{http.MethodGet, http.MethodPost}[id%2], begun: time.Now()}
	server, err := l.exchange(&o, id/2%4 == 0)
	if o.ended = time.Now(); err != nil {
		o.failure = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, o)
	if err == nil {
		l.by[server]++
	}
}

// exchange returns who has answered.
func (l *load) exchange(o *outcome, keep bool) (server string, err error) {
	c, err := l.connect(keep)
	if err != nil {
		return "", err
	}
	whole := false
	defer func() {
		if !whole || !keep || !l.keep(c) {
			c.Close()
		}
	}()
	c.SetDeadline(time.Now().Add(clientTimeout))
	var body, fields string
	if o.method == http.MethodPost {
		body = strings.Repeat(fmt.Sprint(o.id, " "), 1+o.id%50)
		fields = fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if !keep {
		fields += "Connection: close\r\n"
	}
	if _, err := fmt.Fprintf(c, "%s http://%s%s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", o.method, l.authority, o.path(), l.authority, fields, body); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: o.method})
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	whole = !response.Close
	switch want := fmt.Sprintf("%s %s %s", o.method, o.path(), body); {
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%d, %s: %.200q", response.StatusCode, response.Header.Get("Proxy-Status"), answer)
	case string(answer) != want:
		return "", fmt.Errorf("mixed up: %.60q, want %.60q", answer, want)
	}
	return response.Header.Get("Server-Address"), nil
}

func (l *load) connect(kept bool) (net.Conn, error) {
	if kept {
		select {
		case c := <-l.kept:
			return c, nil
		default:
		}
	}
	return net.Dial("tcp", l.proxy)
}

// keep reports whether there is room for one more connection.
func (l *load) keep(c net.Conn) bool {
	select {
	case l.kept <- c:
		return true
	default:
		return false
	}
}

// count is how many requests have ended.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.outcomes)
}

// answers is how many a server has given.
func (l *load) answers(s *nginxServer) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[s.address]
}

// awaitAnswers waits until a server has given n more answers.
func (l *load) awaitAnswers(t *testing.T, s *nginxServer, n int) {
	t.Helper()
	before := l.answers(s)
	testkit.Eventually(t, "requests go to "+s.address, func() bool { return l.answers(s) >= before+n })
}

// awaitMore waits until n more requests have ended.
func (l *load) awaitMore(t *testing.T, n int) {
	t.Helper()
	before := l.count()
	testkit.Eventually(t, "requests end", func() bool { return l.count() >= before+n })
}

// failed returns the requests that have failed.
func (l *load) failed() (all []outcome) {
	for _, o := range l.outcomes {
		if o.failure != "" {
			all = append(all, o)
		}
	}
	return all
}

// mayFail reports whether a request may have been sent to a server that ended before
// it had answered, and is not to be sent again: it was under way as one did, and its
// failure says no less. GET is sent again unless it was the first on its connection
// (row P19).
func (l *load) mayFail(o outcome) bool {
	says := "error=connection_terminated"
	if o.method == http.MethodGet {
		says = "the upstream closed the connection without an answer"
	}
	return strings.Contains(o.failure, says) && slices.ContainsFunc(l.restarts, func(r restart) bool {
		return o.begun.Before(r.ended) && o.ended.After(r.signalled)
	})
}

// sinceRestart is how long after the last restart before it a request ended.
func (l *load) sinceRestart(o outcome) (d time.Duration) {
	for _, r := range l.restarts {
		if r.signalled.Before(o.ended) {
			d = o.ended.Sub(r.signalled)
		}
	}
	return d
}

// report logs the figures.
func (l *load) report(t *testing.T, c *carpool) {
	t.Helper()
	opened, err := c.sum("carpool_connections_opened_total")
	retries, err2 := c.sum("carpool_retries_total")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, o := range l.failed() {
		kinds[o.method+" "+o.failure]++
	}
	var all, near []time.Duration
	for _, o := range l.outcomes {
		all = append(all, o.ended.Sub(o.begun))
		if slices.ContainsFunc(l.restarts, func(r restart) bool { return o.ended.After(r.signalled) && o.begun.Before(r.back) }) {
			near = append(near, o.ended.Sub(o.begun))
		}
	}
	t.Logf("%d requests, %.0f upstream connections, %.0f retries; answers by server %v; failed: %v", len(all), opened, retries, l.by, kinds)
	t.Logf("p50 %v, p99 %v, p99.9 %v; while a server was away or had just come back: %v, %v, %v",
		quantile(all, 0.5), quantile(all, 0.99), quantile(all, 0.999), quantile(near, 0.5), quantile(near, 0.99), quantile(near, 0.999))
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))].Round(10 * time.Microsecond)
}
