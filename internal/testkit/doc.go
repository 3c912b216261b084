// Package testkit is what the tests of several packages share: a check that
// nothing outlives them, waiting for what has to happen, peers that have gone
// dead, and whether the race detector is on. No program links it; internal/rules
// has a test for that.
package testkit
