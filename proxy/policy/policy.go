// Package policy decides where egress may go: by what is built in and needs no setting, and by [Rules] that an operator
// has set.
//
// Everything here is a pure function, and the questions come in the order in which a request meets them: [Host] when the
// target is read, [Rules.Host] before it is resolved, [Rules.Addr] on each address about to be dialled (the checked
// address must be the dialled one, or a name that resolves differently the second time walks past the check), and [Self]
// beside it. Where there is a next hop, [Direct] says what does not go there, and [Rules.HandedOn] stands for Addr with a
// name that does. Names are never judged by what they resolve to, and addresses never by the name that led to them.
package policy

// The reasons a [Denied] gives. They are stable, few and free of request data: fit for a log field or a metric's label.
const (
	ReasonHostEmpty   = "host_empty"      // no host at all
	ReasonHostByte    = "host_byte"       // a byte that no host name has
	ReasonHostLabel   = "host_label"      // a label or the name is empty or too long
	ReasonHostNumber  = "host_number"     // a number that some resolvers read as an IPv4 address
	ReasonHostLiteral = "host_literal"    // brackets around something else than an IPv6 address
	ReasonAddrInvalid = "address_invalid" // the zero netip.Addr
	ReasonLoopback    = "loopback"        // this pod itself, also as 0.0.0.0 and ::
	ReasonLinkLocal   = "link_local"      // 169.254.0.0/16 and fe80::/10, metadata services aside
	ReasonMetadata    = "metadata"        // a cloud's metadata service
	ReasonCloudLocal  = "cloud_local"     // what else is in fd00:ec2::/32
	ReasonMulticast   = "multicast"       // 224.0.0.0/4 and ff00::/8
	ReasonBroadcast   = "broadcast"       // 255.255.255.255
	ReasonThisNetwork = "this_network"    // 0.0.0.0/8 except 0.0.0.0

	// The rules that an operator sets.
	ReasonAllowHosts   = "allow_hosts"   // there are some, and the host is none of them
	ReasonDenyHosts    = "deny_hosts"    // the host is one of them
	ReasonDenyCIDRs    = "deny_cidrs"    // the address is in one of them
	ReasonConnectPorts = "connect_ports" // CONNECT to another port
)

// Reasons returns the reasons why a request that is well-formed may not go where it is meant to.
func Reasons() []string {
	return []string{
		ReasonAllowHosts, ReasonDenyHosts, ReasonDenyCIDRs, ReasonConnectPorts,
		ReasonAddrInvalid, ReasonLoopback, ReasonLinkLocal, ReasonMetadata, ReasonCloudLocal,
		ReasonMulticast, ReasonBroadcast, ReasonThisNetwork,
	}
}

// Denied is the error of every refusal in this package. [Host] refuses what is malformed (400), all others what is
// forbidden (403).
type Denied struct {
	// Reason is one of the Reason constants.
	Reason string
	// Message is one sentence for a person and says what to do. It may name an address, a setting and an entry of it,
	// but never repeats bytes of the request, so it can go into an answer or a log line as it is.
	Message string
}

// Error returns the Message.
func (d *Denied) Error() string { return d.Message }

// Configured reports whether a rule that an operator has set refuses, not what is built in.
func (d *Denied) Configured() bool {
	switch d.Reason {
	case ReasonAllowHosts, ReasonDenyHosts, ReasonDenyCIDRs, ReasonConnectPorts:
		return true
	}
	return false
}
