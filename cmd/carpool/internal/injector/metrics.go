package injector

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An outcome is what became of a review.
type outcome int

const (
	injected outcome = iota
	unchanged
	refused
	failed
)

var outcomes = [...]string{"injected", "unchanged", "refused", "failed"}

// within are the bounds of the histogram of how long reviews take, in seconds.
var within = [...]float64{0.001, 0.005, 0.025, 0.1, 0.5, 1, 3}

// counts are the injector's figures. They are safe for concurrent use.
type counts struct {
	mu      sync.Mutex // guards all below
	reviews [len(outcomes)]uint64
	took    [len(within) + 1]uint64 // by the first bound that is not exceeded
	seconds float64
	missed  map[string]int // pods without carpool, by namespace; nil: not counted yet
}

func (c *counts) review(how outcome, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reviews[how]++
	c.seconds += took.Seconds()
	i := slices.IndexFunc(within[:], func(bound float64) bool { return took.Seconds() <= bound })
	if i < 0 {
		i = len(within)
	}
	c.took[i]++
}

func (c *counts) setMissed(missed map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.missed = missed
}

// metrics answers Prometheus, in its text format.
func metrics(c *counts, k *keeper) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var b strings.Builder
		c.write(&b)
		ready, until := 0, int64(0)
		if k.ready() == nil {
			ready = 1
		}
		if s := k.served.Load(); s != nil {
			until = s.leaf.Leaf.NotAfter.Unix()
		}
		head(&b, "ready", "gauge", "1 if the API server can call this replica, as far as is known, otherwise 0.")
		line(&b, "ready", "", ready)
		head(&b, "certificate_expiry_timestamp_seconds", "gauge", "When the certificate that is served ends; 0: there is none.")
		line(&b, "certificate_expiry_timestamp_seconds", "", until)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write([]byte(b.String()))
	}
}

func (c *counts) write(b *strings.Builder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	head(b, "reviews_total", "counter", "Reviews of pods by what became of them: injected, unchanged, refused with a reason, failed.")
	for i, n := range c.reviews {
		line(b, "reviews_total", `{outcome="`+outcomes[i]+`"}`, n)
	}
	head(b, "review_seconds", "histogram", "How long reviews took.")
	sum := uint64(0)
	for i, n := range c.took {
		bound := "+Inf"
		if i < len(within) {
			bound = strconv.FormatFloat(within[i], 'g', -1, 64)
		}
		sum += n
		line(b, "review_seconds_bucket", `{le="`+bound+`"}`, sum)
	}
	line(b, "review_seconds_sum", "", c.seconds)
	line(b, "review_seconds_count", "", sum)
	if c.missed == nil {
		return
	}
	head(b, "pods_missed", "gauge", "Pods that run without carpool and that labels say should have it, by their namespace.")
	for _, namespace := range slices.Sorted(maps.Keys(c.missed)) {
		line(b, "pods_missed", "{pod_namespace="+strconv.Quote(namespace)+"}", c.missed[namespace])
	}
}

func head(b *strings.Builder, name, kind, help string) {
	fmt.Fprintf(b, "# HELP carpool_injector_%s %s\n# TYPE carpool_injector_%[1]s %[3]s\n", name, help, kind)
}

func line(b *strings.Builder, name, labels string, value any) {
	fmt.Fprintf(b, "carpool_injector_%s%s %v\n", name, labels, value)
}
