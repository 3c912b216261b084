// Package rules has no code. Its tests hold what is true of the whole tree: who
// may import whom, and that docs/BEHAVIOUR.md and the tests agree.
package rules
