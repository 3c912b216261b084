package admin

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// exposition is all metrics at some time, in Prometheus' text format. All who ask share its bytes.
type exposition struct {
	text   []byte
	zipped func() []byte // made when first asked for
	err    error
}

func gather(from prometheus.Gatherer) *exposition {
	families, err := from.Gather()
	var b bytes.Buffer
	encoder := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err == nil {
			err = encoder.Encode(f)
		}
	}
	e := &exposition{text: b.Bytes(), err: err}
	e.zipped = sync.OnceValue(func() []byte { return zip(e.text) })
	return e
}

func zip(text []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is a good one
	_, _ = z.Write(text)                            // to memory
	_ = z.Close()
	return b.Bytes()
}

// ServeHTTP answers with the metrics.
func (e *exposition) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.err != nil {
		http.Error(w, "the metrics cannot be gathered: "+e.err.Error(), http.StatusInternalServerError)
		return
	}
	body, h := e.text, w.Header()
	h.Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	h.Set("Vary", "Accept-Encoding")
	if takesGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		body = e.zipped()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// takesGzip reads Accept-Encoding (RFC 9110 section 12.5.3) as far as scrapers go.
func takesGzip(h http.Header) bool {
	for field := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, weight, weighted := strings.Cut(strings.ReplaceAll(field, " ", ""), ";q=")
		if strings.EqualFold(coding, "gzip") {
			return !weighted || strings.Trim(weight, "0.") != ""
		}
	}
	return false
}
