package status

import (
	"fmt"
	"strings"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// closeMeanings say why connections are closed to who reads it first.
var closeMeanings = map[pool.Reason]string{
	pool.IdleTimeout:    "not used for a while",
	pool.MaxAge:         "old enough to be replaced, so that new pods get their share",
	pool.MaxRequests:    "carried as many requests as it may",
	pool.MaxIdle:        "more were idle than are kept, or room was needed elsewhere",
	pool.NotNeeded:      "more were open than were needed at a time in the last minutes",
	pool.Evicted:        "file descriptors or memory were short",
	pool.UpstreamClosed: "the upstream hung up while it was idle, or as it answered",
	pool.ClosedOnReuse:  "the upstream hung up just as a request was sent",
	pool.StrayBytes:     "the upstream sent bytes that no request asked for",
	pool.NotKept:        "the upstream said close, or cannot keep connections",
	pool.NotTrusted:     "CARPOOL_NO_REUSE_HOSTS, or the upstream has sent bytes that no request asked for",
	pool.ClientGone:     "the app gave up on its request",
	pool.EarlyAnswer:    "answered before the whole request was sent",
	pool.BadAnswer:      "the upstream broke off, or broke the protocol",
	pool.TimedOut:       "one of carpool's time limits",
	pool.PeerDead:       "the upstream gave no sign of life",
	pool.PeerDeadToo:    "led to an address that gave no sign of life on another connection",
	pool.MakesRoom:      "the upstream serves so few connections at a time that another waited for its end",
	pool.Upgraded:       "a WebSocket or other upgrade that has ended",
	pool.Tunnelled:      "a CONNECT tunnel that has ended",
	pool.Pinned:         "belonged to one connection of the app (NTLM), which has ended",
	pool.AddressGone:    "the name does not have its address any more",
	pool.TLSChanged:     "opened with certificates or authorities that have been replaced since",
	pool.Shutdown:       "carpool is stopping",
}

// Meaning says why a connection is closed to who reads it first; "" for what is no reason.
func Meaning(r pool.Reason) string { return closeMeanings[r] }

// errorMeanings say what error types of RFC 9209 mean here.
var errorMeanings = map[string]string{
	"connection_limit_reached":  "503: all connections are in use and too many requests wait",
	"connection_refused":        "502: the upstream does not listen",
	"connection_terminated":     "502: the upstream closed the connection without an answer",
	"connection_timeout":        "504: the upstream could not be connected to in time, or gave no sign of life",
	"destination_ip_prohibited": "403: a link-local address or a metadata service",
	"destination_ip_unroutable": "502: there is no route to the upstream",
	"destination_unavailable":   "502: the upstream could not be connected to, by the next hop if there is one",
	"dns_error":                 "502: the host name does not exist or could not be resolved",
	"dns_timeout":               "504: the name server did not answer in time",
	"http_protocol_error":       "502: the upstream's answer is not valid HTTP/1.1",
	"http_request_denied":       "403: a host or port that is not allowed, by carpool or by the next hop",
	"http_request_error":        "400, 408 or 431: the app's request is malformed, late or too large",
	"http_response_incomplete":  "502: the upstream broke off its answer",
	"http_response_timeout":     "504: the upstream did not answer in time",
	"http_upgrade_failed":       "502: the upstream switched protocols without being asked to",
	"proxy_configuration_error": "502: the next hop asks for credentials, or for others (CARPOOL_NEXT_PROXY_AUTH_FILE)",
	"proxy_internal_response":   "503: carpool is stopping or short of memory",
	"proxy_loop_detected":       "508: the request leads back to carpool",
	"tls_alert_received":        "502: the upstream wants a client certificate, or another one",
	"tls_certificate_error":     "502: the upstream's certificate does not hold for its name",
	"tls_protocol_error":        "502: the TLS handshake failed",
}

const (
	// maxHints is how many hints the page shows: whoever has more starts at the
	// top.
	maxHints = 5
	// enough is how many connections or requests there have to be to judge by.
	enough = 20
)

// badReuse reports whether most exchanges with an origin needed a new
// connection.
func badReuse(o *pool.OriginStats) bool { return o.Opened >= enough && o.Reused < o.Opened }

// hintFor says what to do about an origin, "" if there is nothing.
func hintFor(o *pool.OriginStats) string {
	requests := carried(&o.Stats)
	switch {
	case requests >= enough && o.Tally[proxy.OwnAnswers] > requests/20:
		return fmt.Sprintf("%s: %s of the requests got an error of carpool's own, because the upstream could not be reached "+
			"or gave no answer. Below it says which.", o.Origin, share(o.Tally[proxy.OwnAnswers], requests))
	case badReuse(o) && o.Closed[pool.NotKept] > o.Opened/2:
		return o.Origin + " closes its connection after each answer. Turn its keep-alive on: until then carpool can save nothing there."
	case badReuse(o) && o.Closed[pool.StrayBytes] > 0 && o.Closed[pool.StrayBytes]+o.Closed[pool.NotTrusted] > o.Opened/2:
		return o.Origin + " sends bytes that no request asked for, so its connections are not kept for long. Have it mended: it may be a " +
			"body behind a 204, or a second answer."
	case badReuse(o) && o.Closed[pool.UpstreamClosed]+o.Closed[pool.ClosedOnReuse] > o.Opened/2:
		return o.Origin + " closes idle connections sooner than the next request comes. Raise its idle timeout."
	case badReuse(o) && o.Closed[pool.MaxIdle] > o.Opened/2:
		return o.Origin + ": connections are closed because more are idle than may be kept. Raise CARPOOL_MAX_IDLE_PER_HOST."
	case badReuse(o) && o.Closed[pool.Tunnelled] > o.Opened/2:
		return fmt.Sprintf("%s tunnels to %s have ended. Where each carried a call or two, the app made a TLS handshake for each, and carpool could "+
			"save nothing. A Node.js app has its https pooled by the annotation preload-https. README, “Choose your way”, has the others.",
			count(o.Closed[pool.Tunnelled]), strings.TrimPrefix(o.Origin, "http://"))
	case o.Waiting >= enough:
		return fmt.Sprintf("%s: %d requests wait for a connection. Is it slow, or CARPOOL_MAX_CONNS_PER_HOST too low?", o.Origin, o.Waiting)
	}
	return ""
}
