package names

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Asked is one question to one name server, and what came of it.
type Asked struct {
	Server netip.AddrPort
	// Name is the full name, Type what was asked of it: A or AAAA.
	Name, Type string
	// Took is how long the answer took, or the wait for none.
	Took time.Duration
	// Code is that of the answer, such as NOERROR, NXDOMAIN or SERVFAIL; "" if there
	// was none.
	Code string
	// Addrs are the addresses in it, and TTL is for how long they stand as it says.
	Addrs []netip.Addr
	TTL   time.Duration
	// Err is why there was no answer.
	Err error
}

// codes are what tools and people call the codes of answers.
var codes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

func newAsked(server netip.AddrPort, q question, r reply, err error, took time.Duration) Asked {
	a := Asked{Server: server, Name: q.name, Type: strings.TrimPrefix(q.kind.String(), "Type"), Took: took, Err: err}
	if err == nil {
		a.Addrs, a.TTL = ofKind(slices.Clone(r.addrs), q.kind), r.ttl
		if a.Code = codes[r.code]; a.Code == "" {
			a.Code = strings.TrimPrefix(r.code.String(), "RCode")
		}
	}
	return a
}

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
	// File is the hosts file, if the addresses are from there; "" if they are not.
	File string
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
	return n.explain(s, err)
}

// Explain tells what is known of the host, and looks nothing up.
func (n *Name) Explain() Explanation { return n.explain(n.Set(), nil) }

func (n *Name) explain(s *Set, err error) Explanation {
	e, ns := n.entry, n.entry.ns
	x := Explanation{Host: n.Host(), Err: err}
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
	if s != nil && x.Full == "" && ns.cfg.Resolver == nil {
		x.File = ns.cfg.Hosts
	}
	if err == nil {
		x.Err = e.err
	}
	if s != nil {
		x.Left = time.Until(e.fresh)
	}
	return x
}
