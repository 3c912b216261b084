package names

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Answer is what a scripted name server says. The zero value is an answer without
// addresses.
type Answer struct {
	After time.Duration // Never: not at all
	Code  dnsmessage.RCode
	Addrs []netip.Addr
	TTL   time.Duration
	Err   error
}

// Never is when a silent server answers.
const Never = -1

// Script has the function answer all queries, in place of the network.
func (ns *Names) Script(f func(server netip.AddrPort, name string, kind dnsmessage.Type) Answer) {
	ns.source = func(netip.Addr) netip.Addr { return netip.Addr{} }
	ns.exchange = func(ctx context.Context, server netip.AddrPort, q question, _ bool) (reply, error) {
		ns.count.queries.Add(1)
		a := f(server, q.name, q.kind)
		if a.After == Never {
			<-ctx.Done()
			return reply{}, ctx.Err()
		}
		select {
		case <-time.After(a.After):
			return reply{code: a.Code, addrs: a.Addrs, ttl: a.TTL}, a.Err
		case <-ctx.Done():
			return reply{}, ctx.Err()
		}
	}
}

// Whole reports whether there are no more addresses of the other family.
func (s *Set) Whole() bool { return s.whole }

// The bounds of what is kept.
const (
	MaxAddrs   = maxAddrs
	RefreshAt  = refreshAt
	WalkEvery  = walkEvery
	GoneAfter  = goneAfter
	GoneFor    = goneFor
	DeadFor    = deadFor
	SecondWait = secondWait
)

// Memory is memory for the tests.
type Memory struct{ m memory }

// Take calls take with an answer for both families.
func (m *Memory) Take(now time.Time, addrs ...netip.Addr) *Set {
	return m.m.take(addrs, func(netip.Addr) bool { return true }, now)
}

// Rotates calls rotates.
func (m *Memory) Rotates() bool { return m.m.rotates() }

// Left returns of how many addresses it is known that they have gone.
func (m *Memory) Left() int { return len(m.m.left) }

// Prefer is prefer.
var Prefer = prefer

// ResolvConf is what matters of a resolv.conf.
type ResolvConf struct {
	Servers          []netip.AddrPort
	Search           []string
	Ndots, Attempts  int
	Timeout          time.Duration
	Rotate, OneByOne bool
	OnlyTCP          bool
	FullNamesOf      func(host string) []string
}

// ParseResolvConf is parseResolvConf.
func ParseResolvConf(text string) ResolvConf {
	c := parseResolvConf(text)
	return ResolvConf{c.servers, c.search, c.ndots, c.attempts, c.timeout, c.rotate, c.oneByOne, c.onlyTCP, c.full}
}

// Read is read: it returns the addresses and their TTL.
func Read(b []byte, id uint16, name string, kind dnsmessage.Type) (addrs []netip.Addr, ttl time.Duration, ok bool) {
	r, ok := read(b, id, question{name, kind})
	return r.addrs, r.ttl, ok
}

// Pack is pack.
func Pack(id uint16, name string, kind dnsmessage.Type) ([]byte, error) {
	return pack(id, question{name, kind}, true)
}

// Timers returns how many names have a look-up to come, by time or under way.
func (ns *Names) Awake() (n int) {
	ns.mu.Lock()
	entries := make([]*entry, 0, len(ns.byHost))
	for _, e := range ns.byHost {
		entries = append(entries, e)
	}
	ns.mu.Unlock()
	for _, e := range entries {
		if e.set.Load() != nil {
			n++
		}
	}
	return n
}
