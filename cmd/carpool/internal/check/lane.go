package check

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Settings are the settings that are not the default.
type Settings struct {
	Changed []config.Value `json:"changed"`
}

// besides are the settings that change nothing of what becomes of a request, and the begins of such.
var besides = []string{"LOG_", "ACCESS_LOG", "CLIENT_HEADER_", "CLIENT_IDLE_", "TUNNEL_", "VIA", "PRELOAD_DIR", "CACHE_DIR", "BYPASS_PORTS", "DRAIN_", "WARM"}

func (t *trip) settings(context.Context) found {
	s := Settings{Changed: []config.Value{}}
	var lines []string
	for _, v := range t.cfg.Values() {
		if !v.Changed() || matters(v.Name) == "" {
			continue
		}
		s.Changed = append(s.Changed, v)
		lines = append(lines, fmt.Sprintf("%s=%s (default %s)", v.Name, v.Value, cmp.Or(v.Default, "empty")))
	}
	if len(lines) == 0 {
		lines = []string{"those that matter here are the defaults"}
	}
	return found{lines: lines, facts: s}
}

// matters returns the name, or "" for what does not matter to a request.
func matters(name string) string {
	for _, b := range besides {
		if strings.HasPrefix(name, "CARPOOL_"+b) {
			return ""
		}
	}
	return name
}

// Lane is how a request comes to carpool, and what that makes of it.
type Lane struct {
	// Lanes are absolute-form and connect, or one of them.
	Lanes  []string `json:"lanes"`
	Origin string   `json:"origin,omitempty"`
	// TLS says that carpool itself speaks TLS to the upstream.
	TLS bool `json:"tls"`
	// Tunnel says that what is said inside CONNECT is not looked at.
	Tunnel bool `json:"tunnel"`
	// Connect is the refusal of a CONNECT, where the target is allowed otherwise.
	Connect *Answer `json:"connect_refused,omitempty"`
}

// lane finds the origin by the lanes that the target can come on. A refusal by a rule is left to the next leg.
func (t *trip) lane(context.Context) found {
	connect := t.proxy.Aim(t.authority, true)
	if t.aim = connect; !t.isTunnel() {
		t.aim = t.proxy.Aim(t.url, false)
		t.aim.Tunnel = connect.Tunnel
	}
	if a := t.aim.Refused; a != nil && a.Rule == "" {
		return failed(Lane{Lanes: []string{}}, *a, "")
	}
	t.origin = t.aim.Origin
	t.tunnel = connect.Refused
	l := Lane{Lanes: []string{"absolute-form", "connect"}, Tunnel: t.aim.Tunnel}
	if t.isTunnel() {
		l.Lanes = l.Lanes[1:]
	}
	if t.origin != nil {
		l.Origin, l.TLS = t.origin.Key().String(), t.origin.Key().TLS
	}
	f := found{lines: []string{t.form()}}
	switch a := connect.Refused; {
	case t.isTunnel() || t.origin == nil || t.target.tls:
	case a != nil:
		l.Connect = &Answer{a.Status, a.Error, a.Text, a.Rule}
		f.state = Warning
		f.lines = append(f.lines, fmt.Sprintf("not by CONNECT: %d %s, %s", a.Status, a.Error, a.Text))
	case l.Tunnel && !t.target.tls:
		f.lines = append(f.lines, "plain HTTP inside CONNECT is not pooled on this port (CARPOOL_CONNECT_TUNNEL_PORTS)")
	}
	f.facts = l
	return f
}

// form says how clients ask for the target.
func (t *trip) form() string {
	switch {
	case t.isTunnel():
		return "CONNECT " + t.authority
	case t.target.tls:
		return "CONNECT for most clients; https:// in absolute-form for axios 0.21 to 1.6 and needle: then carpool speaks TLS"
	}
	return "plain HTTP in absolute-form; inside CONNECT for undici and fetch of Node.js 22 and 24"
}

// Policy is the verdict on host and port.
type Policy struct {
	Allowed bool `json:"allowed"`
	// Rule is the rule that refuses, or would with CARPOOL_POLICY=enforce.
	Rule string `json:"rule,omitempty"`
	// Setting and Entry are what allows the host, if any has to.
	Setting string `json:"setting,omitempty"`
	Entry   string `json:"entry,omitempty"`
	// Reported is what a rule has against it, though it is let through.
	Reported string `json:"reported,omitempty"`
}

