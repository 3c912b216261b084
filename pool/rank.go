package pool

import "net/netip"

// rank says how much an instance of carpool prefers an address; less is more
// (rendezvous hashing). Each instance has an order of its own, so that a fleet of
// which each uses a few addresses covers all of them evenly, and an address that
// comes or goes moves nothing but its own share. It is the same after a restart.
func rank(identity string, a netip.Addr) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(identity) {
		h = (h ^ uint64(identity[i])) * prime
	}
	for _, b := range a.As16() {
		h = (h ^ uint64(b)) * prime
	}
	// FNV leaves the high bits of what differs at the end alone: mix them
	// (the finalizer of MurmurHash3).
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
