package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// metrics is the table of everything that carpool exports, besides what the Go
// runtime and the process tell of themselves: a new figure is a line here.
// Labels are bounded: origins beyond the first few hundred are counted together
// as "other", and reasons, classes and error types are few.
var metrics = []metric{
	// Each origin.
	{"requests_total", counter, "Answers by the first digit of their status.", labels{"origin", "code_class"}, byClass},
	{"own_answers_total", counter, "Answers that carpool made itself because the upstream could not be reached or gave none.", origin, each(func(o *pool.OriginStats) uint64 { return o.Tally[proxy.OwnAnswers] })},
	{"connections_opened_total", counter, "Upstream connections opened.", origin, each(func(o *pool.OriginStats) uint64 { return o.Opened })},
	{"connections_reused_total", counter, "Exchanges carried on an upstream connection that was already open.", origin, each(func(o *pool.OriginStats) uint64 { return o.Reused })},
	{"connections_closed_total", counter, "Upstream connections closed.", labels{"origin", "reason"}, byReason},
	{"dial_errors_total", counter, "Upstream connections that could not be opened.", origin, each(func(o *pool.OriginStats) uint64 { return o.DialErrors })},
	{"handshake_seconds_total", counter, "Time spent on opening upstream connections: resolving, connecting, TLS.", origin, each(func(o *pool.OriginStats) float64 { return o.HandshakeTime.Seconds() })},
	{"handshake_seconds_saved_total", counter, "Time that reused connections would have cost to open, about: what opening one usually took by then.", origin, each(func(o *pool.OriginStats) float64 { return o.SavedTime.Seconds() })},
	{"connections_in_use", gauge, "Upstream connections in use.", origin, each(func(o *pool.OriginStats) int { return o.InUse })},
	{"connections_idle", gauge, "Upstream connections that wait for a request.", origin, each(func(o *pool.OriginStats) int { return o.Idle })},
	{"shared_connections", gauge, "Upstream connections in HTTP/2, which carry many requests at a time.", origin, each(func(o *pool.OriginStats) int { return o.Shared })},
	{"shared_requests", gauge, "Requests that these carry.", origin, each(func(o *pool.OriginStats) int { return o.Streams })},
	{"shared_goaways_total", counter, "Upstream connections in HTTP/2 of which the upstream said that it takes no more requests.", origin, each(func(o *pool.OriginStats) uint64 { return o.GoAways })},
	{"shared_resets_total", counter, "Requests in HTTP/2 that either side has ended before their end.", origin, each(func(o *pool.OriginStats) uint64 { return o.Resets })},
	{"shared_pings_total", counter, "How often a silent upstream was asked for a sign of life, in HTTP/2.", origin, each(func(o *pool.OriginStats) uint64 { return o.Pings })},
	{"requests_waiting", gauge, "Requests that wait for an upstream connection.", origin, each(func(o *pool.OriginStats) int { return o.Waiting })},
	{"warm_connections_wanted", gauge, "Connections that CARPOOL_WARM asks to keep open to the upstream.", origin, warm(func(o *pool.OriginStats) int { return o.Warm })},
	{"warm_connections_open", gauge, "How many of these there are, idle or in use.", origin, warm(func(o *pool.OriginStats) int { return o.WarmOpen })},
	{"spare_tunnels", gauge, "Idle connections that wait for a tunnel.", origin, spare(func(o *pool.OriginStats) int { return o.Spares })},
	{"spare_tunnels_made_total", counter, "Connections opened to wait for a tunnel.", origin, spare(func(o *pool.OriginStats) uint64 { return o.SparesMade })},
	{"spare_tunnels_used_total", counter, "Of these, those that a tunnel got.", origin, spare(func(o *pool.OriginStats) uint64 { return o.SparesUsed })},
	{"spare_tunnels_unused_total", counter, "Of these, those that were closed without.", origin, spare(func(o *pool.OriginStats) uint64 { return o.SparesUnused })},
	{"learned_idle_limit_seconds", gauge, "After how long the upstream was seen to close idle connections; 0: not known.", origin, each(func(o *pool.OriginStats) float64 { return o.IdleLimit.Seconds() })},

	// All upstreams together.
	{"pool_wait_seconds", distribution, "How long exchanges waited for an upstream connection.", nil, func(f *figures, out *sink) { out.spread(&f.pool.Waits) }},
	{"dial_seconds", distribution, "How long it took to open an upstream connection.", nil, func(f *figures, out *sink) { out.spread(&f.pool.Dials) }},
	{"connections_limit", gauge, "Most upstream connections at a time; 0: no limit.", nil, one(func(f *figures) int { return f.pool.MaxConns })},
	{"connections_per_origin_limit", gauge, "Most upstream connections to one origin at a time; 0: no limit but the one on all.", nil, one(func(f *figures) int { return f.pool.MaxConnsPerHost })},
	{"requests_waiting_limit", gauge, "Most requests that wait for a connection to one origin.", nil, one(func(f *figures) int { return f.pool.MaxPendingPerHost })},

	// Names of upstreams.
	{"dns_lookups_total", counter, "Look-ups of names made.", nil, one(func(f *figures) uint64 { return f.pool.DNS.LookUps })},
	{"dns_lookups_saved_total", counter, "Connections opened without a look-up, because the addresses were known.", nil, one(func(f *figures) uint64 { return f.pool.DNS.Saved })},
	{"dns_lookups_failed_total", counter, "Look-ups that no name server has answered. That a name does not exist is an answer.", nil, one(func(f *figures) uint64 { return f.pool.DNS.Failed })},
	{"dns_stale_used_total", counter, "Connections opened to the last addresses of a name while the name servers failed.", nil, one(func(f *figures) uint64 { return f.pool.DNS.Stale })},
	{"dns_queries_total", counter, "Queries sent to name servers.", nil, one(func(f *figures) uint64 { return f.pool.DNS.Queries })},
	{"dns_queries_saved_total", counter, "Queries not sent, because it was known which name of the search list exists.", nil, one(func(f *figures) uint64 { return f.pool.DNS.Spared })},
	{"dns_names", gauge, "Names whose addresses are remembered.", nil, one(func(f *figures) int { return f.pool.DNS.Names })},
	{"dns_names_stale", gauge, "Names whose last addresses are used on because the name servers fail.", nil, one(func(f *figures) int { return f.pool.DNS.StaleNames })},

	// Clients and requests.
	{"requests_in_flight", gauge, "Requests being carried.", nil, one(func(f *figures) int { return f.proxy.InFlight })},
	{"request_duration_seconds", distribution, "How long requests took from their first byte to the last of the answer. Those that became tunnels are left out.", nil, func(f *figures, out *sink) { out.spread(&f.proxy.Durations) }},
	{"request_phase_seconds", distribution, "Where that time went: waiting for a connection (wait), the steps of opening one that the request waited for (dns, connect, tls), until the answer began (first_byte), all else (rest). A phase counts the requests that it took time of.", labels{"phase"}, byPhase},
	{"tunnels", gauge, "CONNECT tunnels open.", nil, one(func(f *figures) int { return f.proxy.Tunnels })},
	{"client_connections", gauge, "Client connections open.", nil, one(func(f *figures) int { return f.proxy.Clients })},
	{"client_connections_limit", gauge, "Most client connections at a time; 0: no limit.", nil, one(func(f *figures) int { return f.proxy.MaxClients })},
	{"client_connections_accepted_total", counter, "Client connections accepted.", nil, one(func(f *figures) uint64 { return f.proxy.Accepted })},
	{"requests_refused_total", counter, "Requests that were malformed or not allowed.", nil, one(func(f *figures) uint64 { return f.proxy.Refused })},
	{"retries_total", counter, "Requests sent a second time on a fresh connection.", nil, one(func(f *figures) uint64 { return f.proxy.Retries })},
	{"error_answers_total", counter, "Answers that carpool made itself because something was wrong, by error type of RFC 9209.", labels{"error"}, byError},
	{"next_hop_failures_total", counter, "Requests and tunnels that the next hop (CARPOOL_NEXT_PROXY) has kept from going on, by error type of RFC 9209. There is none without a next hop, and none of a type that did not occur.", labels{"error"}, byHopError},
	{"policy_refusals_total", counter, "Requests, and addresses about to be dialled, that a rule on where requests may go has refused (action: refused), or would have if CARPOOL_POLICY were enforce (action: reported).", labels{"rule", "action"}, byRule},

	{"local_port_requests_total", counter, "Requests that came on a port of CARPOOL_LOCAL_PORTS and went on to its upstream.", labels{"port"}, byLane},

	// Carpool itself.
	{"panics_total", counter, "Faults of carpool's own that were contained; each cost one connection at most.", nil, one(func(f *figures) uint64 { return f.proxy.Panics + f.pool.Panics })},
	{"log_lines_dropped_total", counter, "Log lines that were not written: unread, because stderr was not read in time; flood, because there were many of the kind.", labels{"reason"}, byLoss},
	{"tls_files_changes_total", counter, "Changes of the files of TLS, of CARPOOL_CA_FILE, CARPOOL_CLIENT_CERT_FILE and CARPOOL_CLIENT_KEY_FILE, that came into force (result: renewed) or were no good (result: rejected).", labels{"result"}, byResult},
	{"memory_limit_bytes", gauge, "Memory limit of the container; 0: no limit.", nil, one(func(f *figures) int64 { return f.memory.Limit })},
	{"memory_used_bytes", gauge, "Memory of the container that the kernel cannot take back; 0 without a limit.", nil, one(func(f *figures) int64 { return f.memory.Used })},
	{"shedding", gauge, "1 while new requests are refused because memory is short, otherwise 0.", nil, one(func(f *figures) int { return truth(f.memory.Shedding) })},
	{"requests_shed_total", counter, "Requests and tunnels refused because memory was short.", nil, one(func(f *figures) uint64 { return f.memory.Refused })},

	// The pod. What could not be found out is left out.
	{"bypass_connections", gauge, "Open connections of the pod to ports of plain HTTP that carpool did not make.", labels{"port"}, byPort(func(p bypass.PortCount) int { return p.Count })},
	{"bypass_time_wait_sockets", gauge, "Connections of the pod to ports of plain HTTP that carpool did not make and that the app has closed within the last minute, at least.", labels{"port"}, byPort(func(p bypass.PortCount) int { return p.Ended })},
	{"pod_tcp_sockets", gauge, "TCP sockets of the pod that are not closed, listening ones included.", nil, sockets(func(s bypass.Sockets) int { return s.InUse })},
	{"pod_time_wait_sockets", gauge, "Closed TCP connections of the pod whose local ports are not free yet.", nil, sockets(func(s bypass.Sockets) int { return s.TimeWait })},
	{"pod_ephemeral_ports", gauge, "Local ports that the pod has for connections to one destination.", nil, sockets(func(s bypass.Sockets) int { return s.EphemeralPorts })},
}

