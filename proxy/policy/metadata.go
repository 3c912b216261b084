package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// A service is one that a cloud has for its machines, or a node for its pods: metadata, credentials. All of the range is
// refused, and clients call it, past carpool, at the addresses in it.
type service struct {
	prefix netip.Prefix
	// addrs are where clients call it, as they write them. None is: the range is one address.
	addrs []netip.Addr
}

// linkLocal are the ranges that are for one link only, and the services of clouds in them. Those of IPv6 have a zone,
// which a request cannot have (RFC 9110 §4.2.3): no client calls them by way of a proxy.
var linkLocal = []service{
	refused("169.254.0.0/16",
		"169.254.169.254", // AWS, Azure, Google Cloud, Oracle, OpenStack, DigitalOcean and most others
		"169.254.170.2",   // AWS: credentials of ECS tasks
		"169.254.170.23",  // AWS: EKS pod identity
		"169.254.0.23",    // Tencent Cloud
		"169.254.42.42",   // Scaleway
	),
	refused("fe80::/10"),
}

// metadataServices are those outside the link-local ranges. A range is listed only if nothing else lives there: Google
// hands out networks all around its one address, so that one stands alone.
var metadataServices = []service{
	refused("100.100.100.200/32"),    // Alibaba Cloud
	refused("fd00:100::100:200/128"), // Alibaba Cloud
	refused("fd00:ec2::/32", // AWS; DNS and time live there, too
		"fd00:ec2::254", // metadata
		"fd00:ec2::23",  // EKS pod identity
	),
	refused("168.63.129.16/32"),       // Azure: the host's WireServer, on a public address
	refused("fd20:ce::254/128"),       // Google Cloud
	refused("fd00:a9fe:a9fe::1/128"),  // Linode (Akamai)
	refused("192.0.0.192/32"),         // Oracle Cloud
	refused("fd00:c1::a9fe:a9fe/128"), // Oracle Cloud
	refused("fd00:42::42/128"),        // Scaleway
}

// metadataNames are the names by which clients call such services. What is refused is the address that they lead to.
var metadataNames = []string{
	"metadata.google.internal", "metadata.google.internal.", "metadata", // Google Cloud; many clients take a trailing dot literally
	"metadata.tencentyun.com", // Tencent Cloud
}

var errMetadataName = &Denied{ReasonMetadata,
	"the host is the name of a cloud's metadata service; what needs it must call it without the proxy (NO_PROXY), or CARPOOL_ALLOW_METADATA opens it"}

// HandedOn gives the verdict on a name in lower case, with or without a dot at its end, that somebody else will resolve,
// so that the address it leads to is not seen here; nil allows it. Names by which metadata services are called stand for
// their addresses.
func (r *Rules) HandedOn(name []byte) *Denied {
	if r.AllowMetadata || !slices.Contains(metadataNames, strings.TrimSuffix(string(name), ".")) {
		return nil
	}
	return errMetadataName
}

func refused(prefix string, addrs ...string) service {
	s := service{prefix: netip.MustParsePrefix(prefix)}
	for _, a := range addrs {
		s.addrs = append(s.addrs, netip.MustParseAddr(a))
	}
	return s
}

// credentials are the link-local ranges in which clouds answer with the credentials of a node or a pod, and which are
// taken for metadata services as a whole: a cloud may add an address any day, as Google did with 169.254.169.252.
var credentials = []netip.Prefix{netip.MustParsePrefix("169.254.169.0/24"), netip.MustParsePrefix("169.254.170.0/24")}

// openStack is where OpenStack's metadata service is on IPv6. It needs a zone, so no client calls it by way of a proxy.
var openStack = netip.MustParseAddr("fe80::a9fe:a9fe")

// isMetadata reports whether a is an address of a metadata service.
func isMetadata(a netip.Addr) bool {
	if _, ok := within(credentials, a); ok || a == openStack {
		return true
	}
	for _, services := range [][]service{linkLocal, metadataServices} {
		for _, s := range services {
			if s.prefix.IsSingleIP() && s.prefix.Addr() == a || slices.Contains(s.addrs, a) {
				return true
			}
		}
	}
	return false
}

// isCloudLocal reports whether a is in a range outside the link-local ones that a cloud has for its machines.
func isCloudLocal(a netip.Addr) bool {
	return slices.ContainsFunc(metadataServices, func(s service) bool { return s.prefix.Contains(a) })
}

// Exempt is what clients must call without carpool, because [Addr] refuses it and the app alone would have reached it.
type Exempt struct {
	Names  []string       // exact; they resolve to addresses that are refused
	Addrs  []netip.Addr   // where clients are known to call
	Ranges []netip.Prefix // all that is refused as link-local or metadata service; every one of Addrs is in one of these
}

// Exemptions returns what clients must call without carpool. It is the list that the sidecar's NO_PROXY, Java's
// http.nonProxyHosts and the script for Node.js are made of, and a test of each compares them.
func Exemptions() Exempt {
	var e Exempt
	for _, services := range [][]service{linkLocal, metadataServices} {
		for _, s := range services {
			e.Ranges = append(e.Ranges, s.prefix)
			e.Addrs = append(e.Addrs, s.addrs...)
			if s.prefix.IsSingleIP() {
				e.Addrs = append(e.Addrs, s.prefix.Addr())
			}
		}
	}
	e.Names = append(e.Names, metadataNames...)
	return e
}

// NoProxy returns e as entries of NO_PROXY with commas between them. Each address and name stands alone, for many
// clients know no ranges. Ranges of IPv4 are there for those that do; ranges of IPv6 are not, and IPv6 has no brackets,
// for httpx fails at both. (Python's urllib finds an IPv6 address only in brackets, so there none is exempt.)
func (e Exempt) NoProxy() string {
	var entries []string
	for _, a := range e.Addrs {
		entries = append(entries, a.String())
	}
	for _, r := range e.Ranges {
		if r.Addr().Is4() && !r.IsSingleIP() {
			entries = append(entries, r.String())
		}
	}
	return strings.Join(append(entries, e.Names...), ",")
}

// NonProxyHosts returns e as Java's property http.nonProxyHosts has it, where a * at the end of an entry stands for a
// range and IPv6 has brackets. A range whose length is no whole number of an address's parts has no such form: there
// the addresses alone are exempt.
func (e Exempt) NonProxyHosts() string {
	var entries []string
	for _, r := range e.Ranges {
		if java := javaRange(r); java != "" {
			entries = append(entries, java)
		}
	}
	for _, a := range e.Addrs {
		inRange := func(r netip.Prefix) bool { return javaRange(r) != "" && r.Contains(a) }
		switch {
		case slices.ContainsFunc(e.Ranges, inRange):
		case a.Is6():
			entries = append(entries, "["+a.String()+"]")
		default:
			entries = append(entries, a.String())
		}
	}
	return strings.Join(append(entries, e.Names...), "|")
}

// javaRange returns a range of several addresses as a pattern, "" if there is none.
func javaRange(r netip.Prefix) string {
	part, separator, bracket := 8, ".", ""
	if r.Addr().Is6() {
		part, separator, bracket = 16, ":", "["
	}
	if r.IsSingleIP() || r.Bits()%part != 0 {
		return ""
	}
	whole := strings.Split(r.Addr().String(), separator)[:r.Bits()/part]
	return bracket + strings.Join(whole, separator) + separator + "*"
}
