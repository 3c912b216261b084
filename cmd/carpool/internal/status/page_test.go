package status

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// busy are the figures of a pool that has something of everything to show.
func busy() pool.Snapshot {
	orders := pool.Stats{
		Opened: 12, Reused: 98_765, Tally: [8]uint64{3, 0, 98_000, 0, 770, 7}, InUse: 4, Idle: 8, Waiting: 1,
		HandshakeTime: 2400 * time.Millisecond, SavedTime: 9 * time.Hour, Handshake: 2 * time.Millisecond, IdleLimit: 5 * time.Second,
		Closed: map[pool.Reason]uint64{pool.MaxAge: 7, pool.UpstreamClosed: 2},
	}
	legacy := pool.Stats{
		Opened: 40, Tally: [8]uint64{2: 40}, Closed: map[pool.Reason]uint64{pool.NotKept: 40},
	}
	total := pool.Stats{
		Opened: 52, Reused: 98_765, Tally: [8]uint64{3, 0, 98_040, 0, 770, 7}, SavedTime: 9 * time.Hour,
		Closed: map[pool.Reason]uint64{pool.MaxAge: 7, pool.UpstreamClosed: 2, pool.NotKept: 40},
	}
	return pool.Snapshot{
		Origins: []pool.OriginStats{{Origin: "http://legacy:80", Stats: legacy}, {
			Origin: "http://orders:8080", Stats: orders, Addrs: []pool.AddrStats{
				{Addr: netip.MustParseAddr("10.1.2.3"), Open: 2, Requests: 777}, {Addr: netip.MustParseAddr("fd00::7"), Open: 10, Requests: 98_000},
			},
		}},
		Total: total, MaxConns: 5000,
	}
}

func calm() proxy.Stats {
	return proxy.Stats{Clients: 3, InFlight: 2, MaxClients: 9000, Retries: 5, Errors: map[string]uint64{"dns_error": 0}}
}

func quiet() bypass.Snapshot { return bypass.Snapshot{Ports: []bypass.PortCount{{Port: 80}}} }

// sources fill in what a test does not care about.
func sources(s Sources) Sources {
	if s.Pool == nil {
		s.Pool = busy
	}
	if s.Proxy == nil {
		s.Proxy = calm
	}
	if s.Bypass == nil {
		s.Bypass = quiet
	}
	return s
}

