// Package names finds the addresses of host names, remembers them for as long as
// their TTL allows, and asks again before that is over, so that a request waits
// for DNS once and then never again.
//
// It speaks to the name servers itself. net.Resolver hides what matters here: the
// TTL, which of the search list's names has answered, whether a name does not
// exist or a server fails, and which server it was. A wrapper around its
// connections could read part of that off the wire, but could not ask A and AAAA
// apart, repeat one lost packet, or tell two merged look-ups from one another.
// What is read from resolv.conf, the hosts file and nsswitch.conf, and in which
// order names and servers are asked, is as in Go and in the C libraries. Systems
// that have a resolver of their own (macOS) are asked by net.Resolver.
//
// The life of a name:
//
//	Wait ──► first look-up ──► answer ──► in use: asked again at 80 % of its time ──┐
//	                             ▲  │                                               │
//	                             │  └──► unused: asleep ──► Use, Wait ──► look-up ──┤
//	                             └──────────────────────────────────────────────────┘
//
// Failures come in two classes. That a name does not exist, or has no addresses,
// is an answer: it is believed once it has stood for MinTTL. That a server fails,
// refuses or is silent says nothing of the name: its last addresses serve for up
// to Config.Stale longer.
package names
