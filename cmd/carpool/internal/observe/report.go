package observe

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// What a Report's Verdict says.
const (
	gain    = "gain"    // carpool would save handshakes
	nothing = "nothing" // it would save none that is worth it
	idle    = "idle"    // nothing was called, so nothing is known
)

// What a Report's Counted says.
const (
	countedAll    = "each"   // the kernel has told of each connection
	countedLooks  = "looks"  // by looking, and all that were opened were seen
	countedScaled = "scaled" // by looking; what was not seen is shared out in proportion
)

// A Report is what was seen, and what it means. Figures "per minute" are averages over all the time.
type Report struct {
	Seconds float64 `json:"seconds"` // how long it was looked for
	Counted string  `json:"counted"` // how: "each", "looks" or "scaled"
	// Unseen is how many connections were opened beside those that were seen: only their sum is known, from the kernel.
	// Opened has them, shared out, except for Unplaced.
	Unseen       int           `json:"unseen"`
	Unplaced     int           `json:"unplaced"`
	Verdict      string        `json:"verdict"` // "gain", "nothing" or "idle"
	Saved        float64       `json:"handshakesSavedPerMinute"`
	WaitingSaved float64       `json:"waitingSavedMillisecondsPerMinute"` // an estimate: a round trip for each handshake
	Destinations []Destination `json:"destinations"`                      // those with most to gain first
	ProxyThere   bool          `json:"proxyThere"`                        // something listens on carpool's usual port already
	Processes    []Process     `json:"processes"`                         // runtimes, as far as processes can be seen
}

// A Destination is an address that the app has connections to. Those that Protocol does not say "http" of save nothing.
type Destination struct {
	Address   netip.AddrPort `json:"address"`
	Protocol  string         `json:"protocol"` // "http", "tls", "other" or "refused", by the port
	Opened    float64        `json:"openedPerMinute"`
	TimeWait  int            `json:"timeWait"` // at the end
	AtOnce    int            `json:"atOnce"`   // most that were open at a time
	Kept      int            `json:"kept"`     // fewest that were open at a time
	WouldOpen float64        `json:"carpoolWouldOpenPerMinute"`
	Saved     float64        `json:"handshakesSavedPerMinute"`
	RoundTrip float64        `json:"roundTripMilliseconds"` // 0: not measured
	Waiting   float64        `json:"waitingSavedMillisecondsPerMinute"`
}

// worthIt is how many handshakes a minute are something to gain.
const worthIt = 3

// usualPort is the one that carpool listens on.
const usualPort = 3128

// report says what the tally means.
func (t *tally) report(o options) Report {
	over := t.last.Sub(t.began)
	r := Report{Seconds: over.Seconds(), Counted: countedAll, Unseen: t.unseen(), ProxyThere: t.served[usualPort], Destinations: []Destination{}}
	missed, left := t.missed()
	r.Unplaced = left
	if !t.told {
		r.Counted = countedLooks
	}
	if r.Unseen > 0 {
		r.Counted = countedScaled
	}
	m := defaultModel()
	for addr, d := range t.to {
		inside := addr.Addr().IsLoopback() || t.self[addr.Addr()]
		opened := float64(d.opened) + missed[addr]
		if inside && !o.loopback || opened == 0 && d.timeWait == 0 && d.atOnce == 0 {
			continue
		}
		r.Destinations = append(r.Destinations, d.means(addr, protocolOf(addr, o.ports, inside), opened, over, m))
	}
	slices.SortFunc(r.Destinations, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(b.Saved, a.Saved), cmp.Compare(b.Opened, a.Opened), a.Address.Compare(b.Address))
	})
	r.judge()
	return r
}

// means turns what is known of a destination into figures of a minute.
func (d *destination) means(addr netip.AddrPort, protocol string, opened float64, over time.Duration, m model) Destination {
	minutes := over.Minutes()
	result := Destination{
		Address: addr, Protocol: protocol, TimeWait: d.timeWait, AtOnce: d.atOnce, Kept: d.kept,
		RoundTrip: milliseconds(d.mean()),
	}
	if minutes <= 0 {
		return result
	}
	result.Opened = opened / minutes
	if protocol == protocolHTTP {
		result.WouldOpen = m.opens(opened, d.atOnce, over) / minutes
		result.Saved = result.Opened - result.WouldOpen
		result.Waiting = result.Saved * result.RoundTrip
	}
	return result
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// judge sums up.
func (r *Report) judge() {
	busy := false
	for _, d := range r.Destinations {
		r.Saved += d.Saved
		r.WaitingSaved += d.Waiting
		busy = busy || d.Protocol == protocolHTTP
	}
	switch {
	case r.Saved >= worthIt:
		r.Verdict = gain
	case busy || r.Unplaced > 0:
		r.Verdict = nothing
	default:
		r.Verdict = idle
	}
}

// What a port is taken for.
const (
	protocolHTTP    = "http"
	protocolTLS     = "tls"
	protocolOther   = "other"
	protocolRefused = "refused" // carpool does not go there
)

// Ports that are well known for something else than plain HTTP.
var (
	tlsPorts   = []uint16{443, 465, 563, 636, 853, 989, 990, 992, 993, 995, 5061, 5671, 6443, 6514, 8443, 8883, 9443}
	otherPorts = []uint16{21, 22, 23, 25, 53, 88, 110, 111, 119, 139, 143, 389, 445, 514, 587, 873, 1433, 1521, 1883, 2049, 2181, 2379,
		2380, 3306, 3389, 4222, 4317, 5432, 5672, 6379, 6432, 7000, 7687, 8125, 9042, 9092, 9094, 10250, 11211, 14250, 15020, 15021,
		15090, 24224, 26379, 26257, 27017, 27018, 33060, 50051, 50052, 61613, 61616}
)

// protocolOf guesses by the port. Where ports of plain HTTP are named all others are something else.
func protocolOf(addr netip.AddrPort, ports []uint16, inside bool) string {
	p := addr.Port()
	switch {
	case !inside && policy.Addr(addr.Addr(), false) != nil:
		return protocolRefused
	case slices.Contains(ports, p):
		return protocolHTTP
	case slices.Contains(tlsPorts, p):
		return protocolTLS
	case len(ports) > 0 || slices.Contains(otherPorts, p):
		return protocolOther
	}
	return protocolHTTP
}
