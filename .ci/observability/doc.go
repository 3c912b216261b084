// Package observability holds the dashboard, the alert rules and the README's
// queries to what carpool really exports. It is a module of its own because
// Prometheus, whose parser and rule engine it uses, is far larger than carpool.
package observability
