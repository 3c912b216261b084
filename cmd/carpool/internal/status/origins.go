package status

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

const (
	// maxRows is how many origins the page shows, those with most requests.
	maxRows = 100
	// maxAddrs is how many addresses it shows of each, those with most requests.
	maxAddrs = 8
)

// origin is a line of the table of origins.
type origin struct {
	Name, Requests, Opened, Reused, Reuse string
	Low                                   bool // reuse is bad
	InUse, Idle, Waiting                  string
	Warm                                  string // empty if it is not kept warm
	Spares                                string // empty if it has had no spare tunnels
	Way                                   string // empty if it is direct
	SavedTime, Handshake, IdleLimit       string
	Failed, LastFailed                    string // answers that carpool had to make itself
	ServerErrors, LastServerError         string // 5xx that the upstream sent
	Closed                                string
	Addrs                                 []addr
	MoreAddrs                             int
}

// addr is one of an origin's addresses, with its part of the requests.
type addr struct {
	Name, Share, Open string
	State             string // what is special about it; "" if nothing is
}

func (p *Page) addOrigins(v *view, all []pool.OriginStats, now time.Time) {
	all = slices.Clone(all)
	// Package sort: slices would add its sorting of these large values to the binary.
	sort.Slice(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(carried(&b.Stats), carried(&a.Stats)), cmp.Compare(a.Origin, b.Origin)) < 0
	})
	v.More = max(len(all)-maxRows, 0)
	for i := range all[:len(all)-v.More] {
		o := &all[i]
		row := newOrigin(o)
		row.LastFailed = p.recent.last(failedKey(o.Origin), now)
		row.LastServerError = p.recent.last(serverErrorKey(o.Origin), now)
		v.Origins = append(v.Origins, row)
		if hint := hintFor(o); hint != "" && len(v.Hints) < maxHints {
			v.Hints = append(v.Hints, hint)
		}
	}
}

func newOrigin(o *pool.OriginStats) origin {
	row := origin{
		Name: o.Origin, Requests: count(carried(&o.Stats)), Opened: count(o.Opened), Reused: count(o.Reused),
		Reuse: share(o.Reused, o.Opened+o.Reused), Low: badReuse(o),
		InUse: gauge(o.InUse), Idle: gauge(o.Idle), Waiting: gauge(o.Waiting),
		SavedTime: duration(savedAt(o)), Handshake: "–", IdleLimit: "–",
		Failed: count(o.Tally[proxy.OwnAnswers]), ServerErrors: count(serverErrors(&o.Stats)),
	}
	if o.Warm > 0 {
		row.Warm = fmt.Sprintf("warm %s of %s", gauge(o.WarmOpen), gauge(o.Warm))
	}
	if o.Shared > 0 {
		row.InUse = fmt.Sprintf("%s (HTTP/2, %s requests on %s)", row.InUse, gauge(o.Streams), gauge(o.Shared))
	}
	if o.SparesMade > 0 {
		row.Spares = fmt.Sprintf("spare tunnels: %s wait, %s of %s used", gauge(o.Spares), count(o.SparesUsed), count(o.SparesMade))
	}
	switch o.Way {
	case pool.ByHop:
		row.Way = "through the next hop"
	case pool.ToHop:
		row.Way = "passes requests on"
	}
	if o.Handshake > 0 {
		row.Handshake = duration(o.Handshake)
	}
	if o.IdleLimit > 0 {
		row.IdleLimit = duration(o.IdleLimit)
	}
	var parts []string
	for _, r := range closes(o.Closed) {
		parts = append(parts, r.Count+" "+r.Name)
	}
	row.Closed = strings.Join(parts, ", ")
	row.Addrs, row.MoreAddrs = addrs(o.Addrs)
	return row
}

// serverErrors are the 5xx that the upstream sent: carpool's own are mostly such, too.
func serverErrors(s *pool.Stats) uint64 {
	return s.Tally[5] - min(s.Tally[proxy.OwnAnswers], s.Tally[5])
}

// savedAt is about how much waiting was spared at an origin. The few handshakes
// made at first may have been slow because everything was, so what is usual by
// now counts, where it is known, and not what was usual when it was saved.
func savedAt(o *pool.OriginStats) time.Duration {
	if o.Handshake == 0 {
		return o.SavedTime
	}
	return time.Duration(o.Reused) * o.Handshake
}

// savedTime is the same of all origins, those too that are forgotten.
func savedTime(s *pool.Snapshot) time.Duration {
	sum := s.Total.SavedTime
	for i := range s.Origins {
		sum += savedAt(&s.Origins[i]) - s.Origins[i].SavedTime
	}
	return sum
}

// addrs lists the addresses that most requests go to, and how many more there
// are.
func addrs(all []pool.AddrStats) (list []addr, more int) {
	sum := uint64(0)
	for _, a := range all {
		sum += a.Requests
	}
	all = slices.Clone(all)
	sort.SliceStable(all, func(i, j int) bool { return all[i].Requests > all[j].Requests })
	more = max(len(all)-maxAddrs, 0)
	for _, a := range all[:len(all)-more] {
		name := "others"
		if a.Addr.IsValid() {
			name = a.Addr.String()
		}
		list = append(list, addr{name, share(a.Requests, sum), gauge(a.Open), addrState(&a)})
	}
	return list, more
}

// addrState says why requests go to an address less than to others.
func addrState(a *pool.AddrStats) string {
	switch {
	case a.Leaving:
		return "no longer an address of the name"
	case a.Benched != "" && a.BenchedFor > 0:
		return "left alone for " + duration(a.BenchedFor) + ": " + a.Benched
	case a.Benched != "":
		return "tried again: " + a.Benched
	}
	return ""
}
