package names

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Explanation is what a host resolves to, and why.
type Explanation struct {
	Host string
	// Full is the name that the name servers have answered, its last dot included; ""
	// if it was none: an address, localhost, the hosts file, a Resolver.
	Full string
	// Asked are the full names that Host may stand for, in the order in which they
	// are asked for first.
	Asked []string
	// Servers are the name servers, in the order in which they are asked now.
	Servers []netip.AddrPort
	// Addrs are the addresses. The last answer did not name the last Missing of them.
	Addrs   []netip.Addr
	Missing int
	// Left is for how much longer they stand; below 0 for how long they are past
	// their time. It is 0 where they stand for ever, or there are none.
	Left time.Duration
	// Stale is whether they are used past their time because the name servers fail.
	Stale bool
	// Err is what the last look-up has failed with; nil if it has not.
	Err error
}

// Explain tells what a host resolves to. It looks the host up if its addresses are
// not known, until ctx ends.
func (ns *Names) Explain(ctx context.Context, host string) Explanation {
	n := ns.Name(host, nil)
	defer n.Release()
	s, err := n.Wait(ctx)
	x := Explanation{Host: n.Host(), Err: err}
	e := n.entry
	if s != nil {
		x.Addrs, x.Missing = slices.Clone(s.Addrs), s.Missing
	}
	if e.fixed {
		return x
	}
	if ns.cfg.Resolver == nil {
		conf := ns.system.resolv.get()
		x.Asked, x.Servers = conf.full(x.Host), slices.Clone(ns.health.order(conf.servers))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x.Full, x.Stale = e.full, e.stale.Load()
	if err == nil {
		x.Err = e.err
	}
	if s != nil {
		x.Left = time.Until(e.fresh)
	}
	return x
}
