package names

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// system is what the system's files say, as of a few seconds ago.
type system struct {
	resolv watched[resolvConf]
	hosts  watched[hosts]
	order  watched[order]
}

func newSystem(c *Config) *system {
	return &system{
		resolv: watched[resolvConf]{path: c.ResolvConf, parse: parseResolvConf},
		hosts:  watched[hosts]{path: c.Hosts, parse: parseHosts},
		order:  watched[order]{path: c.NSSwitch, parse: parseOrder},
	}
}

// lookAfter is how often a file is looked at.
const lookAfter = 5 * time.Second

// watched is a file that is read again when it has changed. While it cannot be
// read it is as it was, or empty.
type watched[T any] struct {
	path  string
	parse func(text string) T

	mu     sync.Mutex
	looked time.Time // zero: never
	state  os.FileInfo
	value  T
}

func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.looked.IsZero()
	if !first && time.Since(w.looked) < lookAfter {
		return w.value
	}
	w.looked = time.Now()
	state, err := os.Stat(w.path)
	same := err == nil && w.state != nil && state.Size() == w.state.Size() && state.ModTime().Equal(w.state.ModTime()) && os.SameFile(state, w.state)
	if same {
		return w.value
	}
	text, err := os.ReadFile(w.path)
	if err != nil && !first {
		return w.value
	}
	w.state, w.value = state, w.parse(string(text))
	return w.value
}

// lines calls f with the fields of each line that has some, up to a comment.
func lines(text, comments string, f func(fields []string)) {
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, comments); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			f(fields)
		}
	}
}

// resolvConf is a resolv.conf(5).
type resolvConf struct {
	servers  []netip.AddrPort // at least one
	search   []string         // each with its last dot
	ndots    int
	timeout  time.Duration // of one query to one server
	attempts int           // at all servers
	rotate   bool          // begin with another server each time
	oneByOne bool          // ask for AAAA after A, not beside it
	onlyTCP  bool
}

// maxServers is how many name servers count, as everywhere.
const maxServers = 3

func parseResolvConf(text string) resolvConf {
	c := resolvConf{ndots: 1, timeout: 5 * time.Second, attempts: 2}
	searched := false
	lines(text, "#;", func(f []string) {
		switch {
		case f[0] == "nameserver" && len(f) > 1 && len(c.servers) < maxServers:
			if a, ok := parseServer(f[1]); ok {
				c.servers = append(c.servers, a)
			}
		case f[0] == "domain" && len(f) > 1:
			c.search, searched = []string{rooted(f[1])}, true
		case f[0] == "search":
			c.search, searched = nil, len(f) > 1
			for _, s := range f[1:] {
				if s = rooted(s); s != "." {
					c.search = append(c.search, s)
				}
			}
		case f[0] == "options":
			for _, o := range f[1:] {
				c.option(o)
			}
		}
	})
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")}
	}
	if !searched {
		if name, err := os.Hostname(); err == nil {
			if _, domain, _ := strings.Cut(name, "."); domain != "" {
				c.search = []string{rooted(domain)}
			}
		}
	}
	return c
}

// parseServer reads an address, or [address]:port as on OpenBSD.
func parseServer(s string) (netip.AddrPort, bool) {
	port := uint64(53)
	if host, p, err := net.SplitHostPort(s); err == nil && s[0] == '[' {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return netip.AddrPort{}, false
		}
		s = host
	}
	a, err := netip.ParseAddr(s)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), err == nil
}

func (c *resolvConf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, _ := strconv.Atoi(value)
	switch name {
	case "ndots":
		c.ndots = min(max(n, 0), 15)
	case "timeout":
		c.timeout = time.Duration(max(n, 1)) * time.Second
	case "attempts":
		c.attempts = max(n, 1)
	case "rotate":
		c.rotate = true
	case "single-request", "single-request-reopen":
		c.oneByOne = true
	case "use-vc", "usevc", "tcp":
		c.onlyTCP = true
	}
}

// full returns the full names that a name may stand for, in the order in which
// they are asked for.
func (c *resolvConf) full(host string) (list []string) {
	add := func(name string) {
		if isName(name) && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	if strings.HasSuffix(host, ".") {
		add(host)
		return list
	}
	dots := strings.Count(host, ".") >= c.ndots
	if dots {
		add(host + ".")
	}
	for _, s := range c.search {
		add(host + "." + s)
	}
	if !dots {
		add(host + ".")
	}
	return list
}

// isName reports whether a full name can be asked for: it has labels of letters,
// digits, hyphens and underscores, is not a number, and not of Tor (RFC 7686).
func isName(full string) bool {
	if len(full) < 2 || len(full) > 254 || strings.HasSuffix(strings.ToLower(full), ".onion.") {
		return false
	}
	number := true
	for label := range strings.SplitSeq(full[:len(full)-1], ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == '-':
				number = false
			default:
				return false
			}
		}
	}
	return !number
}

func rooted(name string) string { return strings.TrimSuffix(name, ".") + "." }

// hosts is a hosts(5): addresses by name, in lower case and without its last dot.
type hosts map[string][]netip.Addr

func parseHosts(text string) hosts {
	h := hosts{}
	lines(text, "#", func(f []string) {
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			return
		}
		for _, name := range f[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if a = a.Unmap(); !slices.Contains(h[name], a) {
				h[name] = append(h[name], a)
			}
		}
	})
	return h
}

func (h hosts) find(host string) []netip.Addr { return h[strings.TrimSuffix(host, ".")] }

// order is in which order the hosts file and the name servers are asked
// (nsswitch.conf(5)). The zero value is that order.
type order int

const (
	filesFirst order = iota
	serversFirst
	onlyFiles
	onlyServers
)

func parseOrder(text string) (o order) {
	lines(text, "#", func(f []string) {
		if f[0] != "hosts:" {
			return
		}
		sources := slices.DeleteFunc(f[1:], func(s string) bool { return strings.HasPrefix(s, "[") || strings.HasSuffix(s, "]") })
		files, dns := slices.Index(sources, "files"), slices.Index(sources, "dns")
		switch {
		case files >= 0 && dns >= 0 && dns < files:
			o = serversFirst
		case files == 0 && len(sources) == 1:
			o = onlyFiles
		case dns == 0 && len(sources) == 1:
			o = onlyServers
		}
	})
	return o
}
