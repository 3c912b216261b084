package status

import (
	"fmt"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
)

// bypassed is what goes past carpool.
type bypassed struct {
	Total, Ended uint64 // open now; closed by the app within a minute, at least
	Ports        string // those looked at; empty if none are
	Destinations []destination
	Failure      string
	Advices      []bypass.Advice
	Sockets      []fact
	Outside      bool // it is known which sockets in TIME_WAIT lead out of the pod
}

type destination struct{ Addr, Count, Ended string }

func newBypassed(s bypass.Snapshot, port uint16) *bypassed {
	b := &bypassed{Total: uint64(s.Total()), Ended: uint64(s.Ended())}
	var ports []string
	for _, p := range s.Ports {
		ports = append(ports, fmt.Sprint(p.Port))
	}
	b.Ports = strings.Join(ports, ", ")
	for _, d := range s.Destinations {
		b.Destinations = append(b.Destinations, destination{d.Addr.String(), gauge(d.Count), gauge(d.Ended)})
	}
	if s.Err != nil {
		b.Failure = s.Err.Error()
	}
	if b.Total+b.Ended > 0 {
		b.Advices = bypass.Advices("127.0.0.1", fmt.Sprint(port))
	}
	if k := s.Sockets; k.Known {
		b.Sockets = append(b.Sockets, fact{"open", gauge(k.InUse), ""}, fact{"in TIME_WAIT", gauge(k.TimeWait), ""})
		if b.Outside = k.Outside >= 0; b.Outside {
			b.Sockets = append(b.Sockets, fact{"in TIME_WAIT, to other hosts", gauge(k.Outside), ""})
		}
		b.Sockets = append(b.Sockets, fact{"local ports, for each destination", gauge(k.EphemeralPorts), ""})
	}
	return b
}
