package names

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"runtime"
	"time"
)

// Config is what a Names is held to. The zero value asks the system's name
// servers, and remembers nothing.
type Config struct {
	// Timeout bounds one look-up; 0 leaves it to resolv.conf.
	Timeout time.Duration
	// MinTTL and MaxTTL bound how long an answer stands, whatever its TTL. That a
	// name does not exist stands for MinTTL. With MinTTL 0 what has no TTL is asked
	// each time. A MaxTTL below MinTTL counts as that; 0 is no bound.
	MinTTL, MaxTTL time.Duration
	// Stale is for how long addresses may be used past their time while the name
	// servers fail; 0 is not at all.
	Stale time.Duration
	// MaxNames is how many names are remembered that have no handle; 0 means 4,096.
	MaxNames int
	// AtOnce is how many look-ups are under way at a time, each of which takes two
	// descriptors, and six where name servers are silent; 0 means 2,048.
	AtOnce int
	// ResolvConf, Hosts and NSSwitch are the system's files; "" means those in /etc.
	// Besides addresses resolv.conf may hold [address]:port.
	ResolvConf, Hosts, NSSwitch string
	// Resolver, if not nil, is asked instead of name servers and hosts file. Its
	// answers have no TTL.
	Resolver Resolver
	// Room, if not nil, is called when descriptors are short. It reports whether it
	// has closed one.
	Room func() bool
	// Note, if not nil, is told when a name begins to live on old addresses and when
	// that ends.
	Note func(Note)
	// Asked, if not nil, is told of each question that a name server was asked, and of
	// its answer. It may be called from any goroutine and must not wait.
	Asked func(Asked)
	// Caught, if not nil, is told of a contained panic and returns it as an error.
	Caught func(where string, r any) error
}

// Resolver is the part of net.Resolver that can stand in for name servers. It
// is asked for "ip".
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Note tells of a name whose addresses are used past their time.
type Note struct {
	Host string
	// Stale is true at the begin and false at the end.
	Stale bool
	// For is how long it was so.
	For time.Duration
	// Err is what the last look-up failed with; nil if there is an answer again.
	// At the end an error means that the addresses are given up.
	Err error
}

const (
	defaultNames  = 4096
	defaultAtOnce = 2048
)

func (c *Config) fill() {
	if own := runtime.GOOS == "darwin" || runtime.GOOS == "windows"; own && c.ResolvConf == "" && c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	c.ResolvConf = cmp.Or(c.ResolvConf, "/etc/resolv.conf")
	c.Hosts = cmp.Or(c.Hosts, "/etc/hosts")
	c.NSSwitch = cmp.Or(c.NSSwitch, "/etc/nsswitch.conf")
	c.MaxNames = cmp.Or(c.MaxNames, defaultNames)
	c.AtOnce = cmp.Or(c.AtOnce, defaultAtOnce)
}

// hold returns how long an answer with this TTL stands.
func (c *Config) hold(ttl time.Duration) time.Duration {
	ttl = max(ttl, c.MinTTL)
	if c.MaxTTL > 0 {
		ttl = min(ttl, max(c.MaxTTL, c.MinTTL))
	}
	return jitter(ttl)
}
