package check

import (
	"fmt"
	"strconv"
	"strings"
)

// target is what a check is about, as a client would name it.
type target struct {
	// url is in absolute-form, without user information and fragment, which go nowhere; "" if only a tunnel is asked for.
	url string
	tls bool
	// authority is host:port, as a CONNECT has it.
	authority string
	path      string // with the query
}

// parseTarget takes a URL, or host:port, apart. What host and port are worth the proxy says.
func parseTarget(arg string) (target, error) {
	bad := fmt.Errorf("%q is neither http://host/path nor https://host/path nor host:port", arg)
	if strings.ContainsFunc(arg, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return target{}, fmt.Errorf("%q has a space or a control character: write it as %%20 and the like", arg)
	}
	scheme, rest, isURL := strings.Cut(arg, "://")
	if !isURL {
		if port := portOf(arg); port == "" || strings.ContainsAny(arg, "/?#@") {
			return target{}, bad
		}
		return target{authority: arg}, nil
	}
	t, port := target{}, ":80"
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		t.tls, port = true, ":443"
	default:
		return target{}, bad
	}
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	t.authority, t.path = rest[:end], rest[end:]
	t.authority = t.authority[strings.LastIndexByte(t.authority, '@')+1:]
	t.url = strings.ToLower(scheme) + "://" + t.authority + t.path
	if portOf(t.authority) == "" {
		t.authority = strings.TrimSuffix(t.authority, ":") + port
	}
	return t, nil
}

// portOf returns the digits behind an authority's last colon.
func portOf(authority string) string {
	colon := strings.LastIndexByte(authority, ':')
	if colon < strings.LastIndexByte(authority, ']') || colon < 0 {
		return ""
	}
	port := authority[colon+1:]
	if _, err := strconv.ParseUint(port, 10, 64); err != nil {
		return ""
	}
	return port
}

// String is the target as it was given, less what goes nowhere.
func (t target) String() string {
	if t.url == "" {
		return t.authority
	}
	return t.url
}

// isTunnel reports whether nothing but a tunnel is asked for.
func (t target) isTunnel() bool { return t.url == "" }
