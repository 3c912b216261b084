// Package bypass finds what goes past carpool. A sidecar shares the pod's network namespace, so it can see the other
// containers' connections: those to ports of plain HTTP that carpool did not open are requests it could have pooled.
// It also tells how near the pod is to running out of local ports, which is what a connection for each request ends in.
//
// It looks only when asked, and reads what the kernel knows without touching any traffic. Connections shorter than the
// moment of looking are mostly missed: the counts are samples, and a count that stays above zero is what matters.
//
// On systems other than Linux every report is empty.
package bypass

import (
	"cmp"
	"net/netip"
	"slices"
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

// PortCount is how many connections to a port go past carpool.
type PortCount struct {
	Port  uint16
	Count int
}

// Destination is an address that connections which go past carpool lead to.
type Destination struct {
	Addr  netip.AddrPort
	Count int
}

// Sockets are figures on the TCP sockets of the pod, all containers together.
type Sockets struct {
	// Known says that the figures were read; the others are 0 if not.
	Known bool
	// InUse are the sockets that are not closed, listening ones included. A connection inside the pod has two.
	InUse int
	// TimeWait are closed connections whose ports are not free yet.
	TimeWait int
	// EphemeralPorts is how many local ports there are for outbound connections. A port serves one connection to each
	// destination, so InUse+TimeWait nearing this number means trouble only if most of them lead to one destination,
	// as a connection for each request to one Service does.
	EphemeralPorts int
}

// Total is the number of connections that go past carpool.
func (s Snapshot) Total() int {
	n := 0
	for _, p := range s.Ports {
		n += p.Count
	}
	return n
}

// Detector looks for connections that go past carpool. It is safe for concurrent use.
type Detector struct {
	ports []uint16 // ascending, each once
	looks *fresh.Value[Snapshot]
}

// New returns a Detector for connections to these ports. With none it looks for no connections, and only tells
// Sockets.
func New(ports []uint16) *Detector {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	d := &Detector{ports: slices.Compact(ports)}
	d.looks = fresh.New(freshFor, d.look)
	return d
}

// Snapshot returns what there is to see, as it was at most a few seconds ago. The caller must not change it.
func (d *Detector) Snapshot() Snapshot {
	return d.looks.Get()
}

// report counts connections to these destinations.
func (d *Detector) report(to []netip.AddrPort) (ports []PortCount, top []Destination) {
	count := map[netip.AddrPort]int{}
	for _, a := range to {
		count[a]++
	}
	byPort := map[uint16]int{}
	for a, n := range count {
		byPort[a.Port()] += n
		top = append(top, Destination{a, n})
	}
	for _, p := range d.ports {
		ports = append(ports, PortCount{p, byPort[p]})
	}
	slices.SortFunc(top, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), a.Addr.Compare(b.Addr))
	})
	return ports, top[:min(len(top), maxDestinations)]
}
