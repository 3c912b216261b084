package admin

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/pool"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("carpool_"+name, help, labels, nil)
}

// The metrics. Labels are bounded: origins beyond the first few hundred are
// counted together as "other", and reasons and classes are few.
var (
	requests    = desc("requests_total", "Answers by the first digit of their status.", "origin", "code_class")
	ownAnswers  = desc("own_answers_total", "Answers that carpool made itself because the upstream could not be reached or gave none.", "origin")
	opened      = desc("connections_opened_total", "Upstream connections opened.", "origin")
	reused      = desc("connections_reused_total", "Exchanges carried on an upstream connection that was already open.", "origin")
	closed      = desc("connections_closed_total", "Upstream connections closed.", "origin", "reason")
	dialErrors  = desc("dial_errors_total", "Upstream connections that could not be opened.", "origin")
	handshakes  = desc("handshake_seconds_total", "Time spent on opening upstream connections: resolving, connecting, TLS.", "origin")
	saved       = desc("handshake_seconds_saved_total", "Time that reused connections would have cost to open, about: what opening one usually took by then.", "origin")
	inUse       = desc("connections_in_use", "Upstream connections in use.", "origin")
	idle        = desc("connections_idle", "Upstream connections that wait for a request.", "origin")
	waiting     = desc("requests_waiting", "Requests that wait for an upstream connection.", "origin")
	idleLimit   = desc("learned_idle_limit_seconds", "After how long the upstream was seen to close idle connections; 0: not known.", "origin")
	waits       = desc("pool_wait_seconds", "How long exchanges waited for an upstream connection.")
	dials       = desc("dial_seconds", "How long it took to open an upstream connection.")
	inFlight    = desc("requests_in_flight", "Requests being carried.")
	tunnels     = desc("tunnels", "CONNECT tunnels open.")
	clients     = desc("client_connections", "Client connections open.")
	accepted    = desc("client_connections_accepted_total", "Client connections accepted.")
	refused     = desc("requests_refused_total", "Requests that were malformed or not allowed.")
	retries     = desc("retries_total", "Requests sent a second time on a fresh connection.")
	errorTypes  = desc("error_answers_total", "Answers that carpool made itself because something was wrong, by error type of RFC 9209.", "error")
	connsLimit  = desc("connections_limit", "Most upstream connections at a time; 0: no limit.")
	originLimit = desc("connections_per_origin_limit", "Most upstream connections to one origin at a time; 0: no limit but the one on all.")
	waitLimit   = desc("requests_waiting_limit", "Most requests that wait for a connection to one origin.")
	clientLimit = desc("client_connections_limit", "Most client connections at a time; 0: no limit.")
	panics      = desc("panics_total", "Faults of carpool's own that were contained; each cost one connection at most.")
	linesLost   = desc("log_lines_dropped_total", "Log lines that were not written: unread, because stderr was not read in time; flood, because there were many of the kind.", "reason")
	classLabels = [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

// collector reads the figures at each scrape, so that counting costs the
// request path nothing more.
type collector struct {
	pool  Pool
	proxy Proxy
	log   Log
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		requests, ownAnswers, opened, reused, closed, dialErrors, handshakes, saved, inUse, idle, waiting, idleLimit,
		waits, dials, inFlight, tunnels, clients, accepted, refused, retries, panics,
		errorTypes, connsLimit, originLimit, waitLimit, clientLimit, linesLost,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.pool.Snapshot()
	for i := range s.Origins {
		collectOrigin(ch, &s.Origins[i])
	}
	ch <- histogram(waits, &s.Waits)
	ch <- histogram(dials, &s.Dials)
	p := c.proxy.Stats()
	gauge(ch, inFlight, float64(p.InFlight))
	gauge(ch, tunnels, float64(p.Tunnels))
	gauge(ch, clients, float64(p.Clients))
	counter(ch, accepted, float64(p.Accepted))
	counter(ch, refused, float64(p.Refused))
	counter(ch, retries, float64(p.Retries))
	counter(ch, panics, float64(p.Panics+s.Panics))
	for kind, n := range p.Errors {
		counter(ch, errorTypes, float64(n), kind)
	}
	gauge(ch, connsLimit, float64(s.MaxConns))
	gauge(ch, originLimit, float64(s.MaxConnsPerHost))
	gauge(ch, waitLimit, float64(s.MaxPendingPerHost))
	gauge(ch, clientLimit, float64(p.MaxClients))
	unread, flood := c.log.Dropped()
	counter(ch, linesLost, float64(unread), "unread")
	counter(ch, linesLost, float64(flood), "flood")
}

func collectOrigin(ch chan<- prometheus.Metric, o *pool.OriginStats) {
	for class, n := range o.Tally {
		if class > 0 {
			counter(ch, requests, float64(n), o.Origin, classLabels[class])
		}
	}
	counter(ch, ownAnswers, float64(o.Tally[0]), o.Origin)
	counter(ch, opened, float64(o.Opened), o.Origin)
	counter(ch, reused, float64(o.Reused), o.Origin)
	counter(ch, dialErrors, float64(o.DialErrors), o.Origin)
	counter(ch, handshakes, o.HandshakeTime.Seconds(), o.Origin)
	counter(ch, saved, o.SavedTime.Seconds(), o.Origin)
	gauge(ch, inUse, float64(o.InUse), o.Origin)
	gauge(ch, idle, float64(o.Idle), o.Origin)
	gauge(ch, waiting, float64(o.Waiting), o.Origin)
	gauge(ch, idleLimit, o.IdleLimit.Seconds(), o.Origin)
	for reason, n := range o.Closed {
		counter(ch, closed, float64(n), o.Origin, string(reason))
	}
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// histogram turns counts by bucket into cumulative ones.
func histogram(d *prometheus.Desc, h *pool.Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(pool.Buckets))
	sum := uint64(0)
	for i, bound := range pool.Buckets {
		sum += h.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	total := sum + h.Counts[len(pool.Buckets)]
	return prometheus.MustNewConstHistogram(d, total, math.Max(h.Sum.Seconds(), 0), buckets)
}
