package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Hosts is a list of patterns for hosts; nil matches none.
type Hosts []policy.HostPattern

var errHosts = errors.New("want host names, .suffixes for all names below, or IP addresses (IPv6 in brackets), each with a :port or " +
	"without, separated by commas, e.g. legacy,.old.example.com,10.0.0.7:8080")

// UnmarshalText takes patterns separated by commas, with or without spaces around them.
func (h *Hosts) UnmarshalText(text []byte) error {
	var hosts Hosts
	for field := range strings.SplitSeq(string(text), ",") {
		host, ok := policy.ParseHostPattern(strings.TrimSpace(field))
		if !ok {
			return errHosts
		}
		hosts = append(hosts, host)
	}
	*h = hosts
	return nil
}

// String writes the patterns separated by commas.
func (h Hosts) String() string { return list(h) }

// CIDRs is a list of ranges of addresses; nil holds none. The bits of each behind its length are 0, and ranges of
// IPv4-mapped addresses are ranges of IPv4.
type CIDRs []netip.Prefix

var errCIDRs = errors.New("want ranges of IP addresses, or addresses, separated by commas, e.g. 10.0.0.0/8,fd00:ec2:80::/64,192.0.2.7")

// UnmarshalText takes ranges and single addresses separated by commas, with or without spaces around them.
func (c *CIDRs) UnmarshalText(text []byte) error {
	var ranges CIDRs
	for field := range strings.SplitSeq(string(text), ",") {
		r, ok := parseCIDR(strings.TrimSpace(field))
		if !ok {
			return errCIDRs
		}
		ranges = append(ranges, r)
	}
	*c = ranges
	return nil
}

func parseCIDR(s string) (netip.Prefix, bool) {
	r, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		r = netip.PrefixFrom(a, a.BitLen())
	}
	if r.Addr().Is4In6() {
		if r.Bits() < 96 {
			return netip.Prefix{}, false // it holds more than IPv4-mapped addresses, or its bits are cut off
		}
		r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
	}
	return r.Masked(), true
}

// String writes the ranges separated by commas.
func (c CIDRs) String() string { return list(c) }

// list writes what can be written with commas between.
func list[T fmt.Stringer](all []T) string {
	fields := make([]string, len(all))
	for i, v := range all {
		fields[i] = v.String()
	}
	return strings.Join(fields, ",")
}
