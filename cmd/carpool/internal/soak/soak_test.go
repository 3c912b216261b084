package soak_test

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

var soakFor = flag.Duration("soak", 3*time.Second, "how long TestSoak goes on")

// The soak: clients of all manners ask upstreams with all sorts of bad habits
// for things, through a carpool in the same process. Each request has a tag.
// The ledger knows of each tag what its upstream and its client have done to
// the exchange, so that what must come of it is known exactly.

// ledger keeps account of the exchanges under way, and counts.
type ledger struct {
	t testing.TB

	mu         sync.Mutex // guards all below
	last       uint64
	open       map[uint64]*deal
	given      []*deal // up by their clients, in order
	counts     map[string]int
	violations int
}

// deal is one exchange. What its client fixes before the request stands first;
// the rest is guarded by the ledger's mutex.
type deal struct {
	tag        uint64
	method     string
	upload     int  // bytes
	replayable bool // carpool has to send it again where that may help
	aborts     bool // the client is going to leave before the end
	lateStart  bool // the exchange is not the first in its tunnel

	runs    int       // how often an upstream has begun to carry it out
	fault   string    // what the last run does to the answer; "" nothing
	partial bool      // the last run answers without having read the upload
	whole   bool      // the last run got the whole upload
	givenUp time.Time // when the client left
}

func newLedger(t testing.TB) *ledger {
	return &ledger{t: t, open: map[uint64]*deal{}, counts: map[string]int{}}
}

// begin enters a request that is about to be sent.
func (l *ledger) begin(d *deal) *deal {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	d.tag = l.last
	d.replayable = d.method != http.MethodPost && d.upload <= 32<<10
	l.open[d.tag] = d
	l.counts["requests: "+d.method]++
	l.forgetLocked()
	return d
}

// forgetLocked drops exchanges whose clients have left, after a while: their
// requests may still have been on their way.
func (l *ledger) forgetLocked() {
	for len(l.given) > 0 && time.Since(l.given[0].givenUp) > 10*time.Second {
		delete(l.open, l.given[0].tag)
		l.given = l.given[1:]
	}
}

// run notes that an upstream begins to carry a request out.
func (l *ledger) run(tag uint64, method string) *deal {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.open[tag]
	if d == nil {
		l.violateLocked("%s %d arrived after its client was answered", method, tag)
		return nil
	}
	d.runs++
	d.fault, d.partial, d.whole = "", false, false
	switch {
	case method != d.method:
		l.violateLocked("%s %d arrived as %s", d.method, tag, method)
	case d.runs > 2, d.runs > 1 && method == http.MethodPost:
		l.violateLocked("%s %d was carried out %d times", method, tag, d.runs)
	case d.runs > 1:
		l.counts["carried out twice"]++
	}
	return d
}

// inject notes a fault before it is done.
func (l *ledger) inject(d *deal, fault string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.fault = fault
	l.counts["fault: "+fault]++
}

// uploaded notes how a run got the upload: whole, and as it was sent; or that
// it does not care.
func (l *ledger) uploaded(d *deal, whole, partial bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.whole, d.partial = whole, partial
	if whole && d.aborts && d.upload > 0 {
		l.violateLocked("%s %d: an aborted upload of %d bytes arrived as a whole one", d.method, d.tag, d.upload)
	}
}

// outcome is what a client got.
type outcome int

const (
	good    outcome = iota // the whole answer, and the right one
	gateway                // an error that carpool reports
	broken                 // the connection ended before the answer did
	wrong                  // something else
)

// settle closes the account of an exchange and judges it.
func (l *ledger) settle(d *deal, got outcome, detail string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.aborts {
		d.givenUp = time.Now()
		l.given = append(l.given, d)
	} else {
		delete(l.open, d.tag)
	}
	describe := fmt.Sprintf("%s %d (upload %d, runs %d, fault %q)", d.method, d.tag, d.upload, d.runs, d.fault)
	switch {
	case got == wrong:
		l.violateLocked("%s got a wrong answer: %s", describe, detail)
	case d.aborts:
		l.counts["left by the client"]++
	case got == good && d.fault != "":
		l.violateLocked("%s got a whole answer", describe)
	case got == good && d.runs == 0:
		l.violateLocked("%s got an answer from nowhere", describe)
	case got == good && !d.partial && !d.whole:
		l.violateLocked("%s got an answer although its upload did not arrive", describe)
	case got == good:
		l.counts["answered"]++
	case d.fault != "":
		l.counts["failed by fault"]++
	case d.runs == 0 && d.lateStart:
		l.counts["crossed a close in a tunnel"]++
	case d.runs == 0 && !d.replayable && (strings.Contains(detail, "connection_terminated") || got == broken && d.upload > 64<<10):
		l.counts["crossed a close and not repeated"]++
	default:
		l.violateLocked("%s failed: %s", describe, detail)
	}
}

