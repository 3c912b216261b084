// Package carpooltest is what the tests of the whole program share: carpool at
// work, in the test's own process (Run) or as the program that a pod would start
// (Start), clients and upstreams for it, its log and its metrics. Clients and
// upstreams are in the test's process either way. No program links it.
package carpooltest
