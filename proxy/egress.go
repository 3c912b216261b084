package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// EgressConfig says what an Egress goes by. The zero value has what is built in, for
// a proxy that others than its own pod can reach.
type EgressConfig struct {
	// Listeners are carpool's own, which no request may lead back to.
	Listeners []netip.AddrPort
	// OnLoopback says that only this pod can reach the proxy, so that it may reach
	// this pod's loopback in turn.
	OnLoopback bool
	// Rules are what is set besides what is built in.
	Rules policy.Rules
	// Report lets through what a rule refuses. What is built in stays refused.
	Report bool
	// Reported, if not nil, is told of what was let through that way: for each
	// request to a host or port, and for each connection to an address. It may be
	// called from any goroutine and must not wait.
	Reported func(Reported)
}

// Reported is what a rule would have refused.
type Reported struct {
	// Rule is one of policy.Reasons.
	Rule string
	// Detail is what the client would have been told.
	Detail string
	// Target is scheme://host:port of a request, host:port of a CONNECT, or the
	// address and port of a connection.
	Target string
}

// Egress decides where requests may go. It is asked for the host and port of a
// request before these are resolved, and for each address as it is dialled.
//
// A connection that is used again is not asked for anew: a pool hands it out for
// the host and port only that it was opened for, these are judged again whenever a
// session's request names others than the one before, and the rules do not change
// while carpool runs. What was let in when it was dialled would be let in now.
//
// It is safe for concurrent use.
type Egress struct {
	cfg   EgressConfig
	hosts bool // there are rules on them
	own   func() ([]net.Addr, error)

	verdicts map[string]*verdicts // by reason; the map does not change
}

type verdicts struct{ refused, reported atomic.Uint64 }

// NewEgress returns an Egress.
func NewEgress(cfg EgressConfig) *Egress {
	e := &Egress{cfg: cfg, hosts: cfg.Rules.JudgesHosts(), own: net.InterfaceAddrs, verdicts: map[string]*verdicts{}}
	for _, reason := range policy.Reasons() {
		e.verdicts[reason] = new(verdicts)
	}
	return e
}

// RuleStats are how often a rule, or what is built in, has refused a request or an
// address, and how often it would have, had Egress not been set to report. Rule is
// one of policy.Reasons.
type RuleStats struct {
	Rule              string
	Refused, Reported uint64
}

// Stats returns the figures of each rule, in the order of policy.Reasons.
func (e *Egress) Stats() []RuleStats {
	var all []RuleStats
	for _, reason := range policy.Reasons() {
		v := e.verdicts[reason]
		all = append(all, RuleStats{reason, v.refused.Load(), v.reported.Load()})
	}
	return all
}

// errLoop is the verdict on carpool's own listeners.
var errLoop = errors.New("proxy: the address is this proxy's own")

// CheckAddr is the check to be made on every address before it is dialled
// (pool.Config.CheckAddr): whether it is one of carpool's own listeners, and
// whether egress may go there at all. To find out takes a descriptor in some cases;
// where there is none, nothing is said of the address, and the error is the lack's
// own.
func (e *Egress) CheckAddr(a netip.AddrPort) error {
	var unknown error
	isOwn := func(a netip.Addr) bool {
		addrs, err := e.own()
		unknown = errors.Join(unknown, err)
		return contains(addrs, a)
	}
	switch {
	case policy.Self(a, e.cfg.Listeners, isOwn):
		return errLoop
	case unknown != nil:
		return unknown
	}
	denied := e.cfg.Rules.Addr(a.Addr(), e.cfg.OnLoopback)
	if denied == nil {
		return nil
	}
	if e.lets(denied) {
		e.report(denied, a.String())
		return nil
	}
	return denied
}

// contains reports whether an address is one of those of interfaces.
func contains(addrs []net.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(i net.Addr) bool {
		n, ok := i.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() == a
	})
}

// lets reports whether what a rule denies is let through nevertheless, and counts
// the refusal if not.
func (e *Egress) lets(denied *policy.Denied) bool {
	if e.cfg.Report && denied.Configured() {
		return true
	}
	e.verdicts[denied.Reason].refused.Add(1)
	return false
}

// report counts and tells of what was let through.
func (e *Egress) report(denied *policy.Denied, target string) {
	e.verdicts[denied.Reason].reported.Add(1)
	if e.cfg.Reported != nil {
		e.cfg.Reported(Reported{denied.Reason, denied.Message, target})
	}
}

// host judges the host and port that a request names; addr is the host's address,
// if it is one. let is what a rule has against it although it is let through: it is
// to be reported for each request.
func (e *Egress) host(name []byte, addr netip.Addr, port uint16) (let, denied *policy.Denied) {
	if !e.hosts {
		return nil, nil
	}
	return e.judged(e.cfg.Rules.Host(name, addr, port))
}

// CheckOrigin returns why requests may not go to an origin, nil if they may, as far
// as its host says (pool.Config.CheckWarm).
func (e *Egress) CheckOrigin(k pool.Key) error {
	if k.Way == pool.ToHop { // it is no origin that anybody asks for
		return nil
	}
	addr, _ := netip.ParseAddr(k.Host) // a name is no address
	if _, denied := e.host([]byte(k.Host), addr, k.Port); denied != nil {
		return denied
	}
	return nil
}

// handOn judges what a next hop would be asked for: an address as if it were dialled
// here, a name by itself.
func (e *Egress) handOn(name []byte, addr netip.Addr, port uint16) error {
	if addr.IsValid() {
		return e.CheckAddr(netip.AddrPortFrom(addr, port))
	}
	if denied := e.cfg.Rules.HandedOn(name); denied != nil && !e.lets(denied) {
		return denied
	}
	return nil
}

// connectPort judges the port that a CONNECT names, as host does.
func (e *Egress) connectPort(port uint16) (let, denied *policy.Denied) {
	return e.judged(e.cfg.Rules.ConnectPort(port))
}

func (e *Egress) judged(d *policy.Denied) (let, denied *policy.Denied) {
	switch {
	case d == nil:
		return nil, nil
	case e.lets(d):
		return d, nil
	}
	return nil, d
}

// refusal is the problem with a request that a rule refuses, for what it names.
type refusal struct {
	problem
	rule   string // one of policy.Reasons
	target string // as in Reported
}

// Unwrap makes a refusal a problem.
func (r *refusal) Unwrap() error { return &r.problem }

func refused(denied *policy.Denied, target string) error {
	return &refusal{problem{403, kindHTTPRequestDenied, denied.Message}, denied.Reason, target}
}

// targetOf returns what a request names as it is told of it.
func targetOf(l pool.Lookup, connect bool) string {
	k := pool.Key{TLS: l.TLS, Host: string(l.Host), Port: l.Port}
	if connect {
		return k.Authority()
	}
	return k.String()
}
