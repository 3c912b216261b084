//go:build !race

package testkit

// Race reports whether the race detector is on. Under it sync.Pool drops things
// at random and memory is dearer, so that neither can be counted.
const Race = false
