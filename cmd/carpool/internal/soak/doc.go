// Package soak has no code. Its test lets many kinds of clients loose on many
// kinds of upstreams that misbehave, with carpool between them, and keeps a
// ledger of each request: none is lost, mixed up or done twice. "make soak" does
// it for longer.
package soak