// brokenOff closes the accounts of pipelined requests of which the first got no
// whole answer. As a rule the fault is that one's, and none behind it is carried
// out. But carpool is ahead of its client: the fault may be a later one's, and
// if only a reset could tell of it, then that took whole answers before it away
// (which is why RFC 9112 section 9.3.2 has clients repeat such requests).
func (l *ledger) brokenOff(all []*wish, detail string) {
	l.mu.Lock()
	last := 0
	for n, w := range all {
		if w.runs > 0 {
			last = n
		}
	}
	culprit := all[last].deal
	l.mu.Unlock()
	if last > 0 && !strings.HasSuffix(culprit.fault, "in the body") {
		l.violate("%s %d was carried out behind the last answer of its connection", culprit.method, culprit.tag)
	}
	for n, w := range all {
		switch {
		case n == last:
			l.settle(w.deal, broken, detail)
		case n < last:
			l.drop(w.deal, "lost to a reset for a later one")
		default:
			l.drop(w.deal, "behind the last answer")
		}
	}
}

// runs is how often an upstream has begun to carry a request out.
func (l *ledger) runs(d *deal) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return d.runs
}

// drop closes the account of an exchange that nothing is expected of.
func (l *ledger) drop(d *deal, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, d.tag)
	l.counts[why]++
}

func (l *ledger) violate(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violateLocked(format, args...)
}

func (l *ledger) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

func (l *ledger) violateLocked(format string, args ...any) {
	if l.violations++; l.violations <= 20 {
		l.t.Errorf(format, args...)
	}
}

func (l *ledger) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(l.counts)) {
		fmt.Fprintf(&b, "%9d %s\n", l.counts[what], what)
	}
	return b.String()
}

// contentTag is the length of a tag at either end of a body.
const contentTag = 16

// pattern is what bodies are cut from.
var pattern = func() []byte {
	b := make([]byte, 64<<10)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}()

// content is a body of n bytes that no other tag has: it begins and ends with
// the tag, if there is room, and in between there is a stretch of the pattern
// that depends on it.
type content struct {
	tag   uint64
	n, at int
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.at == c.n {
		return 0, io.EOF
	}
	mark := fmt.Sprintf("%0*x", contentTag, c.tag)
	var from []byte
	switch end := c.n - contentTag; {
	case c.at < contentTag:
		from = []byte(mark[c.at:])
	case c.at < end:
		from = pattern[(int(c.tag)*7919+c.at)%len(pattern):]
		from = from[:min(len(from), end-c.at)]
	default:
		from = []byte(mark[c.at-end:])
	}
	n := copy(p, from[:min(len(from), c.n-c.at)])
	c.at += n
	return n, nil
}

// check reads a body and tells what is wrong with it: an error of reading, or
// that it is not the one it should be.
func (c *content) check(r io.Reader) (bad string, read error) {
	got, expected := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err := r.Read(got)
		if c.at+n > c.n {
			return fmt.Sprintf("more than %d bytes", c.n), nil
		}
		_, _ = io.ReadFull(c, expected[:n])
		if string(got[:n]) != string(expected[:n]) {
			return fmt.Sprintf("byte %d to %d of %d are %.60q", c.at-n, c.at, c.n, got[:n]), nil
		}
		switch {
		case err == io.EOF && c.at < c.n:
			return fmt.Sprintf("only %d of %d bytes", c.at, c.n), nil
		case err == io.EOF:
			return "", nil
		case err != nil:
			return "", err
		}
	}
}

// footprint is what the process has.
type footprint struct {
	goroutines, descriptors int
	heap                    uint64
}

func measure() footprint {
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), len(testkit.Descriptors()), m.HeapAlloc}
}