// get renders a page, and checks that its tags match.
func get(t *testing.T, s Sources) string {
	t.Helper()
	p := New(sources(s))
	defer p.Close()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	page := w.Body.String()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return page
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

var (
	tags  = regexp.MustCompile(`<[^>]*>`)
	space = regexp.MustCompile(`\s+`)
)

// text is what a page says, from one point to another.
func text(page, from, to string) string {
	_, page, _ = strings.Cut(page, from)
	page, _, _ = strings.Cut(page, to)
	return strings.TrimSpace(space.ReplaceAllString(tags.ReplaceAllString(page, " "), " "))
}

func TestThePageSaysWhatIsSaved(t *testing.T) {
	page := get(t, Sources{})
	want := "This app’s 98,817 requests rode on 52 connections; 99.9 % found one open. " +
		"An app that opens one for each request would have made 98,765 handshakes more, and waited about 3 min 17 s for them."
	if got := text(page, `<p class="lead">`, "</p>"); got != want {
		t.Errorf("it says %q", got)
	}
}

func TestThePageBeforeTheFirstRequest(t *testing.T) {
	page := get(t, Sources{Pool: func() pool.Snapshot { return pool.Snapshot{} }})
	if got := text(page, `<p class="lead">`, "</p>"); !strings.Contains(got, "HTTP_PROXY") {
		t.Errorf("it says %q", got)
	}
	if strings.Contains(page, "Where the requests go") || strings.Contains(page, "Why connections ended") {
		t.Error("there are empty tables")
	}
}

func TestSpareTunnelsAreShownWhereThereAreSome(t *testing.T) {
	const says = "spare tunnels: 1 wait, 1,200 of 1,234 used"
	if page := get(t, Sources{}); strings.Contains(page, "spare tunnels") {
		t.Error("they are shown where there were none")
	}
	page := get(t, Sources{Pool: func() pool.Snapshot {
		s := busy()
		o := &s.Origins[1]
		o.Spares, o.SparesUsed, o.SparesMade, o.SparesUnused = 1, 1200, 1234, 33
		return s
	}})
	if !strings.Contains(page, says) {
		t.Errorf("the page does not say %q", says)
	}
}

func TestOriginsStandInATableBusiestFirst(t *testing.T) {
	page := get(t, Sources{})
	rows := strings.Split(strings.TrimSuffix(between(page, "Where the requests go", "</table>"), "</tbody>"), "<tr")
	if n := len(rows); n != 4 {
		t.Fatalf("%d rows", n-1)
	}
	for i, want := range []string{
		"http://orders:8080 requests to: fd00::7 99.2 % (10 open), 10.1.2.3 0.7 % (2 open) closed: 7 max_age, 2 upstream_closed " +
			"98,777 12 98,765 99.9 % 4 8 1 2.0 ms 3 min 17 s 5 s 3 just now 4 just now",
		"http://legacy:80 closed: 40 not_kept 40 40 0 0 % 0 0 0 – 0 – 0 0",
	} {
		if got := text("<tr"+rows[i+2]+"\x00", "", "\x00"); got != want {
			t.Errorf("row %d:\n%s, want\n%s", i, got, want)
		}
	}
	headers := regexp.MustCompile(`<th scope="col"[^>]*>([^<]+)`).FindAllStringSubmatch(rows[1], -1)
	labels := regexp.MustCompile(`data-label="([^"]+)"`).FindAllStringSubmatch(rows[2], -1)
	for i, h := range headers[1:] {
		if i >= len(labels) || labels[i][1] != h[1] {
			t.Errorf("column %d is %s in the head, and %v in a card", i, h[1], labels)
		}
	}
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

func TestHintsSayWhatToDo(t *testing.T) {
	for want, o := range map[string]pool.Stats{
		"Turn its keep-alive on": {Opened: 40, Tally: [8]uint64{2: 40}, Closed: map[pool.Reason]uint64{pool.NotKept: 40}},
		"Raise its idle timeout": {Opened: 40, Reused: 2, Closed: map[pool.Reason]uint64{pool.UpstreamClosed: 20, pool.ClosedOnReuse: 15}},
		"Have it mended":         {Opened: 40, Closed: map[pool.Reason]uint64{pool.StrayBytes: 2, pool.NotTrusted: 37}},
		"MAX_IDLE_PER_HOST":      {Opened: 40, Reused: 2, Closed: map[pool.Reason]uint64{pool.MaxIdle: 30}},
		"40 tunnels to a:80":     {Opened: 40, Closed: map[pool.Reason]uint64{pool.Tunnelled: 40}},
		"33.3 % of the requests": {Tally: [8]uint64{10, 0, 20, 0, 0, 10}},
		"60 requests wait":       {Opened: 40, Reused: 4000, Waiting: 60},
		"": {Opened: 40, Reused: 4000, Tally: [8]uint64{1, 0, 4039, 0, 0, 1}, Waiting: 2,
			Closed: map[pool.Reason]uint64{pool.NotKept: 40}},
	} {
		got := hintFor(&pool.OriginStats{Origin: "http://a:80", Stats: o})
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", o, got, want)
		}
	}
	page := get(t, Sources{Proxy: func() proxy.Stats { return proxy.Stats{Panics: 2} }})
	if got := text(page, "Look at this", "</section>"); !strings.Contains(got, "2 faults of its own") || !strings.Contains(got, "http://legacy:80 closes") {
		t.Errorf("it says %q", got)
	}
}

func TestMemoryIsShownWhereItIsLimited(t *testing.T) {
	page := get(t, Sources{Memory: func() memory.Stats { return memory.Stats{} }})
	if strings.Contains(page, "memory") {
		t.Error("without a limit it is shown too")
	}
	page = get(t, Sources{Memory: func() memory.Stats { return memory.Stats{Limit: 128 << 20, Used: 99 << 20, Refused: 1234} }})
	if got := text(page, "memory that counts", "</div>"); got != "against the limit 99 MiB of 128 MiB" {
		t.Errorf("it says %q", got)
	}
	if got := text(page, "Look at this", "</section>"); !strings.Contains(got, "1,234 requests were refused") {
		t.Errorf("it says %q", got)
	}
}

func TestWhatGoesPastIsShownWithAdvice(t *testing.T) {
	page := get(t, Sources{ProxyPort: 13128, Bypass: func() bypass.Snapshot {
		return bypass.Snapshot{
			Ports:        []bypass.PortCount{{Port: 80, Count: 5, Ended: 600}, {Port: 8080, Count: 2}},
			Destinations: []bypass.Destination{{Addr: netip.MustParseAddrPort("10.1.2.3:80"), Count: 5, Ended: 600}},
			Sockets:      bypass.Sockets{Known: true, InUse: 17, TimeWait: 4321, Outside: 1234, EphemeralPorts: 28232},
		}
	}})
	got := text(page, "What goes past carpool", "</main>")
	for _, want := range []string{
		"7 open connections of this pod to ports 80, 8080, and at least 600 that the app has closed within the last minute, were not",
		"10.1.2.3:80 5 600", "http_proxy=http://127.0.0.1:13128", "in TIME_WAIT 4,321", "in TIME_WAIT, to other hosts 1,234",
		"On loopback, between app and carpool, that is harmless;",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in: %s", want, got)
		}
	}
	for want, s := range map[string]bypass.Snapshot{
		"Nothing just now":    quiet(),
		"Nobody looks":        {},
		"not be found out: x": {Err: errors.New("x")},
	} {
		page := get(t, Sources{Bypass: func() bypass.Snapshot { return s }})
		if got := text(page, "What goes past carpool", "</section>"); !strings.Contains(got, want) || strings.Contains(got, "What to set") {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}

// An app that opens a connection for each request has none open at most looks.
func TestWhatHasGonePastIsShownWithAdviceToo(t *testing.T) {
	page := get(t, Sources{ProxyPort: 13128, Bypass: func() bypass.Snapshot {
		return bypass.Snapshot{
			Ports:        []bypass.PortCount{{Port: 80, Ended: 600}},
			Destinations: []bypass.Destination{{Addr: netip.MustParseAddrPort("10.1.2.3:80"), Ended: 600}},
			Sockets:      bypass.Sockets{Known: true, TimeWait: 700, Outside: -1},
		}
	}})
	got := text(page, "What goes past carpool", "</main>")
	for _, want := range []string{"at least 600 that", "10.1.2.3:80 0 600", "What to set", "harmless on loopback only"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in: %s", want, got)
		}
	}
	if strings.Contains(got, "to other hosts") {
		t.Error("it says how many lead to other hosts, which is not known")
	}
}

func TestErrorsHaveATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards what follows: the sampler looks, too
		errors, failed := map[string]uint64{"dns_error": 0, "connection_refused": 0}, uint64(0)
		happen := func(kind string, n, failures uint64) {
			mu.Lock()
			defer mu.Unlock()
			errors[kind], failed = n, failures
		}
		p := New(sources(Sources{
			Proxy: func() proxy.Stats {
				mu.Lock()
				defer mu.Unlock()
				return proxy.Stats{Errors: maps.Clone(errors)}
			},
			Pool: func() pool.Snapshot {
				s := busy()
				mu.Lock()
				defer mu.Unlock()
				s.Origins[0].Tally[proxy.OwnAnswers] = failed
				return s
			},
		}))
		defer p.Close()
		time.Sleep(time.Hour + time.Second) // between two samples
		happen("dns_error", 3, 1)
		time.Sleep(samplePeriod) // the sampler sees it, although nobody looks
		show := func() string {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			return text(w.Body.String(), "Where the requests go", "</main>")
		}
		if got := show(); !strings.Contains(got, "dns_error 3 just now 502") || strings.Contains(got, "connection_refused") {
			t.Errorf("it says %s", got)
		}
		time.Sleep(5 * time.Minute)
		happen("connection_refused", 1, 1)
		got := show()
		for _, want := range []string{"dns_error 3 5 min 1 s ago 502", "connection_refused 1 just now 502", "– 1 5 min 1 s ago 0"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in: %s", want, got)
			}
		}
	})
}