func (t *trip) policy(context.Context) found {
	if a := t.aim.Refused; a != nil {
		return failed(Policy{Rule: a.Rule}, *a, "", fmt.Sprintf("refused by the rule %s, before the name is looked up", a.Rule))
	}
	if a := t.tunnel; a != nil && t.target.tls {
		f := failed(Policy{Rule: a.Rule}, *a, "", fmt.Sprintf("CONNECT is refused by the rule %s", a.Rule))
		f.but = "That is for tunnels. Clients that hand https:// to carpool whole may go there."
		return f
	}
	p := Policy{Allowed: true}
	if let := t.aim.Let; let != nil {
		p.Rule, p.Reported = let.Reason, let.Message
		return found{state: Warning, lines: []string{"let through by CARPOOL_POLICY=report: " + let.Message}, facts: p}
	}
	k := t.origin.Key()
	if k.Way != pool.Directly { // which is the hop's
		return found{lines: []string{"no rule refuses the host and port"}, facts: p}
	}
	addr, _ := netip.ParseAddr(k.Host) // a name is no address
	rules := outbound.Rules(t.cfg)
	line := "no rule refuses the host and port"
	if p.Setting, p.Entry = rules.HostAllowedBy([]byte(k.Host), addr, k.Port); p.Setting != "" {
		line = fmt.Sprintf("allowed by the entry %s of %s", p.Entry, p.Setting)
	}
	return found{lines: []string{line}, facts: p}
}

// Address is the verdict on one address of the name, as it is dialled.
type Address struct {
	Addr    netip.Addr `json:"addr"`
	Allowed bool       `json:"allowed"`
	Rule    string     `json:"rule,omitempty"`
	Text    string     `json:"text,omitempty"`
	// Opened is the setting that opens what is refused by default.
	Opened string `json:"opened_by,omitempty"`
}

// addresses asks for the verdict on each address. The whole is refused if each is.
func (t *trip) addresses(context.Context) found {
	verdicts := make([]Address, 0, len(t.host.Addrs))
	var first error
	var lines []string
	for _, a := range t.host.Addrs {
		v, err := t.judge(a.Unmap())
		if err != nil && first == nil {
			first = err
		}
		verdicts = append(verdicts, v)
		switch {
		case v.Rule != "" && !v.Allowed:
			lines = append(lines, fmt.Sprintf("%s: refused by the rule %s", v.Addr, v.Rule))
		case v.Text != "":
			lines = append(lines, v.Addr.String()+": "+v.Text)
		}
	}
	f := found{lines: bounded(lines, 6), facts: verdicts}
	refused, let := 0, 0
	for _, v := range verdicts {
		switch {
		case !v.Allowed:
			refused++
		case v.Rule != "":
			let++
		}
	}
	switch {
	case refused == len(verdicts):
		a := proxy.DialAnswer(t.dialError(pool.StagePolicy, first))
		f = failed(verdicts, a, "", bounded(lines, 6)...)
	case refused+let > 0:
		f.state = Warning
	}
	return f
}

// judge gives the verdict on an address. The error is that of the refusal.
func (t *trip) judge(a netip.Addr) (Address, error) {
	v, told := Address{Addr: a, Allowed: true}, len(t.notes.reported)
	if err := t.egress.CheckAddr(netip.AddrPortFrom(a, t.origin.LeadsTo().Port)); err != nil {
		answer := proxy.DialAnswer(t.dialError(pool.StagePolicy, err))
		return Address{Addr: a, Rule: answer.Rule, Text: "refused, " + answer.Text}, err
	}
	if r := t.notes.reported[told:]; len(r) > 0 {
		v.Rule, v.Text = r[0].Rule, "let through by CARPOOL_POLICY=report: "+r[0].Detail
		return v, nil
	}
	rules := outbound.Rules(t.cfg)
	if setting, entry := rules.AddrOpenedBy(a, t.cfg.Listeners()[0].Addr().IsLoopback()); setting != "" {
		v.Opened = setting + "=" + entry
		v.Text = "refused by default, and opened by " + v.Opened
	}
	return v, nil
}
