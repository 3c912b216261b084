package proxy

import (
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// Originate says which origins that are named in plain HTTP are spoken to in TLS
// instead. The zero value is none. It does not change and is safe for concurrent
// use.
type Originate struct{ hosts policy.HostSet }

// NewOriginate returns an Originate for the hosts of these patterns. One without a
// port is for port 80.
func NewOriginate(patterns []policy.HostPattern) Originate {
	on := make([]policy.HostPattern, len(patterns))
	for i, p := range patterns {
		if p.Port == 0 {
			p.Port = 80
		}
		on[i] = p
	}
	return Originate{policy.NewHostSet(on)}
}

// Key returns the origin that one is spoken to as: port 80 becomes port 443, others
// stay.
func (o Originate) Key(k pool.Key) pool.Key {
	if !k.TLS {
		k.Port, k.TLS = o.port([]byte(k.Host), k.Port)
	}
	return k
}

// port returns the port to be dialled for a plain origin, and whether in TLS.
func (o Originate) port(host []byte, port uint16) (uint16, bool) {
	if _, named := o.hosts.Match(host, port); !named {
		return port, false
	}
	if port == 80 {
		port = 443
	}
	return port, true
}
