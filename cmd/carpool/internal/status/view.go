package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
)

// maxRows is how many origins the page shows, those with most requests.
const maxRows = 100

// view is the page's content, in words.
type view struct {
	Uptime string
	At     string
	// Requests is empty before the first.
	Requests, Opened, Saved, Reuse, SavedTime string
	Total                                     total
	Compare, Alone                            chart
	LatestOpened, LatestExchanges             string // in the last minute
	Minutes                                   []minute
	Hints                                     []string
	Now                                       []fact
	Origins                                   []origin
	More                                      int
	Closes, Errors                            []reason
	Retries, Refused                          string
	Bypass                                    *bypassed
}

// total are sums as numbers, for the grammar. Requests are those that got a
// connection.
type total struct{ Requests, Opened, Reused uint64 }

// fact is a figure with its name, and with a bound if it has one.
type fact struct{ Name, Value, Of string }

// minute is a line of the charts' figures.
type minute struct{ At, Opened, Exchanges string }

// origin is a line of the table of origins.
type origin struct {
	Name, Requests, Opened, Reused, Reuse string
	Low                                   bool // reuse is bad
	InUse, Idle, Waiting                  string
	SavedTime, Handshake, IdleLimit       string
	Failed                                string // answers that carpool had to make itself
	ServerErrors                          string // 5xx that the upstream sent
	Closed                                string
}

// reason is how often something happened, and what it means.
type reason struct{ Name, Count, Meaning string }

func (p *Page) view(now time.Time) *view {
	s := p.from.Pool()
	rates := p.history.rates()
	v := &view{
		Uptime:  duration(now.Sub(p.started)),
		At:      now.UTC().Format("15:04:05"),
		Compare: newChart(rates, now, true), Alone: newChart(rates, now, false),
		Minutes: minutes(rates, now),
		Closes:  closes(s.Total.Closed),
	}
	v.Total = total{s.Total.Opened + s.Total.Reused, s.Total.Opened, s.Total.Reused}
	if v.Total.Requests > 0 {
		v.Requests = count(v.Total.Requests)
	}
	v.Opened, v.Saved = count(s.Total.Opened), count(s.Total.Reused)
	v.Reuse = share(v.Total.Reused, v.Total.Requests)
	v.SavedTime = duration(s.Total.SavedTime)
	latest := rates[len(rates)-1] // New took the first
	v.LatestOpened, v.LatestExchanges = count(latest.opened), count(latest.exchanges)
	p.addProxy(v, &s)
	v.addOrigins(s.Origins)
	if p.from.Memory != nil {
		v.addMemory(p.from.Memory())
	}
	if p.from.Bypass != nil {
		v.Bypass = newBypassed(p.from.Bypass(), p.from.ProxyPort)
	}
	return v
}

// carried is how many requests were answered, by whomever.
func carried(s *pool.Stats) (n uint64) {
	for _, answers := range s.Answers[2:] {
		n += answers
	}
	return n
}

func minutes(rates []rate, now time.Time) []minute {
	var list []minute
	for i := len(rates) - 1; i >= 0; i -= perMinute {
		r := rates[i]
		list = append(list, minute{ago(now.Sub(r.at)), count(r.opened), count(r.exchanges)})
	}
	return list
}

// addProxy adds what concerns all origins.
func (p *Page) addProxy(v *view, s *pool.Snapshot) {
	stats := p.from.Proxy()
	of := func(limit int) string {
		if limit == 0 {
			return ""
		}
		return count(uint64(limit))
	}
	now := func(n int) string { return count(uint64(max(n, 0))) }
	v.Now = []fact{
		{"requests under way", now(stats.InFlight), ""},
		{"requests waiting for a connection", now(s.Total.Waiting), ""},
		{"upstream connections in use", now(s.Total.InUse), of(s.MaxConns)},
		{"upstream connections idle", now(s.Total.Idle), ""},
		{"connections from the app", now(stats.Clients), of(stats.MaxClients)},
		{"CONNECT tunnels", now(stats.Tunnels), ""},
	}
	v.Retries, v.Refused = count(stats.Retries), count(stats.Refused)
	v.Errors = errorAnswers(stats.Errors)
	if n := stats.Panics + s.Panics; n > 0 {
		v.Hints = append(v.Hints, fmt.Sprintf("carpool has contained %s faults of its own. Each cost one connection of the app. "+
			"This is a bug: please report it with the log lines that begin with “panic”.", count(n)))
	}
}

