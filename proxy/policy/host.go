package policy

import "net/netip"

// Lengths of RFC 1035 §2.3.4, in the written form and without a trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// The refusals of Host say nothing of the host itself, so one value of each is enough and refusing costs no memory.
var (
	errHostEmpty = &Denied{ReasonHostEmpty,
		"the target has no host; write http://name/ or http://name:port/"}
	errHostByte = &Denied{ReasonHostByte,
		"the host has a character that no host name has; use letters, digits, '-', '_' and '.', and punycode (xn--) for other scripts"}
	errHostLabel = &Denied{ReasonHostLabel,
		"the host has an empty label, a label over 63 characters, or more than 253 characters; check the name"}
	errHostNumber = &Denied{ReasonHostNumber,
		"the host ends in a number but is no plain IPv4 address; write four decimal numbers, such as 192.0.2.1"}
	errHostLiteral = &Denied{ReasonHostLiteral,
		"the host in brackets is no IPv6 address; write it without a zone, such as [2001:db8::1]"}
)

// Host gives the verdict on a host as it is written in a request target, a Host field or a CONNECT authority, without
// the port; an IPv6 address comes in its brackets. The error, if any, is a [*Denied] and calls for status 400.
//
// When the host is a literal, its address is returned (an IPv4-mapped one as plain IPv4) and must be used instead of
// the text. For a name the zero Addr is returned. No name that Host accepts is read as an address by any resolver: the
// short, octal, hexadecimal and single-number spellings that inet_aton takes (127.1, 0177.0.0.1, 0x7f000001,
// 2130706433) are refused, by the rule of the WHATWG URL standard that a host which ends in a number is an IPv4 address
// or an error. Letter case and one trailing dot are legal in names and change no verdict.
//
// Accepting a name or an IPv4 address allocates nothing; an IPv6 literal costs one small string.
func Host(host []byte) (netip.Addr, error) {
	if len(host) == 0 {
		return netip.Addr{}, errHostEmpty
	}
	if host[0] == '[' {
		return bracketed(host)
	}
	last, err := checkName(host)
	if err != nil {
		return netip.Addr{}, err
	}
	if !isNumber(last) {
		return netip.Addr{}, nil
	}
	if a, ok := dottedQuad(host); ok {
		return a, nil
	}
	return netip.Addr{}, errHostNumber
}

// bracketed reads an IP-literal of RFC 3986 §3.2.2. Zones are refused (RFC 9110 §4.2.3 leaves them to the machine that
// wrote them), and so is IPvFuture.
func bracketed(host []byte) (netip.Addr, error) {
	end := len(host) - 1
	if host[end] != ']' {
		return netip.Addr{}, errHostLiteral
	}
	a, err := netip.ParseAddr(string(host[1:end]))
	if err != nil || !a.Is6() || a.Zone() != "" {
		return netip.Addr{}, errHostLiteral
	}
	return a.Unmap(), nil
}

// checkName checks the bytes and the labels of a name and returns its last label, a trailing dot aside.
func checkName(name []byte) (last []byte, err error) {
	if name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	if len(name) > maxName {
		return nil, errHostLabel
	}
	start := 0
	for i, c := range name {
		switch {
		case c == '.':
			if !labelFits(i - start) {
				return nil, errHostLabel
			}
			start = i + 1
		case !isNameByte(c):
			return nil, errHostByte
		}
	}
	if !labelFits(len(name) - start) {
		return nil, errHostLabel
	}
	return name[start:], nil
}

func labelFits(n int) bool { return 0 < n && n <= maxLabel }

// isNameByte is wider than RFC 1123 by the underscore: container and service names have it, and resolvers take it.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || c == '-' || c == '_'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isNumber is the test of the WHATWG URL standard, "ends in a number": all digits, or 0x and hexadecimal digits, of
// which there may be none.
func isNumber(label []byte) bool {
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		for _, c := range label[2:] {
			if lower := c | 0x20; !isDigit(c) && (lower < 'a' || 'f' < lower) {
				return false
			}
		}
		return true
	}
	for _, c := range label {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// dottedQuad takes exactly what netip.ParseAddr takes for IPv4, four decimal numbers without leading zeros, but reads
// bytes: ParseAddr wants a string and lets it escape.
func dottedQuad(host []byte) (netip.Addr, bool) {
	var quad [4]byte
	part, digits, value := 0, 0, 0
	for _, c := range host {
		switch {
		case c == '.' && digits > 0 && part < 3:
			part, digits, value = part+1, 0, 0
		case isDigit(c) && (digits == 0 || value > 0):
			digits, value = digits+1, value*10+int(c-'0')
			if value > 255 {
				return netip.Addr{}, false
			}
			quad[part] = byte(value)
		default:
			return netip.Addr{}, false
		}
	}
	return netip.AddrFrom4(quad), part == 3 && digits > 0
}