func TestMostAddressesAreShownMostUsedFirst(t *testing.T) {
	var all []pool.AddrStats
	for i := range 20 {
		all = append(all, pool.AddrStats{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Requests: uint64(i)})
	}
	all = append(all, pool.AddrStats{Requests: 810}) // the rest
	list, more := addrs(all)
	if len(list) != maxAddrs || more != 21-maxAddrs || list[0] != (addr{"others", "81 %", "0", ""}) || list[1] != (addr{"10.0.0.19", "1.9 %", "0", ""}) {
		t.Errorf("%v, %d more", list, more)
	}
	for want, a := range map[string]pool.AddrStats{
		"":                                 {Chosen: true, Open: 3},
		"no longer an address of the name": {Leaving: true, Benched: "fails"},
		"left alone for 3 s: cannot be connected to": {Benched: "cannot be connected to", BenchedFor: 3 * time.Second},
		"tried again: cannot be connected to":        {Benched: "cannot be connected to"},
	} {
		if list, _ := addrs([]pool.AddrStats{a}); list[0].State != want {
			t.Errorf("%+v is said to be %q, want %q", a, list[0].State, want)
		}
	}
	if list, more := addrs(nil); list != nil || more != 0 {
		t.Errorf("of none it shows %v", list)
	}
}

