package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Warm is a list of upstreams with the number of connections to keep open to each; nil is none.
type Warm []WarmOrigin

// WarmOrigin is one entry of Warm.
type WarmOrigin struct {
	Origin
	// Conns is from 1 to MaxWarm.
	Conns int
}

// Origin is an upstream, as text. Its Port is never 0.
type Origin pool.Key

// MaxWarm is the most connections that an entry of Warm asks for.
const MaxWarm = 100

var (
	wantWarm = "want upstreams, each with the number of connections to keep open to it, from 1 to 100, separated by commas, " +
		"e.g. orders:8080=4,https://api.example.com=2"
	errOrigin = errors.New("want a host name or an IP address (IPv6 in brackets), with a :port or without, and http:// or https:// before it or nothing")
)

// UnmarshalText takes entries separated by commas, with or without spaces around them. The error names all that are
// bad.
func (w *Warm) UnmarshalText(text []byte) error {
	var warm Warm
	var bad []string
	fields := strings.Split(string(text), ",")
	for _, field := range fields {
		entry, ok := parseWarm(strings.TrimSpace(field))
		if !ok {
			bad = append(bad, quote(field))
		}
		warm = append(warm, entry)
	}
	switch {
	case len(fields) == 1 && len(bad) == 1:
		return errors.New(wantWarm)
	case len(bad) > 0:
		return fmt.Errorf("not %s: %s", strings.Join(bad, ", "), wantWarm)
	}
	*w = warm
	return nil
}

func parseWarm(s string) (entry WarmOrigin, ok bool) {
	origin, number, found := strings.Cut(s, "=")
	n, err := strconv.ParseUint(number, 10, 16)
	if !found || err != nil || n == 0 || n > MaxWarm || entry.Origin.UnmarshalText([]byte(origin)) != nil {
		return entry, false
	}
	entry.Conns = int(n)
	return entry, true
}

// UnmarshalText takes [scheme://]host[:port]. Without a scheme it is http, without a port the scheme's own.
func (o *Origin) UnmarshalText(text []byte) error {
	s, out := string(text), Origin{Port: 80}
	switch {
	case cutPrefixFold(&s, "http://"):
	case cutPrefixFold(&s, "https://"):
		out.TLS, out.Port = true, 443
	}
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		port, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || port == 0 {
			return errOrigin
		}
		s, out.Port = s[:colon], uint16(port)
	}
	addr, err := policy.Host([]byte(s))
	if err != nil {
		return errOrigin
	}
	if out.Host = strings.ToLower(s); addr.IsValid() {
		out.Host = addr.String()
	}
	*o = out
	return nil
}

// cutPrefixFold cuts a prefix, in any letter case, off s, and reports whether it did.
func cutPrefixFold(s *string, prefix string) bool {
	if len(*s) < len(prefix) || !strings.EqualFold((*s)[:len(prefix)], prefix) {
		return false
	}
	*s = (*s)[len(prefix):]
	return true
}

// String writes scheme://host:port.
func (o Origin) String() string { return pool.Key(o).String() }

// MarshalText writes what String does.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// String writes the entries separated by commas, each with scheme and port.
func (w Warm) String() string {
	fields := make([]string, len(w))
	for i, entry := range w {
		fields[i] = fmt.Sprintf("%s=%d", entry.Origin, entry.Conns)
	}
	return strings.Join(fields, ",")
}