// metric is a line of the table. Its name goes without "carpool_", and values
// sends what there is at a scrape: a value for each combination of labels.
type metric struct {
	name   string
	kind   kind
	help   string
	labels labels
	values func(*figures, *sink)
}

type labels []string

var origin = labels{"origin"}

// figures is what a scrape reads from all sources, once.
type figures struct {
	pool          pool.Snapshot
	proxy         proxy.Stats
	bypass        bypass.Snapshot
	memory        memory.Stats
	certs         certs.Stats
	unread, flood uint64 // log lines that were lost
}

type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

// one is a metric without labels.
func one[N number](value func(*figures) N) func(*figures, *sink) {
	return func(f *figures, out *sink) { out.put(float64(value(f))) }
}

// each is a metric with a value for each origin.
func each[N number](value func(*pool.OriginStats) N) func(*figures, *sink) {
	return func(f *figures, out *sink) {
		for i := range f.pool.Origins {
			o := &f.pool.Origins[i]
			out.put(float64(value(o)), o.Origin)
		}
	}
}

// warm is a metric with a value for each origin that is kept warm.
func warm[N number](value func(*pool.OriginStats) N) func(*figures, *sink) {
	return func(f *figures, out *sink) {
		for i := range f.pool.Origins {
			if o := &f.pool.Origins[i]; o.Warm > 0 {
				out.put(float64(value(o)), o.Origin)
			}
		}
	}
}