func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	const heapSlack = 4 << 20
	before, socketsBefore := measure(), testkit.Sockets()
	l := newLedger(t)
	var upstreams []*habits
	a := carpooltest.NewAuthority(t)
	for _, h := range badHabits {
		upstreams = append(upstreams, newHabits(t, l, h, a.Issue(nil)))
	}
	local, settings := localPorts(t, upstreams)
	ca := a.File()
	c := carpooltest.Run(t, append(settings, "CARPOOL_CA_FILE="+ca, "CARPOOL_ACCESS_LOG=off", "CARPOOL_IDLE_TIMEOUT=3s", "CARPOOL_MAX_CONN_AGE=5s", "CARPOOL_MAX_IDLE_PER_HOST=20",
		"CARPOOL_BODY_IDLE_TIMEOUT=40s", "CARPOOL_RESPONSE_HEADER_TIMEOUT=40s", "CARPOOL_CONNECT_PORTS=", "CARPOOL_MAX_REQUESTS_PER_CONN=500")...)
	stop := renew(t, ca, a.PEM())
	crowd(t, l, c.Proxy, upstreams, local, *soakFor)
	stop()
	// And a little without the garbage collector, which closes lost sockets.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	crowd(t, l, c.Proxy, upstreams, local, 300*time.Millisecond)
	comesToRest(t, c, upstreams, socketsBefore)
	t.Logf("what happened:\n%s%s", l.report(), figures(c))
	if n := c.Metric("carpool_panics_total"); n > 0 {
		t.Errorf("%v panics", n)
	}
	for _, line := range c.Log.Lines() {
		if line["level"] == "error" {
			t.Errorf("the log has %v", line)
		}
	}
	c.Terminate()
	c.Exit()
	for _, u := range upstreams {
		u.close()
	}
	if l.counts["answered"] < 100 {
		t.Error("hardly anything was answered")
	}
	*l = ledger{t: t}
	var after footprint
	testkit.Eventually(t, "goroutines, descriptors and heap are back at where they were", func() bool {
		after = measure()
		return after.goroutines <= before.goroutines && after.descriptors <= before.descriptors && after.heap <= before.heap+heapSlack ||
			t.Failed()
	})
	t.Logf("before %+v, after %+v", before, after)
}

// localUpstreams is how many upstreams have a local port: the last ones, which are
// those in TLS.
const localUpstreams = 2

// localPorts returns the addresses of local ports that lead to some upstreams, and the
// settings for them. To those in TLS plain requests leave in TLS, too.
func localPorts(t testing.TB, upstreams []*habits) (at map[*habits]string, settings []string) {
	t.Helper()
	at = map[*habits]string{}
	var ports, hosts []string
	for _, u := range upstreams[len(upstreams)-localUpstreams:] {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[u] = l.Addr().String()
		_ = l.Close()
		_, port, _ := net.SplitHostPort(at[u])
		ports, hosts = append(ports, port+"=https://"+u.addr()), append(hosts, u.addr())
	}
	return at, []string{"CARPOOL_LOCAL_PORTS=" + strings.Join(ports, ","), "CARPOOL_TLS_ORIGINATE=" + strings.Join(hosts, ",")}
}

// renew writes a file of authorities anew, again and again, until stop: they are the
// same, but carpool cannot know that.
func renew(t testing.TB, file string, text []byte) (stop func()) {
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(700 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				carpooltest.Write(t, file, fmt.Appendf(nil, "%d\n%s", n, text))
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		work.Wait()
	}
}

// comesToRest checks that nothing is under way, and no socket lost, when all
// clients have gone.
func comesToRest(t testing.TB, c *carpooltest.Carpool, upstreams []*habits, socketsBefore int) {
	t.Helper()
	for _, gauge := range []string{"requests_in_flight", "client_connections", "tunnels", "connections_in_use", "requests_waiting"} {
		testkit.Eventually(t, gauge+" is 0", func() bool { return c.Metric("carpool_"+gauge) == 0 })
	}
	if testkit.Descriptors() == nil {
		return // the system does not tell
	}
	testkit.Eventually(t, "there are only listeners and, at both ends, idle upstream connections", func() bool {
		idle, open := int(c.Metric("carpool_connections_idle")), 0
		for _, u := range upstreams {
			open += u.open()
		}
		return open == idle && testkit.Sockets() <= socketsBefore+2+2*localUpstreams+len(upstreams)+2*idle
	})
}

// figures are carpool's own.
func figures(c *carpooltest.Carpool) string {
	var b strings.Builder
	now := c.Scrape()
	for _, name := range []string{
		"client_connections_accepted_total", "connections_opened_total", "connections_reused_total", "retries_total",
		"own_answers_total", "dial_errors_total", "requests_refused_total",
	} {
		fmt.Fprintf(&b, "%9.0f carpool_%s\n", now.Sum("carpool_"+name), name)
	}
	for _, reason := range []string{
		"idle_timeout", "max_age", "max_requests", "max_idle", "evicted", "upstream_closed", "closed_on_reuse", "stray_bytes",
		"not_kept", "not_trusted", "client_gone", "early_answer", "bad_answer", "timeout", "peer_dead", "peer_dead_too",
		"makes_room", "tls_changed",
	} {
		fmt.Fprintf(&b, "%9.0f closed: %s\n", now.Sum("carpool_connections_closed_total", `reason="`+reason+`"`), reason)
	}
	return b.String()
}
