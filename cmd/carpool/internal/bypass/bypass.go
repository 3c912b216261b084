// Package bypass finds what goes past carpool. A sidecar shares the pod's network namespace, so it can see the other
// containers' connections: those to ports of plain HTTP that carpool did not open are requests it could have pooled.
// It also tells how near the pod is to running out of local ports, which is what a connection for each request ends in.
//
// It looks only when asked, and reads what the kernel knows without touching any traffic. Counts of open connections are
// samples, which mostly miss the short ones: a count that stays above zero is what matters. Short ones leave a trace if
// the app's end closed them: TIME_WAIT, for a minute. Whose they were the kernel does not say then, so that as many as
// carpool has closed itself in that time are taken off: what is told is at least so.
//
// On systems other than Linux every report is empty.
package bypass

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/fresh"
)

// freshFor is how long a report is given out again: a scrape and the status page share one look, and whoever reloads
// the page without end costs no more than one look in that time.
const freshFor = 3 * time.Second

// maxDestinations is how many destinations a report names.
const maxDestinations = 10

// Snapshot is what one look has found. The zero value is a look that found nothing out.
type Snapshot struct {
	// Taken is when the look was; zero if there was none.
	Taken time.Time
	// Ports are the ports that were looked at, in ascending order, and how many connections go past carpool on each;
	// nil if the detector is off or cannot see (Err says why).
	Ports []PortCount
	// Destinations are where those connections lead, the most frequent first; ten at most.
	Destinations []Destination
	// Err is why connections could not be looked at, nil if they were or the detector is off. Sockets may be known all
	// the same.
	Err error
	// Sockets are the pod's own figures on TCP; zero if they are not known.
	Sockets Sockets
}

// PortCount is how many connections to a port go past carpool: Count are open, and at least Ended were closed by the app
// within the last minute.
type PortCount struct {
	Port         uint16
	Count, Ended int
}

// Destination is an address that connections which go past carpool lead to, or have led to.
type Destination struct {
	Addr         netip.AddrPort
	Count, Ended int // as in PortCount
}

// Sockets are figures on the TCP sockets of the pod, all containers together.
type Sockets struct {
	// Known says that the figures were read; the others are 0 if not.
	Known bool
	// InUse are the sockets that are not closed, listening ones included. A connection inside the pod has two.
	InUse int
	// TimeWait are closed connections whose ports are not free yet.
	TimeWait int
	// Outside are those among TimeWait that the pod has opened to other hosts, carpool's own included. The others, on
	// loopback or opened by a peer, use up no local port that is needed. -1: not known.
	Outside int
	// EphemeralPorts is how many local ports there are for outbound connections. A port serves one connection to each
	// destination, so InUse+TimeWait nearing this number means trouble only if most of them lead to one destination,
	// as a connection for each request to one Service does.
	EphemeralPorts int
}

// Total is the number of open connections that go past carpool.
func (s Snapshot) Total() int {
	n := 0
	for _, p := range s.Ports {
		n += p.Count
	}
	return n
}

// Ended is the least number of connections that went past carpool and were closed by the app within the last minute.
func (s Snapshot) Ended() int {
	n := 0
	for _, p := range s.Ports {
		n += p.Ended
	}
	return n
}

// Detector looks for connections that go past carpool. It is safe for concurrent use.
type Detector struct {
	ports []uint16 // ascending, each once
	looks *fresh.Value[Snapshot]
	own   closes // used while looking
}

// New returns a Detector for connections to these ports. With none it looks for no connections, and only tells
// Sockets. ended says how many connections carpool has closed so far; nil is none.
func New(ports []uint16, ended func() uint64) *Detector {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	if ended == nil {
		ended = func() uint64 { return 0 }
	}
	d := &Detector{ports: slices.Compact(ports), own: closes{total: ended}}
	d.own.lately(time.Now())
	d.looks = fresh.New(freshFor, d.look)
	return d
}

// Snapshot returns what there is to see, as it was at most a few seconds ago. The caller must not change it.
func (d *Detector) Snapshot() Snapshot {
	return d.looks.Get()
}

// report counts open connections to these destinations, and those in TIME_WAIT, of which at most own were carpool's.
func (d *Detector) report(open []netip.AddrPort, ended map[netip.AddrPort]int, own int) (ports []PortCount, top []Destination) {
	all := map[netip.AddrPort]Destination{}
	for _, a := range open {
		all[a] = Destination{a, all[a].Count + 1, 0}
	}
	for a, n := range ended {
		if n > own {
			all[a] = Destination{a, all[a].Count, n - own}
		}
	}
	byPort := map[uint16]PortCount{}
	for a, to := range all {
		sum := byPort[a.Port()]
		byPort[a.Port()] = PortCount{a.Port(), sum.Count + to.Count, sum.Ended + to.Ended}
		top = append(top, to)
	}
	for _, p := range d.ports {
		ports = append(ports, PortCount{p, byPort[p].Count, byPort[p].Ended})
	}
	// Package sort: slices would add its sorting of these large values to the binary.
	sort.Slice(top, func(i, j int) bool {
		a, b := &top[i], &top[j]
		return cmp.Or(cmp.Compare(b.Count+b.Ended, a.Count+a.Ended), a.Addr.Compare(b.Addr)) < 0
	})
	return ports, top[:min(len(top), maxDestinations)]
}

// timeWait is a little more than how long Linux keeps a connection in TIME_WAIT.
const timeWait = 62 * time.Second

// closes knows how many connections carpool has closed lately.
type closes struct {
	total func() uint64
	seen  []count // ascending; the first is older than timeWait, if there is one that old
}

type count struct {
	at time.Time
	n  uint64
}

// lately returns how many connections were closed within timeWait, and maybe some more: it knows only what the total was
// when it was asked.
func (c *closes) lately(now time.Time) int {
	c.seen = append(c.seen, count{now, c.total()})
	for len(c.seen) > 1 && now.Sub(c.seen[1].at) >= timeWait {
		c.seen = c.seen[1:]
	}
	return int(c.seen[len(c.seen)-1].n - c.seen[0].n)
}
