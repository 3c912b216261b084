package status

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

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
	LocalPorts                                []localPort
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

// localPort is a port of LOCAL_PORTS, with where it leads.
type localPort struct{ Port, Origin, Requests string }

// minute is a line of the charts' figures.
type minute struct{ At, Opened, Exchanges string }

// reason is how often something happened, when it was seen last, if that is kept, and what it means.
type reason struct{ Name, Count, Last, Meaning string }

func (p *Page) view(now time.Time) *view {
	s, stats := p.look(now)
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
	v.SavedTime = duration(savedTime(&s))
	latest := rates[len(rates)-1] // New took the first
	v.LatestOpened, v.LatestExchanges = count(latest.opened), count(latest.exchanges)
	p.addProxy(v, &s, &stats, now)
	p.addOrigins(v, s.Origins, now)
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
	for _, answers := range s.Tally[2:proxy.AnswerKinds] {
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
func (p *Page) addProxy(v *view, s *pool.Snapshot, stats *proxy.Stats, now time.Time) {
	of := func(limit int) string {
		if limit == 0 {
			return ""
		}
		return count(uint64(limit))
	}
	v.Now = []fact{
		{"requests under way", gauge(stats.InFlight), ""},
		{"requests waiting for a connection", gauge(s.Total.Waiting), ""},
		{"upstream connections in use", gauge(s.Total.InUse), of(s.MaxConns)},
		{"upstream connections idle", gauge(s.Total.Idle), ""},
		{"connections from the app", gauge(stats.Clients), of(stats.MaxClients)},
		{"CONNECT tunnels", gauge(stats.Tunnels), ""},
	}
	for _, l := range stats.Lanes {
		v.LocalPorts = append(v.LocalPorts, localPort{strconv.Itoa(int(l.Port)), l.Origin, count(l.Requests)})
	}
	v.Retries, v.Refused = count(stats.Retries), count(stats.Refused)
	v.Errors = errorAnswers(stats.Errors)
	for i := range v.Errors {
		v.Errors[i].Last = p.recent.last(errorKey(v.Errors[i].Name), now)
	}
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
		list = append(list, reason{string(name), count(counts[name]), "", meaning(name)})
	}
	return list
}
