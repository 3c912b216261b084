package config

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Hosts is a list of patterns for the hosts of upstreams; nil matches none.
type Hosts []Host

// Host is one pattern of Hosts.
type Host struct {
	// Name is a host name in lower case without a dot at its end, or an IP address without brackets.
	Name string
	// Below says that the pattern was written .name: it matches every name below Name, and not Name itself.
	Below bool
	// Port is the one port that the pattern matches; 0 is any.
	Port uint16
}

var errHosts = errors.New("want host names, .suffixes for all names below, or IP addresses (IPv6 in brackets), each with a :port or " +
	"without, separated by commas, e.g. legacy,.old.example.com,10.0.0.7:8080")

// UnmarshalText takes patterns separated by commas, with or without spaces around them.
func (h *Hosts) UnmarshalText(text []byte) error {
	var hosts Hosts
	for field := range strings.SplitSeq(string(text), ",") {
		host, ok := parseHost(strings.TrimSpace(field))
		if !ok {
			return errHosts
		}
		hosts = append(hosts, host)
	}
	*h = hosts
	return nil
}

func parseHost(s string) (h Host, ok bool) {
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		port, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || port == 0 {
			return h, false
		}
		s, h.Port = s[:colon], uint16(port)
	}
	s, h.Below = strings.CutPrefix(s, ".")
	addr, err := policy.Host([]byte(s))
	if err != nil || h.Below && addr.IsValid() {
		return h, false
	}
	h.Name = plainName(s)
	if addr.IsValid() {
		h.Name = addr.String()
	}
	return h, true
}

// plainName is a name without what makes no difference: letter case and a dot at the end.
func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Match reports whether a pattern matches a host, a name or an IP address without brackets, and its port.
func (h Hosts) Match(host string, port uint16) bool {
	host = plainName(host)
	for _, p := range h {
		if (p.Port == 0 || p.Port == port) && p.matches(host) {
			return true
		}
	}
	return false
}

func (p Host) matches(host string) bool {
	if !p.Below {
		return host == p.Name
	}
	above, ok := strings.CutSuffix(host, p.Name)
	return ok && strings.HasSuffix(above, ".")
}

// String writes the patterns separated by commas.
func (h Hosts) String() string {
	fields := make([]string, len(h))
	for i, p := range h {
		fields[i] = p.String()
	}
	return strings.Join(fields, ",")
}

// String writes the pattern as UnmarshalText takes it.
func (p Host) String() string {
	s := p.Name
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
		s = "[" + s + "]"
	}
	if p.Below {
		s = "." + s
	}
	if p.Port != 0 {
		s += ":" + strconv.Itoa(int(p.Port))
	}
	return s
}
