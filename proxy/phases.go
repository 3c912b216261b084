package proxy

import (
	"strconv"
	"time"

	"github.com/carpoolproxy/carpool/internal/histogram"
	"github.com/carpoolproxy/carpool/pool"
)

// Phase is a part of the time that an exchange takes.
type Phase uint8

const (
	// PhaseWait is the wait for a connection to come free, or for one to be opened
	// that another request began to wait for.
	PhaseWait Phase = iota
	// PhaseDNS, PhaseConnect and PhaseTLS are the steps by which a connection was
	// opened that this exchange waited for, as far as it did.
	PhaseDNS
	PhaseConnect
	PhaseTLS
	// PhaseFirstByte is from when a connection was there to the first byte of the
	// answer, 1xx included, or to the end of the wait for one.
	PhaseFirstByte
	// PhaseRest is all else: reading the request's head, passing the answer on, and a
	// first attempt that was to be repeated.
	PhaseRest
	// NumPhases is how many there are.
	NumPhases
)

// String returns the phase as metrics and log lines name it.
func (p Phase) String() string {
	return [...]string{"wait", "dns", "connect", "tls", "first_byte", "rest"}[p]
}

// Phases are how long an exchange took for each Phase. They add up to its duration.
//
// Of one that was sent twice the waits for both connections count; PhaseFirstByte is
// of the second.
type Phases [NumPhases]time.Duration

// waited adds a wait for a connection.
func (p *Phases) waited(w pool.Waited) {
	p[PhaseWait] += w.Queue
	p[PhaseDNS] += w.DNS
	p[PhaseConnect] += w.Connect
	p[PhaseTLS] += w.TLS
}

// end makes the rest of what an exchange took PhaseRest.
func (p *Phases) end(took time.Duration) {
	p[PhaseRest] = took
	for _, d := range p[:PhaseRest] {
		p[PhaseRest] -= d
	}
}

// timings are the histograms of all exchanges that asked for a connection, but for
// those that became tunnels: these last for as long as both sides like.
type timings struct {
	whole  histogram.Histogram
	phases [NumPhases]histogram.Histogram // without those of no length
}

func (t *timings) observe(took time.Duration, p *Phases) {
	t.whole.Observe(took)
	for ph, d := range p {
		if d > 0 {
			t.phases[ph].Observe(d)
		}
	}
}

func (t *timings) snapshot() (phases [NumPhases]histogram.Snapshot) {
	for ph := range t.phases {
		phases[ph] = t.phases[ph].Snapshot()
	}
	return phases
}

// appendTiming appends a Server-Timing field (W3C Server Timing) with the phases as far
// as they are over, in milliseconds, if the settings ask for it.
func (x *exchange) appendTiming(b []byte) []byte {
	if !x.cfg.ServerTiming {
		return b
	}
	before, end := "Server-Timing: ", ""
	for ph, d := range x.spent {
		if d <= 0 {
			continue
		}
		b = append(append(b, before...), "carpool-"...)
		b = append(append(b, Phase(ph).String()...), ";dur="...)
		b = strconv.AppendFloat(b, d.Seconds()*1e3, 'f', 3, 64)
		before, end = ", ", "\r\n"
	}
	return append(b, end...)
}
