package names

import (
	"net"
	"net/netip"
	"slices"
)

// prefer puts the addresses of the family first that is likelier to work (RFC
// 6724 section 6, the rules that tell families apart: 1, 2, 5 and 6). Within a
// family the order stays.
func prefer(addrs []netip.Addr, source func(netip.Addr) netip.Addr) []netip.Addr {
	if !slices.ContainsFunc(addrs, netip.Addr.Is4) || !slices.ContainsFunc(addrs, netip.Addr.Is6) {
		return addrs
	}
	ranks := map[netip.Addr]int{}
	for _, a := range addrs {
		ranks[a] = rank(a, source(a))
	}
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return ranks[b] - ranks[a] })
	return addrs
}

// rank is the higher the sooner an address is tried, to which packets go from this
// source; the zero Addr if there is no way.
func rank(a, source netip.Addr) int {
	if !source.IsValid() {
		return 0 // rule 1
	}
	precedence, label := classify(a)
	_, from := classify(source)
	n := 1<<10 | precedence // rule 6
	if isLocal(a) == isLocal(source) {
		n |= 1 << 9 // rule 2
	}
	if label == from {
		n |= 1 << 8 // rule 5
	}
	return n
}

func isLocal(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() }

// policies are the table of RFC 6724 section 2.1, the longest prefix first. An
// IPv4 address is looked up as one mapped to IPv6.
var policies = [...]struct {
	prefix            netip.Prefix
	precedence, label int
}{
	{netip.MustParsePrefix("::1/128"), 50, 0},
	{netip.MustParsePrefix("::/96"), 1, 3},
	{netip.MustParsePrefix("2001::/32"), 5, 5},
	{netip.MustParsePrefix("2002::/16"), 30, 2},
	{netip.MustParsePrefix("3ffe::/16"), 1, 12},
	{netip.MustParsePrefix("fec0::/10"), 1, 11},
	{netip.MustParsePrefix("fc00::/7"), 3, 13},
	{netip.MustParsePrefix("::/0"), 40, 1},
}

func classify(a netip.Addr) (precedence, label int) {
	if a.Is4() || a.Is4In6() {
		return 35, 4
	}
	for _, p := range policies {
		if p.prefix.Contains(a.WithZone("")) {
			return p.precedence, p.label
		}
	}
	return 0, 0
}

// source returns the address from which packets go to another. It sends none.
func source(to netip.Addr) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}
