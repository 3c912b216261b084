package policy

import (
	"bytes"
	"net/netip"
)

// Direct says which hosts are called directly where others are called through a next hop. The zero value has what is
// built in: localhost and all below it, loopback addresses, and names without a dot, which only the search list of this
// pod completes. It does not change and is safe for concurrent use.
type Direct struct {
	hosts  HostSet
	ranges []netip.Prefix
}

// NewDirect returns a Direct with patterns and ranges of addresses besides. A pattern stands for its name and all names
// below it, as an entry of NO_PROXY does, or only for those below it if it is Below.
func NewDirect(patterns []HostPattern, ranges []netip.Prefix) Direct {
	all := patterns[:len(patterns):len(patterns)]
	for _, p := range patterns {
		p.Below = true
		all = append(all, p)
	}
	return Direct{NewHostSet(all), ranges}
}

var (
	localhost      = []byte("localhost")
	belowLocalhost = []byte(".localhost")
)

// Has reports whether a host is called directly on a port. name is in lower case, or an address as [netip.Addr] writes
// it; addr is that address, or the zero Addr for a name. Ranges are for addresses only: what a name leads to is not
// looked up, which is for the next hop to do. It allocates nothing.
func (d *Direct) Has(name []byte, addr netip.Addr, port uint16) bool {
	if addr.IsValid() {
		addr = plain(addr)
		if _, in := within(d.ranges, addr); in || addr.IsLoopback() || addr.IsUnspecified() {
			return true
		}
	} else {
		name = bytes.TrimSuffix(name, []byte("."))
		if bytes.IndexByte(name, '.') < 0 || bytes.Equal(name, localhost) || bytes.HasSuffix(name, belowLocalhost) {
			return true
		}
	}
	_, in := d.hosts.Match(name, port)
	return in
}
