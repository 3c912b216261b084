package config

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// NextProxy is where the next proxy on the way out is. The zero value is none.
type NextProxy pool.Key

var (
	errNextProxy = errors.New("want http:// or https://, a host name or an IP address (IPv6 in brackets), and a :port or none, " +
		"e.g. http://proxy.corp:8080")
	errCredentials = errors.New("want no user and password here, where they would be shown: " +
		"CARPOOL_NEXT_PROXY_AUTH_FILE names a file that holds them as user:password")
)

// UnmarshalText takes scheme://host[:port], with or without a / behind it. Without a port it is the scheme's own.
func (n *NextProxy) UnmarshalText(text []byte) error {
	s := string(text)
	if strings.ContainsRune(s, '@') {
		return errCredentials
	}
	var o Origin
	if _, _, found := strings.Cut(s, "://"); !found || o.UnmarshalText([]byte(strings.TrimSuffix(s, "/"))) != nil {
		return errNextProxy
	}
	*n = NextProxy(o)
	return nil
}

// String writes scheme://host:port, "" for none.
func (n NextProxy) String() string {
	if n.Host == "" {
		return ""
	}
	return pool.Key(n).String()
}

// leadsTo reports whether this is an address on which carpool itself listens, as far as that can be told without looking
// a name up.
func (n NextProxy) leadsTo(listen string) bool {
	own, _ := listenAddr(listen)
	to, err := netip.ParseAddr(n.Host)
	if strings.TrimSuffix(n.Host, ".") == "localhost" {
		to, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	return err == nil && policy.Self(netip.AddrPortFrom(to, n.Port), []netip.AddrPort{own}, nil)
}

// NoProxy is what goes past a proxy: patterns for hosts, and ranges of addresses.
type NoProxy struct {
	Hosts  Hosts
	Ranges CIDRs
}

var errNoProxy = errors.New("want host names, .suffixes, IP addresses and ranges of them, separated by commas, e.g. .svc,corp.example,10.0.0.0/8")

// UnmarshalText takes entries separated by commas, with or without spaces around them. Hosts can have a :port. *.suffix
// is .suffix.
func (n *NoProxy) UnmarshalText(text []byte) error {
	var out NoProxy
	for field := range strings.SplitSeq(string(text), ",") {
		field = strings.TrimSpace(field)
		if r, ok := parseCIDR(field); ok {
			out.Ranges = append(out.Ranges, r)
			continue
		}
		if strings.HasPrefix(field, "*.") {
			field = field[1:]
		}
		host, ok := policy.ParseHostPattern(field)
		if !ok {
			return errNoProxy
		}
		out.Hosts = append(out.Hosts, host)
	}
	*n = out
	return nil
}

// String writes the entries separated by commas, the hosts first.
func (n NoProxy) String() string {
	both := n.Hosts.String() + "," + n.Ranges.String()
	return strings.Trim(both, ",")
}
