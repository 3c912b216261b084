package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Endpoint is the address that a connection would be opened to.
type Endpoint struct {
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port"`
	// Used is how many of the Total addresses this pod uses.
	Used  int `json:"used"`
	Total int `json:"total"`
}

func (t *trip) endpoint(ctx context.Context) found {
	x, err := t.origin.Explain(ctx, true)
	if err != nil || !x.Addr.IsValid() {
		return found{} // the next leg tells
	}
	e := Endpoint{Addr: x.Addr, Port: t.origin.LeadsTo().Port, Total: x.Total}
	for _, a := range x.Addrs {
		if a.Chosen {
			e.Used++
		}
	}
	line := netip.AddrPortFrom(e.Addr, e.Port).String()
	switch {
	case e.Total == 1:
		line += ", the only address"
	case e.Used == e.Total:
		line += fmt.Sprintf(", one of %d", e.Total)
	case e.Used > 0:
		line += fmt.Sprintf(", one of %d that this pod uses first, of %d; more at higher rates", e.Used, e.Total)
	default:
		line += fmt.Sprintf(", the first of %d", e.Total)
	}
	return found{lines: []string{line}, facts: e}
}

// Connect is how TCP went.
type Connect struct {
	Addr *netip.AddrPort `json:"addr,omitempty"` // where the connection has led
	Took float64         `json:"took_ms"`
	// Tried are the addresses, in the order in which it was known whether that worked.
	Tried []Try  `json:"tried"`
	Error string `json:"error,omitempty"`
}

// Try is what came of dialling an address.
type Try struct {
	Addr  netip.AddrPort `json:"addr"`
	Took  float64        `json:"took_ms"`
	Error string         `json:"error,omitempty"`
}

// connect opens a connection, as far as it comes. What TLS says is left to the next leg.
func (t *trip) connect(ctx context.Context) found {
	t.trial = t.origin.Try(ctx)
	c := Connect{Took: ms(t.trial.Connect), Tried: []Try{}}
	var lines []string
	for _, a := range t.trial.Tried {
		if a.Err != nil && stage(a.Err) == pool.StagePolicy {
			continue // the leg before has told that
		}
		try := Try{Addr: a.Addr, Took: ms(a.Took)}
		if a.Err != nil {
			try.Error = logs.Text(reason(a.Err))
			line := fmt.Sprintf("%s: %s", a.Addr, try.Error)
			if !slices.Contains(lines, line) { // who refuses is asked twice
				lines = append(lines, line)
			}
		}
		c.Tried = append(c.Tried, try)
	}
	if err := t.trial.Err; err != nil && (stage(err) != pool.StageTLS || !t.origin.Key().TLS) { // the hop has TLS of its own
		c.Error = logs.Text(err.Error())
		if len(lines) == 0 {
			lines = []string{c.Error}
		}
		return failed(c, proxy.DialAnswer(err), t.mendConnect(err), bounded(lines, 6)...)
	}
	f := found{}
	if len(lines) > 0 {
		f.state = Warning
	}
	if t.trial.Addr.IsValid() {
		c.Addr = &t.trial.Addr
		lines = append(bounded(lines, 6), fmt.Sprintf("to %s in %s", t.trial.Addr, short(t.trial.Connect)))
	}
	f.lines, f.facts = lines, c
	return f
}

// dialError is what a dial would fail with.
func (t *trip) dialError(s pool.Stage, err error) error {
	return &pool.DialError{Stage: s, Err: err, Hop: t.origin.Key().Way != pool.Directly}
}

func stage(err error) pool.Stage {
	if failed, ok := errors.AsType[*pool.DialError](err); ok {
		return failed.Stage
	}
	return pool.StageConnect
}

// cause is the error without the name of its stage.
func cause(err error) error {
	if failed, ok := errors.AsType[*pool.DialError](err); ok {
		return failed.Err
	}
	return err
}

// reason is what the system says, without what is said of the address.
func reason(err error) string {
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return no.Error()
	}
	if isTimeout(err) {
		return "no answer"
	}
	return err.Error()
}

// mendConnect says what to do about an address that cannot be connected to.
func (t *trip) mendConnect(err error) string {
	port := t.origin.LeadsTo().Port
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("check that the upstream runs and listens on port %d; a Service without ready pods refuses too", port)
	case isTimeout(err):
		return fmt.Sprintf("check that the upstream runs, and that firewalls and network policies let this pod reach port %d. CARPOOL_DIAL_TIMEOUT=%s is how long carpool waits", port, t.cfg.DialTimeout)
	}
	return ""
}
