// Package outbound is what the settings mean for the way out: where requests may go, how addresses are found and how
// connections are opened. The proxy that serves and `carpool check` both go by it.
package outbound

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Files reads the files that settings name. It returns what is in those of TLS. The error says which settings are to
// blame.
func Files(cfg config.Config) (*certs.Keeper, error) {
	f := certs.Files{CA: cfg.CAFile, Cert: cfg.ClientCertFile}
	if f.Cert != "" {
		f.Key = cmp.Or(cfg.ClientKeyFile, f.Cert)
	}
	k, err := certs.Open(f)
	return k, errors.Join(err, readable(cfg.ResolvConf))
}

// Originate says which plain requests leave in TLS.
func Originate(cfg config.Config) proxy.Originate { return proxy.NewOriginate(cfg.TLSOriginate) }

// readable reports a resolv.conf that cannot be read.
func readable(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("CARPOOL_RESOLV_CONF: %w", err)
	}
	return f.Close()
}

// Rules are the rules that are set about where requests may go.
func Rules(cfg config.Config) policy.Rules {
	return policy.Rules{
		AllowHosts: policy.NewHostSet(cfg.AllowHosts), DenyHosts: policy.NewHostSet(cfg.DenyHosts),
		AllowCIDRs: cfg.AllowCIDRs, DenyCIDRs: cfg.DenyCIDRs,
		ConnectPorts: cfg.ConnectPorts, AllowMetadata: cfg.AllowMetadata,
	}
}

// Egress returns what decides where requests may go, for these listeners of carpool's own, of which the first is the
// proxy's. reported is told as [proxy.EgressConfig] says.
func Egress(cfg config.Config, own []netip.AddrPort, reported func(proxy.Reported)) *proxy.Egress {
	return proxy.NewEgress(proxy.EgressConfig{
		Listeners: own, OnLoopback: own[0].Addr().IsLoopback(), Rules: Rules(cfg),
		Report: cfg.Policy == config.PolicyReport, Reported: reported,
	})
}

// Pool returns what a pool is held to. How many connections there may be in all is left to the caller.
// hop is the next proxy, nil for none.
func Pool(cfg config.Config, out *proxy.Egress, hop *proxy.Hop, tls certs.Set) pool.Config {
	c := pool.Config{
		IdleTimeout: cfg.IdleTimeout, MaxAge: cfg.MaxConnAge, AgeJitter: cfg.MaxConnAgeJitter,
		Reuse: cfg.Balance == config.BalanceReuse, MaxRequests: cfg.MaxRequestsPerConn, MaxIdlePerHost: cfg.MaxIdlePerHost,
		MaxConnsPerHost: cfg.MaxConnsPerHost, MaxPendingPerHost: cfg.MaxPendingPerHost, PendingTimeout: cfg.PendingTimeout,
		DNSTimeout: cfg.DNSTimeout, DNSMinTTL: max(cfg.DNSMinTTL, time.Second), DNSMaxTTL: cfg.DNSMaxTTL, DNSStale: cfg.DNSStale,
		ResolvConf: cfg.ResolvConf, SpareTunnels: cfg.SpareTunnels,
		DialTimeout: cfg.DialTimeout, DeadTimeout: cfg.UpstreamDeadTimeout,
		RootCAs: tls.Roots, Certificate: tls.Certificate,
		ShowTo:  among(cfg.ClientCertHosts),
		NoReuse: among(cfg.NoReuseHosts),
		HTTP2:   cfg.HTTP2 == config.HTTP2Auto, MaxHeader: int(cfg.MaxHeaderBytes),
		H2C:       among(cfg.H2C),
		CheckAddr: out.CheckAddr, CheckWarm: out.CheckOrigin,
		Identity: identity(),
	}
	if hop != nil {
		c.Hop = hop.Pool(int(cfg.MaxHeaderBytes))
	}
	return c
}

// among reports of origins whether one of these names them.
func among(hosts []policy.HostPattern) func(pool.Key) bool {
	set := policy.NewHostSet(hosts)
	return func(k pool.Key) bool {
		_, named := set.Match([]byte(k.Host), k.Port)
		return named
	}
}

// identity tells this pod from others: in a pod the host name is the pod's name.
func identity() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // as good as any other, if it is the only one
	}
	return name
}

// Proxy returns what a proxy is held to. Memory, clients, log and faults are left to the caller.
func Proxy(cfg config.Config, upstreams *pool.Pool, out *proxy.Egress, hop *proxy.Hop) proxy.Config {
	return proxy.Config{
		Upstreams: upstreams, Egress: out, Hop: hop, Originate: Originate(cfg), ClientHeaderTimeout: cfg.ClientHeaderTimeout, ClientIdleTimeout: cfg.ClientIdleTimeout,
		ResponseHeaderTimeout: cfg.ResponseHeaderTimeout, BodyIdleTimeout: cfg.BodyIdleTimeout,
		TunnelHalfClosedTimeout: cfg.TunnelHalfClosedTimeout, TunnelIdleTimeout: cfg.TunnelIdleTimeout,
		MaxHeaderBytes: int(cfg.MaxHeaderBytes), Via: cfg.Via,
		RetryIdempotencyKey: cfg.RetryIdempotencyKey, ConnectTunnelPorts: cfg.ConnectTunnelPorts,
	}
}
