package policy

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// HostPattern is a pattern for hosts, as settings have them.
type HostPattern struct {
	// Name is a host name in lower case without a dot at its end, or an IP address without brackets.
	Name string
	// Below says that the pattern was written .name: it matches every name below Name, and not Name itself.
	Below bool
	// Port is the one port that the pattern matches; 0 is any.
	Port uint16
}

// ParseHostPattern reads a host as [Host] takes it, with a dot before it if it is Below, and :port behind it if it has
// one. ok is false for anything else.
func ParseHostPattern(s string) (p HostPattern, ok bool) {
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		port, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || port == 0 {
			return p, false
		}
		s, p.Port = s[:colon], uint16(port)
	}
	s, p.Below = strings.CutPrefix(s, ".")
	addr, err := Host([]byte(s))
	if err != nil || p.Below && addr.IsValid() {
		return p, false
	}
	p.Name = strings.ToLower(strings.TrimSuffix(s, "."))
	if addr.IsValid() {
		p.Name = addr.String()
	}
	return p, true
}

// String writes the pattern as ParseHostPattern takes it.
func (p HostPattern) String() string {
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

// HostSet is a set of patterns, made for looking hosts up: what that costs depends on the labels of the host, not on how
// many patterns there are. The zero value matches nothing. It does not change and is safe for concurrent use.
type HostSet struct {
	exact, below map[string][]HostPattern // by Name
}

// NewHostSet returns the set of these patterns.
func NewHostSet(patterns []HostPattern) HostSet {
	s := HostSet{map[string][]HostPattern{}, map[string][]HostPattern{}}
	for _, p := range patterns {
		kind := s.exact
		if p.Below {
			kind = s.below
		}
		kind[p.Name] = append(kind[p.Name], p)
	}
	return s
}

// Empty reports whether the set has no pattern.
func (s HostSet) Empty() bool { return len(s.exact)+len(s.below) == 0 }

// Match returns a pattern that matches a host and its port, if there is one. The host is a name in lower case, with or
// without a dot at its end, or an IP address as [netip.Addr] writes it. It allocates nothing.
func (s HostSet) Match(host []byte, port uint16) (HostPattern, bool) {
	if s.Empty() {
		return HostPattern{}, false
	}
	host = bytes.TrimSuffix(host, []byte("."))
	if p, ok := onPort(s.exact[string(host)], port); ok {
		return p, true
	}
	for {
		dot := bytes.IndexByte(host, '.')
		if dot < 0 {
			return HostPattern{}, false
		}
		host = host[dot+1:]
		if p, ok := onPort(s.below[string(host)], port); ok {
			return p, true
		}
	}
}

// onPort returns the first of some patterns that is for a port.
func onPort(patterns []HostPattern, port uint16) (HostPattern, bool) {
	for _, p := range patterns {
		if p.Port == 0 || p.Port == port {
			return p, true
		}
	}
	return HostPattern{}, false
}
