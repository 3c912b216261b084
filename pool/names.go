package pool

import (
	"net/netip"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/pool/names"
)

// lateWait bounds the wait for addresses of the other family when none of the
// first one's could be connected to.
const lateWait = time.Second

// namesConfig is what the pool's names are held to. Look-ups may take an eighth of
// the descriptors that upstream connections may.
func (p *Pool) namesConfig() names.Config {
	c := names.Config{
		Timeout: p.cfg.DNSTimeout, MinTTL: p.cfg.DNSMinTTL, MaxTTL: p.cfg.DNSMaxTTL, Stale: p.cfg.DNSStale,
		ResolvConf: p.cfg.ResolvConf, Resolver: p.cfg.Resolver,
		Room: p.EvictIdle, Note: p.cfg.DNSNote, Caught: p.caught,
	}
	if p.cfg.MaxConns > 0 {
		c.AtOnce = min(max(p.cfg.MaxConns/16, 16), 2048)
	}
	return c
}

// Explain tells what a host resolves to (see names.Explanation).
func (p *Pool) Explain(host string) names.Explanation { return p.names.Explain(p.ctx, host) }

// moved is told that addresses of the origin's host have come or gone: idle
// connections to those that have gone are closed. A name that has none any more
// may be a mistake: what is open goes on.
func (o *Origin) moved(set *names.Set) {
	defer o.pool.contain("a change of addresses")
	if len(set.Addrs) == 0 {
		return
	}
	for _, e := range o.leadingElsewhere(set) {
		o.abandon(e, AddressGone)
	}
}

// leadingElsewhere returns the endpoints with connections whose address the name
// does not have.
func (o *Origin) leadingElsewhere(set *names.Set) (gone []*endpoint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.endpoints.known {
		if e.leases.Len() > 0 && !slices.ContainsFunc(set.Addrs, func(a netip.Addr) bool { return a.Unmap() == e.addr }) {
			gone = append(gone, e)
		}
	}
	return gone
}
