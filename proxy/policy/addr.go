package policy

import (
	"fmt"
	"net/netip"
)

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// An embedding is a range of IPv6 whose addresses lead to an IPv4 address that is written inside them.
type embedding struct {
	prefix netip.Prefix
	bytes  [4]int // where the IPv4 address stands among the sixteen bytes
	xor    byte   // what each of its bytes is XORed with
	guess  bool   // one of several places where it may stand: 0.0.0.0/8 means that it does not stand here
}

// embeddings leaves out IPv4-mapped addresses (see Unmap) and the NAT64 prefixes an operator took from their own
// network, which cannot be known here.
var embeddings = []embedding{
	{prefix: netip.MustParsePrefix("::/96"), bytes: [4]int{12, 13, 14, 15}},                       // IPv4-compatible, RFC 4291 §2.5.5.1
	{prefix: netip.MustParsePrefix("::ffff:0:0:0/96"), bytes: [4]int{12, 13, 14, 15}},             // IPv4-translated, RFC 2765 §2.1
	{prefix: netip.MustParsePrefix("64:ff9b::/96"), bytes: [4]int{12, 13, 14, 15}},                // NAT64, RFC 6052 §2.1
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), bytes: [4]int{12, 13, 14, 15}, guess: true}, // local NAT64, RFC 8215, cut into
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), bytes: [4]int{6, 7, 9, 10}, guess: true},    // prefixes of any length that
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), bytes: [4]int{7, 9, 10, 11}, guess: true},   // RFC 6052 §2.2 has
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), bytes: [4]int{9, 10, 11, 12}, guess: true},
	{prefix: netip.MustParsePrefix("2002::/16"), bytes: [4]int{2, 3, 4, 5}},                // 6to4, RFC 3056 §2
	{prefix: netip.MustParsePrefix("2001::/32"), bytes: [4]int{4, 5, 6, 7}},                // Teredo server, RFC 4380 §4
	{prefix: netip.MustParsePrefix("2001::/32"), bytes: [4]int{12, 13, 14, 15}, xor: 0xff}, // Teredo client
}

// Addr gives the verdict on an address that is about to be dialled, whatever led to it, where no [Rules] are set. The
// error, if any, is a [*Denied] and calls for status 403.
//
// Refused are link-local addresses, the metadata services of clouds, multicast, broadcast and 0.0.0.0/8, also when they
// are spelled as IPv6 (IPv4-mapped, -compatible or -translated, NAT64, 6to4, Teredo); a zone changes nothing. Loopback
// addresses, of which 0.0.0.0 and :: are two more on most systems, are allowed only while carpool listens on loopback
// itself: then whoever can ask is inside the pod and could go there without asking. Private ranges are what a cluster
// is made of and are allowed, and so is 240.0.0.0/4, which some clusters use for pods.
//
// carpool's own DNS queries do not pass through here: node-local resolvers live on link-local addresses.
func Addr(a netip.Addr, listenOnLoopback bool) error {
	if denied := new(Rules).Addr(a, listenOnLoopback); denied != nil {
		return denied
	}
	return nil
}

// plain strips what changes how an address is written but not where it leads.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// maxSpellings is the most that appendSpelled appends: a local NAT64 address and its four guesses.
const maxSpellings = 5

// appendSpelled appends a, which is plain, and the IPv4 addresses that are written inside it.
func appendSpelled(dst []netip.Addr, a netip.Addr) []netip.Addr {
	dst = append(dst, a)
	if a.Is4() || a == netip.IPv6Loopback() { // ::1 lies in ::/96, and is not another 0.0.0.1
		return dst
	}
	b := a.As16()
	for _, e := range embeddings {
		if !e.prefix.Contains(a) {
			continue
		}
		var quad [4]byte
		for i, at := range e.bytes {
			quad[i] = b[at] ^ e.xor
		}
		if v4 := netip.AddrFrom4(quad); !e.guess || !thisNetwork.Contains(v4) {
			dst = append(dst, v4)
		}
	}
	return dst
}

// maxReached is the most that appendReached appends.
const maxReached = maxSpellings + 2

// appendReached appends a, which is plain, and every address that a connection to a may arrive at: those that are
// written inside it, and loopback for an unspecified one.
func appendReached(dst []netip.Addr, a netip.Addr) []netip.Addr {
	begin := len(dst)
	dst = appendSpelled(dst, a)
	for _, s := range dst[begin:] {
		if s.IsUnspecified() {
			return append(dst, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
		}
	}
	return dst
}

// classify returns the reason why a, taken as it is written, is special; "" is an ordinary address.
func classify(a netip.Addr) string {
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		return ReasonLoopback
	case thisNetwork.Contains(a):
		return ReasonThisNetwork
	case isMetadata(a):
		return ReasonMetadata
	case a.IsLinkLocalUnicast():
		return ReasonLinkLocal
	case a.IsMulticast():
		return ReasonMulticast
	case a == broadcast:
		return ReasonBroadcast
	case isCloudLocal(a):
		return ReasonCloudLocal
	}
	return ""
}

// subject begins a sentence about a because of s, which is a itself or is written inside it.
func subject(a, s netip.Addr) string {
	if s != a {
		return fmt.Sprintf("%s leads to %s,", a, s)
	}
	return a.String() + " is"
}

// denyAddr builds the refusal of a because of s.
func denyAddr(reason string, a, s netip.Addr) *Denied {
	var why string
	switch reason {
	case ReasonLoopback:
		why = "a loopback address, which is refused while carpool listens on other addresses too; let it listen on 127.0.0.1 only, call the address without the proxy (NO_PROXY), or open its range (CARPOOL_ALLOW_CIDRS)"
	case ReasonLinkLocal:
		why = "a link-local address, where clouds keep services of their machines; what needs it must call it without the proxy (NO_PROXY), or CARPOOL_ALLOW_CIDRS opens its range"
	case ReasonMetadata:
		why = "a cloud's metadata service; what needs it must call it without the proxy (NO_PROXY), or CARPOOL_ALLOW_METADATA opens it"
	case ReasonCloudLocal:
		why = "in a range that a cloud keeps for services of its machines; what needs it must call it without the proxy (NO_PROXY), or CARPOOL_ALLOW_CIDRS opens its range"
	case ReasonMulticast:
		why = "a multicast address, which HTTP cannot reach; check the target's address records"
	case ReasonBroadcast:
		why = "the broadcast address, which HTTP cannot reach; check the target's address records"
	case ReasonThisNetwork:
		why = "in 0.0.0.0/8, which is no destination; check the target's address records"
	}
	return &Denied{reason, subject(a, s) + " " + why}
}