// spare is a metric with a value for each origin that has had spare tunnels.
func spare[N number](value func(*pool.OriginStats) N) func(*figures, *sink) {
	return func(f *figures, out *sink) {
		for i := range f.pool.Origins {
			if o := &f.pool.Origins[i]; o.SparesMade > 0 {
				out.put(float64(value(o)), o.Origin)
			}
		}
	}
}

// sockets is a metric of the pod's sockets, where the system tells of them.
func sockets(value func(bypass.Sockets) int) func(*figures, *sink) {
	return func(f *figures, out *sink) {
		if f.bypass.Sockets.Known {
			out.put(float64(value(f.bypass.Sockets)))
		}
	}
}

// byPort is a metric with a value for each port of plain HTTP.
func byPort(value func(bypass.PortCount) int) func(*figures, *sink) {
	return func(f *figures, out *sink) {
		for _, p := range f.bypass.Ports {
			out.put(float64(value(p)), strconv.Itoa(int(p.Port)))
		}
	}
}

var classes = [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

func byClass(f *figures, out *sink) {
	for i := range f.pool.Origins {
		o := &f.pool.Origins[i]
		for class := 1; class < len(classes); class++ {
			out.put(float64(o.Tally[class]), o.Origin, classes[class])
		}
	}
}

func byReason(f *figures, out *sink) {
	for i := range f.pool.Origins {
		o := &f.pool.Origins[i]
		for reason, n := range o.Closed {
			out.put(float64(n), o.Origin, string(reason))
		}
	}
}

func byError(f *figures, out *sink) {
	for kind, n := range f.proxy.Errors {
		out.put(float64(n), kind)
	}
}

func byHopError(f *figures, out *sink) {
	for kind, n := range f.proxy.HopErrors {
		out.put(float64(n), kind)
	}
}

func byPhase(f *figures, out *sink) {
	for ph := range f.proxy.Phases {
		out.spread(&f.proxy.Phases[ph], proxy.Phase(ph).String())
	}
}

func byRule(f *figures, out *sink) {
	for _, r := range f.proxy.Rules {
		out.put(float64(r.Refused), r.Rule, "refused")
		out.put(float64(r.Reported), r.Rule, "reported")
	}
}

func byLane(f *figures, out *sink) {
	for _, l := range f.proxy.Lanes {
		out.put(float64(l.Requests), strconv.Itoa(int(l.Port)))
	}
}

func byResult(f *figures, out *sink) {
	out.put(float64(f.certs.Renewed), "renewed")
	out.put(float64(f.certs.Rejected), "rejected")
}

func byLoss(f *figures, out *sink) {
	out.put(float64(f.unread), "unread")
	out.put(float64(f.flood), "flood")
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// desc is what Prometheus needs to know of a metric before its values.
func (m *metric) desc() *prometheus.Desc {
	return prometheus.NewDesc("carpool_"+m.name, m.help, m.labels, nil)
}
