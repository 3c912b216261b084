package policy

import "net/netip"

// Self reports whether dialling dst would reach one of carpool's own listeners, which would make a loop (508).
//
// The listeners are the bound addresses, with the port that was given by the system where 0 was asked for. A listener
// on a concrete address is met only there: 127.0.0.2 is not a listener on 127.0.0.1. A listener on 0.0.0.0 or :: takes
// both families and is met at loopback and at every address for which local returns true; local is asked with an
// address without zone, IPv4-mapped ones as IPv4, and may be nil where no listener is unspecified. An unspecified dst
// goes to loopback, so it meets listeners there.
//
// What leads back through other machines (a Service or a load balancer in front of this pod) cannot be seen here.
func Self(dst netip.AddrPort, listeners []netip.AddrPort, local func(netip.Addr) bool) bool {
	var buf [maxSpellings]netip.Addr
	for _, l := range listeners {
		if l.Port() != dst.Port() {
			continue
		}
		on := plain(l.Addr())
		for _, to := range appendSpelled(buf[:0], plain(dst.Addr())) {
			if meets(to, on, local) {
				return true
			}
		}
	}
	return false
}

// meets reports whether a connection to an address arrives at a listener on another, the ports being equal.
func meets(to, on netip.Addr, local func(netip.Addr) bool) bool {
	switch {
	case to == on:
		return true
	case to.IsUnspecified():
		return on.IsLoopback() || on.IsUnspecified()
	case on.IsUnspecified():
		return to.IsLoopback() || local != nil && local(to)
	}
	return false
}
