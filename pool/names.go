package pool

import (
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
		Room: p.EvictIdle, Note: p.cfg.DNSNote, Asked: p.cfg.DNSAsked, Caught: p.caught,
	}
	if p.cfg.MaxConns > 0 {
		c.AtOnce = min(max(p.cfg.MaxConns/16, 16), 2048)
	}
	return c
}

// ExplainName tells what a host resolves to, and why.
func (p *Pool) ExplainName(host string) names.Explanation { return p.names.Explain(p.ctx, host) }

// renamed is told that addresses of the origin's host have come or gone.
func (o *Origin) renamed(set *names.Set) {
	defer o.pool.contain("a change of addresses")
	o.moved(set.Addrs)
}
