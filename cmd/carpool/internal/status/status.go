// Package status is the page on the admin listener that shows a person what
// carpool does for the app: what it saves, to whom it talks, what goes wrong
// and what goes past it. One HTML document without external parts; it reads
// figures and decides nothing.
package status

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/fresh"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Sources are where the figures come from. Pool and Proxy must be set.
type Sources struct {
	Pool  func() pool.Snapshot
	Proxy func() proxy.Stats
	// Bypass tells what goes past carpool, Memory how much is left; nil leaves
	// that part out.
	Bypass func() bypass.Snapshot
	Memory func() memory.Stats
	// ProxyPort is the port that the app is to be sent to.
	ProxyPort uint16
}

// Page serves the status page, and keeps an hour of history for it. It is safe
// for concurrent use.
type Page struct {
	from    Sources
	started time.Time
	history history
	recent  recent
	looks   sync.Mutex // held while figures are taken, so that looks come in their order
	shown   *fresh.Value[rendered]
	stop    context.CancelFunc
	work    sync.WaitGroup // the sampler
}

// New returns a Page, which takes samples until Close.
func New(from Sources) *Page {
	ctx, stop := context.WithCancel(context.Background())
	p := &Page{from: from, started: time.Now(), stop: stop}
	p.shown = fresh.New(freshFor, p.render)
	p.sample(p.started)
	p.work.Go(func() {
		tick := time.NewTicker(samplePeriod)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				p.sample(now)
			case <-ctx.Done():
				return
			}
		}
	})
	return p
}

// Close ends sampling. The page can still be served.
func (p *Page) Close() {
	p.stop()
	p.work.Wait()
}

func (p *Page) sample(now time.Time) {
	s, _ := p.look(now)
	p.history.add(sample{now, s.Total.Opened, s.Total.Reused})
}

// look takes the figures, and notes what went wrong since the last look.
func (p *Page) look(now time.Time) (pool.Snapshot, proxy.Stats) {
	p.looks.Lock()
	defer p.looks.Unlock()
	s, stats := p.from.Pool(), p.from.Proxy()
	p.recent.note(now, &s, &stats)
	return s, stats
}

var (
	//go:embed page.html
	html string
	//go:embed page.css
	css string
	//go:embed page.js
	js string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"css": func() template.CSS { return template.CSS(css) },
		"js":  func() template.JS { return template.JS(js) },

		"plural": plural,
	}).Parse(html))

	// Only the page's own style and script are applied, whatever might get into
	// it, and nothing is loaded from elsewhere.
	contentSecurityPolicy = "default-src 'none'; style-src " + hash(css) + "; script-src " + hash(js) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// hash is a source of a Content-Security-Policy: an inline element with this
// text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// freshFor is how long a page is given out again.
const freshFor = time.Second

// rendered is the page as it was at some time.
type rendered struct {
	html []byte
	err  error
}

func (p *Page) render() rendered {
	var b bytes.Buffer
	err := page.Execute(&b, p.view(time.Now()))
	return rendered{b.Bytes(), err}
}

// ServeHTTP answers GET and HEAD with the page.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the status page can only be read", http.StatusMethodNotAllowed)
		return
	}
	shown := p.shown.Get()
	if shown.err != nil {
		http.Error(w, "the status page cannot be shown: "+shown.err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(shown.html)))
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(shown.html) // net/http leaves it out for HEAD
}
