package proxy

import (
	"errors"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Answer is an answer that carpool makes itself, because it does not carry a request.
type Answer struct {
	Status int
	// Error is what was wrong, as Proxy-Status names it (RFC 9209 section 2.3).
	Error string
	// Text is the body: what is wrong and what to do, in one line.
	Text string
	// Rule is the rule of policy that refuses, one of policy.Reasons; "" if none does.
	Rule string
}

// DialAnswer returns the answer to a request for which no connection can be had, by
// the error of the pool.
func DialAnswer(err error) Answer {
	p, _, _ := leaseProblem(err)
	a := p.answer()
	a.Rule = ruleOf(err)
	return a
}

// ruleOf returns the rule that refuses, "" if none does.
func ruleOf(err error) string {
	if denied, ok := errors.AsType[*policy.Denied](err); ok {
		return denied.Reason
	}
	return ""
}

func (p *problem) answer() Answer {
	return Answer{Status: p.status, Error: p.kind.String(), Text: p.text}
}

// Aim is where a request would go.
type Aim struct {
	// Origin is what a connection would be borrowed of; nil if Refused says why not.
	Origin  *pool.Origin
	Refused *Answer
	// Let is what a rule has against the host or port, although the request is let
	// through (EgressConfig.Report); nil: nothing.
	Let *policy.Denied
	// Tunnel is whether a CONNECT is not looked into.
	Tunnel bool
}

// Aim finds out where a request would go that has this target on the proxy's own port:
// one in absolute-form, or that of a CONNECT. It asks Egress, as the request would, and
// sends nothing.
func (p *Proxy) Aim(target string, connect bool) Aim {
	r := route{upstreams: p.cfg.Upstreams, egress: p.cfg.Egress, hop: p.cfg.Hop, originate: p.cfg.Originate}
	var aim Aim
	var err error
	if connect {
		aim.Origin, aim.Let, err = r.tunnelTo([]byte(target))
	} else if t, bad := parseTarget([]byte(target)); bad != nil {
		err = bad
	} else {
		aim.Origin, err = r.to(t)
		aim.Let = r.let
	}
	if err != nil {
		answer := asProblem(err).answer()
		if denied, ok := errors.AsType[*refusal](err); ok {
			answer.Rule = denied.rule
		}
		return Aim{Refused: &answer}
	}
	aim.Tunnel = connect && p.decider.decide(target, nil) == tunnelled
	if k := aim.Origin.Key(); connect && !aim.Tunnel && r.originates(k) { // as route.to has it
		aim.Origin = p.cfg.Upstreams.Origin(r.originate.Key(k).Lookup())
	} else if h := p.cfg.Hop; connect && !aim.Tunnel && h.plain(aim.Origin.Key()) { // as opening.borrow has it
		aim.Origin = p.cfg.Upstreams.Origin(h.relay())
	}
	return aim
}
