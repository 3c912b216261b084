// Package program is carpool as a program: its commands, and for the one that
// serves its start, its drain and its end. It puts together what the other
// packages are: settings, pool, proxy, admin listener and log.
package program