// addMemory adds how much of the container's limit is in use.
func (v *view) addMemory(m memory.Stats) {
	if m.Limit == 0 {
		return
	}
	mebibytes := func(n int64) string { return count(uint64(max(n, 0))>>20) + " MiB" }
	v.Now = append(v.Now, fact{"memory that counts against the limit", mebibytes(m.Used), mebibytes(m.Limit)})
	if m.Refused > 0 {
		v.Hints = append(v.Hints, fmt.Sprintf("%s requests were refused (503) because memory was short. Raise the memory limit of carpool’s container.",
			count(m.Refused)))
	}
}

func (v *view) addOrigins(all []pool.OriginStats) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b pool.OriginStats) int {
		return cmp.Or(cmp.Compare(carried(&b.Stats), carried(&a.Stats)), cmp.Compare(a.Origin, b.Origin))
	})
	v.More = max(len(all)-maxRows, 0)
	for i := range all[:len(all)-v.More] {
		o := &all[i]
		v.Origins = append(v.Origins, newOrigin(o))
		if hint := hintFor(o); hint != "" && len(v.Hints) < maxHints {
			v.Hints = append(v.Hints, hint)
		}
	}
}

func newOrigin(o *pool.OriginStats) origin {
	own := o.Answers[0]
	server := o.Answers[5] - min(own, o.Answers[5]) // carpool's own are mostly 5xx too
	row := origin{
		Name: o.Origin, Requests: count(carried(&o.Stats)), Opened: count(o.Opened), Reused: count(o.Reused),
		Reuse: share(o.Reused, o.Opened+o.Reused), Low: badReuse(o),
		InUse: count(uint64(max(o.InUse, 0))), Idle: count(uint64(o.Idle)), Waiting: count(uint64(o.Waiting)),
		SavedTime: duration(o.SavedTime), Handshake: "–", IdleLimit: "–",
		Failed: count(own), ServerErrors: count(server),
	}
	if o.Opened > 0 {
		row.Handshake = duration(o.HandshakeTime / time.Duration(o.Opened))
	}
	if o.IdleLimit > 0 {
		row.IdleLimit = duration(o.IdleLimit)
	}
	var parts []string
	for _, r := range closes(o.Closed) {
		parts = append(parts, r.Count+" "+r.Name)
	}
	row.Closed = strings.Join(parts, ", ")
	return row
}

// closes lists reasons, the most frequent first.
func closes(closed map[pool.Reason]uint64) []reason {
	return ranked(closed, func(r pool.Reason) string { return closeMeanings[r] })
}

// errorAnswers lists the errors that there were, the most frequent first.
func errorAnswers(errors map[string]uint64) []reason {
	return ranked(errors, func(kind string) string { return errorMeanings[kind] })
}

func ranked[K ~string](counts map[K]uint64, meaning func(K) string) []reason {
	var names []K
	for name, n := range counts {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b K) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	list := make([]reason, 0, len(names))
	for _, name := range names {
		list = append(list, reason{string(name), count(counts[name]), meaning(name)})
	}
	return list
}

// bypassed is what goes past carpool.
type bypassed struct {
	Total        uint64
	Ports        string // those looked at; empty if none are
	Destinations []destination
	Failure      string
	Advices      []bypass.Advice
	Sockets      []fact
}

type destination struct{ Addr, Count string }

func newBypassed(s bypass.Snapshot, port uint16) *bypassed {
	b := &bypassed{Total: uint64(s.Total())}
	var ports []string
	for _, p := range s.Ports {
		ports = append(ports, fmt.Sprint(p.Port))
	}
	b.Ports = strings.Join(ports, ", ")
	for _, d := range s.Destinations {
		b.Destinations = append(b.Destinations, destination{d.Addr.String(), count(uint64(d.Count))})
	}
	if s.Err != nil {
		b.Failure = s.Err.Error()
	}
	if b.Total > 0 {
		b.Advices = bypass.Advices("127.0.0.1", fmt.Sprint(port))
	}
	if k := s.Sockets; k.Known {
		b.Sockets = []fact{
			{"open", count(uint64(max(k.InUse, 0))), ""},
			{"in TIME_WAIT (harmless on loopback)", count(uint64(max(k.TimeWait, 0))), ""},
			{"local ports, for each destination", count(uint64(max(k.EphemeralPorts, 0))), ""},
		}
	}
	return b
}
