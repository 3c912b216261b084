package policy

import (
	"net/netip"
	"slices"
)

// Rules are what an operator has set about where requests may go. The zero value sets nothing: then what [Addr] refuses
// is refused, and nothing else. A refusal comes before any permission: what a rule denies no other rule allows.
//
// Names are judged as they are asked for, before anything is resolved, and addresses as they are dialled. A name may
// have aliases (a short form that the search list completes, a CNAME) that no rule on names sees. A rule on addresses
// sees where they all lead.
type Rules struct {
	// AllowHosts, if there are any, are the only hosts that may be asked for, besides the addresses in AllowCIDRs.
	AllowHosts HostSet
	// DenyHosts may not be asked for.
	DenyHosts HostSet
	// AllowCIDRs are addresses that a host may be written as although AllowHosts has not got them. A range that lies in
	// one of those that are refused by default, but can be opened, opens it: link-local addresses, a cloud's own, and
	// loopback. It opens no address of a metadata service. On its own it limits nothing.
	AllowCIDRs []netip.Prefix
	// DenyCIDRs are addresses that may not be connected to, whatever name has led to them and however they are spelled.
	DenyCIDRs []netip.Prefix
	// ConnectPorts are the ports that CONNECT may ask for; nil is any.
	ConnectPorts []uint16
	// AllowMetadata opens the metadata services of clouds, which hold the credentials of the node.
	AllowMetadata bool
}

// The refusals by rules on hosts and ports that name no pattern.
var (
	errNotAllowed = &Denied{ReasonAllowHosts,
		"no entry of CARPOOL_ALLOW_HOSTS matches the host and port of the request; add one if the request is meant to go there"}
	errConnectPort = &Denied{ReasonConnectPorts, "CONNECT to this port is not allowed (CARPOOL_CONNECT_PORTS)"}
)

// openable are the ranges of what is refused by default that AllowCIDRs can open, in whole or in part.
var openable = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/32"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"),
}

// JudgesHosts reports whether there is any rule for Host to go by.
func (r *Rules) JudgesHosts() bool { return !r.AllowHosts.Empty() || !r.DenyHosts.Empty() }

// Host gives the verdict on a host and port that a request asks for; nil allows it. name is in lower case, or an address
// as [netip.Addr] writes it; addr is that address, or the zero Addr for a name. Permission allocates nothing.
func (r *Rules) Host(name []byte, addr netip.Addr, port uint16) *Denied {
	if p, denied := r.deniedHost(name, addr, port); denied {
		return &Denied{ReasonDenyHosts, "the host of the request is refused by the entry " + p.String() + " of CARPOOL_DENY_HOSTS"}
	}
	if r.AllowHosts.Empty() {
		return nil
	}
	if _, allowed := r.AllowHosts.Match(name, port); allowed {
		return nil
	}
	if _, allowed := within(r.AllowCIDRs, addr); allowed {
		return nil
	}
	return errNotAllowed
}

// HostAllowedBy returns the setting and the entry of it by which [Rules.Host] allows a host and port; both are empty if
// no host needs any.
func (r *Rules) HostAllowedBy(name []byte, addr netip.Addr, port uint16) (setting, entry string) {
	if p, ok := r.AllowHosts.Match(name, port); ok {
		return "CARPOOL_ALLOW_HOSTS", p.String()
	}
	if p, ok := within(r.AllowCIDRs, addr); ok && !r.AllowHosts.Empty() {
		return "CARPOOL_ALLOW_CIDRS", p.String()
	}
	return "", ""
}

// AddrOpenedBy returns the setting, and the entry of it if it has any, that opens an address which [Addr] refuses; both
// are empty for one that it does not refuse, or that nothing opens.
func (r *Rules) AddrOpenedBy(a netip.Addr, listenOnLoopback bool) (setting, entry string) {
	a = plain(a)
	var buf [maxReached]netip.Addr
	for _, s := range appendSpelled(buf[:0], a) {
		switch reason := classify(s); {
		case reason == "" || reason == ReasonLoopback && listenOnLoopback || !r.opens(s, reason):
		case reason == ReasonMetadata:
			return "CARPOOL_ALLOW_METADATA", "true"
		default:
			p, _ := r.openedBy(s)
			return "CARPOOL_ALLOW_CIDRS", p.String()
		}
	}
	return "", ""
}

// deniedHost finds an address in every spelling.
func (r *Rules) deniedHost(name []byte, addr netip.Addr, port uint16) (HostPattern, bool) {
	if !addr.IsValid() || r.DenyHosts.Empty() {
		return r.DenyHosts.Match(name, port)
	}
	var addrs [maxReached]netip.Addr
	var text [len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")]byte
	for _, a := range appendReached(addrs[:0], plain(addr)) {
		if p, ok := r.DenyHosts.Match(a.AppendTo(text[:0]), port); ok {
			return p, true
		}
	}
	return HostPattern{}, false
}

// ConnectPort gives the verdict on a port that CONNECT asks for; nil allows it.
func (r *Rules) ConnectPort(port uint16) *Denied {
	if r.ConnectPorts == nil || slices.Contains(r.ConnectPorts, port) {
		return nil
	}
	return errConnectPort
}

// Addr gives the verdict on an address that is about to be dialled, as [Addr] does, with what the rules open and what
// they deny besides; nil allows it.
func (r *Rules) Addr(a netip.Addr, listenOnLoopback bool) *Denied {
	if !a.IsValid() {
		return &Denied{ReasonAddrInvalid, "there is no address to go to; the resolver returned none"}
	}
	a = plain(a)
	var buf [maxReached]netip.Addr
	for _, s := range appendSpelled(buf[:0], a) {
		reason := classify(s)
		if reason == "" || reason == ReasonLoopback && listenOnLoopback || r.opens(s, reason) {
			continue
		}
		return denyAddr(reason, a, s)
	}
	for _, s := range appendReached(buf[:0], a) {
		if p, denied := within(r.DenyCIDRs, s); denied {
			return &Denied{ReasonDenyCIDRs, subject(a, s) + " in the range " + p.String() + " of CARPOOL_DENY_CIDRS"}
		}
	}
	return nil
}

// opens reports whether the rules open an address that is refused by default for a reason. A range that is wider than
// what is refused means something else and opens nothing.
func (r *Rules) opens(a netip.Addr, reason string) bool {
	if reason == ReasonMetadata {
		return r.AllowMetadata
	}
	_, ok := r.openedBy(a)
	return ok
}

func (r *Rules) openedBy(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range r.AllowCIDRs {
		if p.Contains(a) && opener(p) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// opener reports whether a range can open something.
func opener(p netip.Prefix) bool {
	return slices.ContainsFunc(openable, func(o netip.Prefix) bool { return o.Contains(p.Addr()) && o.Bits() <= p.Bits() })
}

// Idle returns those of AllowCIDRs that have no effect: they open nothing, and without AllowHosts they allow nothing that
// is not allowed anyway. Who has set them may have meant to limit something.
func (r *Rules) Idle() []netip.Prefix {
	if !r.AllowHosts.Empty() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.AllowCIDRs), opener)
}

// within returns the first of some ranges that an address is in.
func within(ranges []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range ranges {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