func TestTimeSavedIsWhatIsUsualByNow(t *testing.T) {
	// The two handshakes that had been made by then were slow, for all was.
	stalled := pool.OriginStats{Origin: "http://a:80", Stats: pool.Stats{
		Opened: 9, Reused: 1000, HandshakeTime: 3 * time.Second, SavedTime: 1500 * time.Second, Handshake: 2 * time.Millisecond,
	}}
	other := pool.OriginStats{Origin: "other", Stats: pool.Stats{Opened: 5, Reused: 100, SavedTime: time.Second}}
	s := pool.Snapshot{Origins: []pool.OriginStats{stalled, other}, Total: pool.Stats{
		Opened: 15, Reused: 1200, SavedTime: 1502 * time.Second, // a second of it at an origin that is forgotten
	}}
	if got := savedTime(&s); got != 4*time.Second {
		t.Errorf("%v are saved, want 2 s at one and 1 s at others and at forgotten ones", got)
	}
}

func TestNothingOfThePageIsTakenForMarkup(t *testing.T) {
	const evil = `"><script>alert('x')</script><b a='`
	page := get(t, Sources{
		Pool: func() pool.Snapshot {
			s := busy()
			for i := range s.Origins {
				s.Origins[i].Origin = evil
				s.Origins[i].Closed[evil] = 50
			}
			s.Total.Closed[evil] = 1
			return s
		},
		Proxy:  func() proxy.Stats { return proxy.Stats{Errors: map[string]uint64{evil: 1}} },
		Bypass: func() bypass.Snapshot { return bypass.Snapshot{Err: errors.New(evil)} },
	})
	if strings.Contains(page, "alert('x')") || strings.Count(page, "<script>") != 1 {
		t.Error("it got through")
	}
	if n := strings.Count(page, "alert(&#39;x&#39;)"); n < 6 {
		t.Errorf("it is shown %d times", n)
	}
}

// A policy that does not fit the page would leave it without style and script.
func TestTheSecurityPolicyFitsThePage(t *testing.T) {
	p := New(sources(Sources{}))
	defer p.Close()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	policy, page := w.Header().Get("Content-Security-Policy"), w.Body.String()
	for _, element := range []string{"style", "script"} {
		sum := sha256.Sum256([]byte(between(page, "<"+element+">", "</"+element+">")))
		if want := element + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"; !strings.Contains(policy, want) {
			t.Errorf("%s is not in %s", want, policy)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy: %s", policy)
	}
	if found := regexp.MustCompile(`\s(style|on\w+|src)=`).FindAllString(page, -1); found != nil {
		t.Errorf("the policy forbids %q", found)
	}
	for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains([]string{"/metrics", "data:,"}, link[1]) {
			t.Errorf("it refers to %s", link[1])
		}
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestThePageIsBounded(t *testing.T) {
	s := busy()
	for i := range 1000 {
		o := s.Origins[i%2]
		o.Origin = fmt.Sprintf("http://%0250d:80", i) // the longest names there are
		o.Closed = map[pool.Reason]uint64{}
		for reason := range closeMeanings {
			o.Closed[reason] = 123_456_789
		}
		s.Origins = append(s.Origins, o)
	}
	p := New(sources(Sources{Pool: func() pool.Snapshot { return s }}))
	defer p.Close()
	for _, r := range flat(120, 1e12, 1e15) {
		p.history.add(sample{r.at, r.opened, r.exchanges})
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if n := w.Body.Len(); n > 256<<10 {
		t.Errorf("%d bytes", n)
	}
	if got := text(w.Body.String(), "And ", " with"); got != "902 more" {
		t.Errorf("and %q", got)
	}
}

func TestOnlyGETAndHEAD(t *testing.T) {
	p := New(sources(Sources{}))
	defer p.Close()
	server := httptest.NewServer(p)
	defer server.Close()
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		req, err := http.NewRequest(method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s: %s, %v", method, resp.Status, err)
		}
		if method == "HEAD" && (len(body) > 0 || resp.ContentLength < 1000) {
			t.Errorf("HEAD: %d bytes, announced are %d", len(body), resp.ContentLength)
		}
		if status == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow: %s", method, resp.Header.Get("Allow"))
		}
	}
}

// TestEverythingHasAMeaning keeps the page's words in step with the pool's
// reasons and the proxy's error types.
func TestEverythingHasAMeaning(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "..", "..", "pool", "lease.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Reason" {
			name, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if closeMeanings[pool.Reason(name)] == "" {
				t.Errorf("the reason %s has no meaning", name)
			}
			reasons++
		}
		return true
	})
	if reasons != len(closeMeanings) {
		t.Errorf("%d reasons, %d meanings", reasons, len(closeMeanings))
	}
	upstreams, err := pool.New(pool.Config{PendingTimeout: time.Second, DialTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer upstreams.Close()
	p, err := proxy.New(proxy.Config{Upstreams: upstreams})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	kinds := p.Stats().Errors
	for kind := range kinds {
		if errorMeanings[kind] == "" {
			t.Errorf("the error type %s has no meaning", kind)
		}
	}
	if len(kinds) != len(errorMeanings) {
		t.Errorf("%d error types, %d meanings", len(kinds), len(errorMeanings))
	}
}
