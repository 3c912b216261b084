package pool

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// names finds the addresses of names by asking the system's resolver, and asks
// again where that waits: Go's resolver, like the C library's, waits five seconds
// for an answer that was lost on its way or that a dead name server owes, and
// for AAAA as long as for A. It keeps nothing.
type names struct {
	resolvers []Resolver    // one after the other is asked when there is no answer
	timeout   time.Duration // of a look-up; 0 is the resolvers' own
	caught    func(where string, r any) error
}

// asking is one try to find a name's addresses.
type asking struct {
	after    time.Duration // since the first
	resolver int
	network  string
}

// askings are begun one after the other until one has an answer. Each walks the
// search list as the first does; ip4 asks for A alone, for AAAA may be what is
// missing (RFC 8305 section 3).
var askings = [...]asking{
	{0, 0, "ip"},
	{50 * time.Millisecond, 0, "ip4"},
	{300 * time.Millisecond, 1, "ip"},
	{350 * time.Millisecond, 1, "ip4"},
	{1000 * time.Millisecond, 2, "ip"},
	{1050 * time.Millisecond, 2, "ip4"},
}

// lateWait bounds the wait for addresses of the other family when none of the
// first one's could be connected to.
const lateWait = time.Second

// resolved are the addresses of a host.
type resolved struct {
	host  string
	addrs []netip.Addr
	whole bool // or else there may be more, of IPv6
}

// systemNames asks the name servers in resolv.conf, beginning with another of them
// each time.
func systemNames(timeout time.Duration) names {
	return names{resolvers: []Resolver{net.DefaultResolver, turned(1), turned(2)}, timeout: timeout}
}

// lookUp returns the addresses of a name or of an address. The error is the
// resolver's; it is a time-out if there was no answer within n.timeout.
func (n *names) lookUp(ctx context.Context, host string) (resolved, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return resolved{host, []netip.Addr{a}, true}, nil
	}
	if strings.EqualFold(trimDot(host), "localhost") { // RFC 6761 section 6.3
		return resolved{host, []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, true}, nil
	}
	ctx, cancel := n.bound(ctx)
	answers := make(chan answer, len(askings))
	begun, ended := 0, 0
	defer func() {
		cancel()
		for ; ended < begun; ended++ {
			<-answers
		}
	}()
	var failed error
	for next := time.NewTimer(0); ; {
		select {
		case <-next.C:
			go n.ask(ctx, host, &askings[begun], answers)
			if begun++; begun < len(askings) {
				next.Reset(askings[begun].after - askings[begun-1].after)
			}
		case a := <-answers:
			ended++
			if len(a.addrs) > 0 {
				next.Stop()
				return resolved{host, a.addrs, a.asking.network == "ip"}, nil
			}
			if a.asking.network == "ip" && (failed == nil || isNotFound(a.err)) {
				failed = a.err
			}
			if ended == begun || a.asking == &askings[0] && isNotFound(a.err) {
				next.Stop()
				return resolved{}, failed
			}
		}
	}
}

func (n *names) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if n.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, n.timeout)
}

// answer is what one asking came to.
type answer struct {
	asking *asking
	addrs  []netip.Addr
	err    error
}

func (n *names) ask(ctx context.Context, host string, a *asking, answers chan<- answer) {
	defer func() {
		if r := recover(); r != nil {
			answers <- answer{a, nil, n.caught("a look-up", r)}
		}
	}()
	r := n.resolvers[a.resolver%len(n.resolvers)]
	addrs, err := r.LookupNetIP(ctx, a.network, host)
	if a.network == "ip4" {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.Unmap().Is4() })
	}
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	answers <- answer{a, addrs, err}
}

// rest returns the addresses that lookUp did not wait for, nil if there are none.
func (n *names) rest(ctx context.Context, known resolved) []netip.Addr {
	if known.whole {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lateWait)
	defer cancel()
	addrs, _ := n.resolvers[0].LookupNetIP(ctx, "ip6", known.host)
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return slices.Contains(known.addrs, a) })
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// turned returns a resolver that asks the n-th name server behind the one it is
// to ask, so that it does not wait for the first if that is dead.
func turned(n int) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, turn(nameServers("/etc/resolv.conf"), address, n))
	}}
}

// turn returns the n-th behind an element of a list that is a ring; what is not
// in it stays.
func turn(list []string, element string, n int) string {
	if i := slices.Index(list, element); i >= 0 {
		return list[(i+n)%len(list)]
	}
	return element
}

// nameServers returns the addresses of the name servers in a resolv.conf, as
// net.Resolver dials them, or nil if it cannot be read.
func nameServers(file string) (list []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			list = append(list, net.JoinHostPort(f[1], "53"))
		}
	}
	return list
}

func trimDot(host string) string {
	if n := len(host); n > 1 && host[n-1] == '.' {
		return host[:n-1]
	}
	return host
}
