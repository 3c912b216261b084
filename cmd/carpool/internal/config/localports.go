package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LocalPorts is a list of ports of the pod's loopback, each of which leads to one upstream; nil is none. No port is in
// it twice.
type LocalPorts []LocalPort

// LocalPort is one entry of LocalPorts.
type LocalPort struct {
	// Port is from 1 to 65535.
	Port uint16
	// Origin is the upstream, as text.
	Origin
}

const wantLocalPorts = "want ports of loopback, each of them once, with the upstream that it leads to and without a path, separated by commas, " +
	"e.g. 9001=https://api.partner.example,9002=http://orders:8080"

// UnmarshalText takes entries separated by commas, with or without spaces around them. The error names all that are
// bad.
func (p *LocalPorts) UnmarshalText(text []byte) error {
	var ports LocalPorts
	var bad, twice []string
	for field := range strings.SplitSeq(string(text), ",") {
		entry, ok := parseLocalPort(strings.TrimSpace(field))
		switch {
		case !ok:
			bad = append(bad, quote(field))
		case ports.has(entry.Port):
			twice = append(twice, strconv.Itoa(int(entry.Port)))
		}
		ports = append(ports, entry)
	}
	var errs []error
	if len(bad) > 0 {
		errs = append(errs, fmt.Errorf("not %s: %s", strings.Join(bad, ", "), wantLocalPorts))
	}
	if len(twice) > 0 {
		errs = append(errs, fmt.Errorf("want each port once, not twice %s", strings.Join(twice, ", ")))
	}
	if len(errs) > 0 {
		return errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
	}
	*p = ports
	return nil
}

func parseLocalPort(s string) (entry LocalPort, ok bool) {
	number, origin, found := strings.Cut(s, "=")
	n, err := strconv.ParseUint(number, 10, 16)
	if !found || err != nil || n == 0 || entry.Origin.UnmarshalText([]byte(origin)) != nil {
		return entry, false
	}
	entry.Port = uint16(n)
	return entry, true
}

// has reports whether a port is in the list.
func (p LocalPorts) has(port uint16) bool {
	return slices.ContainsFunc(p, func(e LocalPort) bool { return e.Port == port })
}

// clear reports whether none of the ports is that of an address to listen on, or that one is not well-formed.
func (p LocalPorts) clear(listen string) bool {
	a, _ := listenAddr(listen)
	return a.Port() == 0 || !p.has(a.Port())
}

// String writes the entries separated by commas, each with scheme and port.
func (p LocalPorts) String() string {
	fields := make([]string, len(p))
	for i, entry := range p {
		fields[i] = fmt.Sprintf("%d=%s", entry.Port, entry.Origin)
	}
	return strings.Join(fields, ",")
}
