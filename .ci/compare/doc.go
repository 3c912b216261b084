// Command compare runs carpool beside other proxies on one machine and prints how they compare.
//
//	make compare                       # everything, about an hour
//	make compare COMPARE=--quick       # two minutes, with HAProxy and Envoy: roughly where does carpool stand?
//	make compare COMPARE='--workload keepalive,close --only haproxy --rounds 9'
//	CARPOOL=path make compare COMPARE='--also old=path'
//
// It needs Linux 5.11, Go, and whichever of haproxy, envoy, nginx and squid are to be on PATH. It needs no root, and
// nothing else on the machine: where other programs take CPU it says so.
//
// # How it measures
//
// Proxies take turns, round by round. Each figure is the quotient of two proxies within a round, and what is printed is
// the median of the rounds with the smallest and the largest: a machine's speed changes by a third within minutes, so
// figures of one run are not to be compared with those of another. Two copies of carpool are among the proxies. What
// they differ by is noise, and a difference between other proxies that is no larger, or whose rounds lie on both sides of
// 1, is marked as such.
//
// Each proxy runs on one CPU, and load and upstream on the others; on two CPUs they share the second one. Where the
// kernel may choose, it decides most of what is measured: a wake-up on another CPU costs several times one on the same.
// Load and upstream are single event loops with prebuilt requests and answers (internal/load, internal/upstream), so the
// proxy is what limits a round; where it is not, the table of conditions says what did. CPU time is the kernel's own account of the process, exact to the nanosecond (see proc.CPU). Memory is PSS.
//
// Every answer is checked: status, length, and an id that each request carries and its answer has to carry back. The
// upstream counts what it was asked for, and that has to agree.
//
// # The other proxies
//
// The folder peers has their configuration, with the reason for each setting. Each is to do what carpool does, and
// nothing more: keep connections open on both sides, write no log, add no field, verify certificates.
//
//   - HAProxy takes only addresses in URLs, and hands CONNECT on: the upstream answers it.
//   - nginx is no forward proxy. It is configured with the upstreams beforehand, and has no CONNECT.
//   - Squid makes a new upstream connection for each POST. Built with GnuTLS (Debian's package squid) it cannot read from
//     upstreams with TLS 1.3, and is left out there.
//   - direct is no proxy at all: what load and upstream can do, and the latency without a proxy.
package main
