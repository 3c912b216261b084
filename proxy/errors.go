package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// problem is an answer that carpool makes itself: a status, what is wrong, and one
// line that says what to do. It names settings as users write them, and never
// repeats bytes of the request.
type problem struct {
	status int
	kind   errorKind
	text   string
}

// errorKind is what was wrong, as far as programs care: an error type of RFC 9209
// section 2.3. Its name stands in Proxy-Status, in the log and in a metric's label.
type errorKind uint8

const (
	noError errorKind = iota // the zero value
	kindConnectionLimitReached
	kindConnectionRefused
	kindConnectionTerminated
	kindConnectionTimeout
	kindDestinationIPProhibited
	kindDestinationIPUnroutable
	kindDestinationUnavailable
	kindDNSError
	kindDNSTimeout
	kindHTTPProtocolError
	kindHTTPRequestDenied
	kindHTTPRequestError
	kindHTTPResponseIncomplete
	kindHTTPResponseTimeout
	kindHTTPUpgradeFailed
	kindProxyConfiguration
	kindProxyInternalResponse
	kindProxyLoopDetected
	kindTLSAlertReceived
	kindTLSCertificateError
	kindTLSProtocolError
	kindClientGone // is carpool's own, for the log alone: nobody is there who would read an answer
	errorKinds     // how many there are
)

var errorNames = [errorKinds]string{
	kindConnectionLimitReached:  "connection_limit_reached",
	kindConnectionRefused:       "connection_refused",
	kindConnectionTerminated:    "connection_terminated",
	kindConnectionTimeout:       "connection_timeout",
	kindDestinationIPProhibited: "destination_ip_prohibited",
	kindDestinationIPUnroutable: "destination_ip_unroutable",
	kindDestinationUnavailable:  "destination_unavailable",
	kindDNSError:                "dns_error",
	kindDNSTimeout:              "dns_timeout",
	kindHTTPProtocolError:       "http_protocol_error",
	kindHTTPRequestDenied:       "http_request_denied",
	kindHTTPRequestError:        "http_request_error",
	kindHTTPResponseIncomplete:  "http_response_incomplete",
	kindHTTPResponseTimeout:     "http_response_timeout",
	kindHTTPUpgradeFailed:       "http_upgrade_failed",
	kindProxyConfiguration:      "proxy_configuration_error",
	kindProxyInternalResponse:   "proxy_internal_response",
	kindProxyLoopDetected:       "proxy_loop_detected",
	kindTLSAlertReceived:        "tls_alert_received",
	kindTLSCertificateError:     "tls_certificate_error",
	kindTLSProtocolError:        "tls_protocol_error",
	kindClientGone:              "client_gone",
}

// String returns the name; "" for noError.
func (k errorKind) String() string { return errorNames[k] }

// answered reports whether clients get answers of this kind.
func (k errorKind) answered() bool { return k != noError && k != kindClientGone }

func (p *problem) Error() string { return p.text }

// problemDetails tell apart what programs see apart, and RFC 9209 has one error type
// for.
var problemDetails = map[*problem]string{
	&problemDNS:         "unresolved",
	&problemTLSExpired:  "expired",
	&problemTLSEarly:    "not_yet_valid",
	&problemTLSName:     "wrong_name",
	&problemTLSSelf:     "self_signed",
	&problemTLSStranger: "unknown_authority",
	&problemTLSWeak:     "weak_signature",
}

// proxyStatus returns the header line that tells of p, to which more can be added.
func (p *problem) proxyStatus() string {
	line := "Proxy-Status: carpool; error=" + p.kind.String()
	if details := problemDetails[p]; details != "" {
		line += `; details="` + details + `"`
	}
	return line
}

var (
	problemHeadTimeout = problem{408, kindHTTPRequestError, "the request head did not arrive in time (CARPOOL_CLIENT_HEADER_TIMEOUT)"}
	problemBodyTimeout = problem{408, kindHTTPRequestError, "the request body did not arrive in time (CARPOOL_BODY_IDLE_TIMEOUT)"}
	problemHeadSize    = problem{431, kindHTTPRequestError, "the header section is too large (CARPOOL_MAX_HEADER_BYTES)"}
	problemNotProxied  = problem{400, kindHTTPRequestError,
		"this is a proxy, not a web server: set HTTP_PROXY to this address and ask for the full URL, as in: curl -x http://127.0.0.1:3128 http://host/path"}
	problemTarget    = problem{400, kindHTTPRequestError, "the request target is not http://host[:port]/path or https://host[:port]/path"}
	problemOrigin    = problem{400, kindHTTPRequestError, "the request target is not a path: this port leads to one upstream, as a web server's does"}
	problemNoTunnel  = problem{400, kindHTTPRequestError, "this port leads to one upstream and opens no tunnels: CONNECT is for the proxy's own port"}
	problemInTunnel  = problem{400, kindHTTPRequestError, "this is a tunnel already, in which plain HTTP is spoken: CONNECT is for the proxy's own port"}
	problemPort      = problem{400, kindHTTPRequestError, "the port of the request target is not a number from 1 to 65535"}
	problemAuthority = problem{400, kindHTTPRequestError, "CONNECT takes a target of the form host:port"}

	problemMisdirected = problem{421, kindHTTPRequestError, "this port leads to one upstream, and the request names another"}
	// problemMisdirectedInTunnel names the setting by which what comes is left alone.
	problemMisdirectedInTunnel = problem{421, kindHTTPRequestError,
		"this tunnel was asked for by another name than that in the request's Host; where that has to be, name the port in CARPOOL_CONNECT_TUNNEL_PORTS"}
	problemLoop = problem{508, kindProxyLoopDetected, "the request leads back to this proxy: check its host and port"}

	problemBusy     = problem{503, kindConnectionLimitReached, "all connections to this host are in use and too many requests wait (CARPOOL_MAX_CONNS_PER_HOST, CARPOOL_MAX_PENDING_PER_HOST, CARPOOL_PENDING_TIMEOUT)"}
	problemBudget   = problem{503, kindConnectionLimitReached, "too many connections are open (the limit on open files)"}
	problemMemory   = problem{503, kindProxyInternalResponse, "the proxy's memory is nearly used up, so it takes no new requests for a moment: try again, and raise the memory limit of its container if this goes on"}
	problemStopping = problem{503, kindProxyInternalResponse, "the proxy is stopping"}

	problemUnknownHost = problem{502, kindDNSError, "the host name does not exist, or has no address"}
	problemDNS         = problem{502, kindDNSError, "the host name could not be resolved"}
	problemDNSTimeout  = problem{504, kindDNSTimeout, "the name server did not answer in time (CARPOOL_DNS_TIMEOUT)"}
	problemRefused     = problem{502, kindConnectionRefused, "the upstream refused the connection: is it listening on this port?"}
	problemConnTimeout = problem{504, kindConnectionTimeout, "the upstream could not be connected to in time (CARPOOL_DIAL_TIMEOUT)"}
	problemUnroutable  = problem{502, kindDestinationIPUnroutable, "there is no route to the upstream"}
	problemConnect     = problem{502, kindDestinationUnavailable, "the upstream could not be connected to"}
	problemHTTP2       = problem{502, kindHTTPProtocolError, "the upstream does not speak HTTP/2 as it should (CARPOOL_H2C, CARPOOL_HTTP2)"}

	// problemClientGone is no answer: nobody is there who would read one.
	problemClientGone = problem{status: 499, kind: kindClientGone}

	problemTerminated = problem{502, kindConnectionTerminated, "the upstream closed the connection without an answer; the request may or may not have been carried out"}
	problemReuse      = problem{502, kindConnectionTerminated, "the upstream closed a kept connection just as the request was sent; it was not repeated because the method is not idempotent, or the request is conditional (If-Match and the like)"}
	problemStray      = problem{502, kindHTTPProtocolError, "the upstream sent bytes on a kept connection that belong to no answer, just as the request came; it was not repeated because the method is not idempotent, or the body too long"}
	problemDead       = problem{504, kindConnectionTimeout, "the upstream gives no sign of life (CARPOOL_UPSTREAM_DEAD_TIMEOUT)"}
	problemIncomplete = problem{502, kindHTTPResponseIncomplete, "the upstream broke off its answer"}
	problemProtocol   = problem{502, kindHTTPProtocolError, "the upstream's answer is not valid HTTP/1.1"}
	problemUpgrade    = problem{502, kindHTTPUpgradeFailed, "the upstream switched protocols without being asked to"}
	problemTimeout    = problem{504, kindHTTPResponseTimeout, "the upstream did not answer in time (CARPOOL_RESPONSE_HEADER_TIMEOUT)"}
)

func badRequest(err *http1.Error) *problem {
	return &problem{err.Status, kindHTTPRequestError, err.Text}
}

// badResponse is the problem with a response that does not parse.
func badResponse(err *http1.Error) *problem {
	p := problemProtocol
	p.text += ": " + err.Text
	return &p
}

// asProblem is the problem with a request that was refused.
func asProblem(err error) *problem {
	var p *problem
	var bad *http1.Error
	var denied *policy.Denied
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &bad):
		return badRequest(bad)
	case errors.As(err, &denied):
		return &problem{400, kindHTTPRequestError, denied.Message}
	}
	return &problemTarget
}

// headProblem tells why the head of a request could not be read; nil if nobody is
// there to be told.
func headProblem(err error, r *reins) *problem {
	var bad *http1.Error
	var p *problem
	switch {
	case errors.As(err, &bad):
		return badRequest(bad)
	case errors.As(err, &p):
		return p
	case errors.Is(err, os.ErrDeadlineExceeded) && !r.isGone():
		return &problemHeadTimeout
	}
	return nil // the client left, or was cut off, in the middle of a head
}

// dialProblem tells why there is no upstream connection.
func dialProblem(err error) *problem {
	switch {
	case errors.Is(err, pool.ErrCanceled):
		return &problemClientGone
	case errors.Is(err, pool.ErrFull), errors.Is(err, pool.ErrWaited):
		return &problemBusy
	case errors.Is(err, pool.ErrBudget), sock.Exhausted(err):
		return &problemBudget
	case errors.Is(err, pool.ErrClosed):
		return &problemStopping
	}
	var failed *pool.DialError
	if !errors.As(err, &failed) {
		return &problemConnect
	}
	switch failed.Stage {
	case pool.StageDNS:
		return dnsProblem(err)
	case pool.StageTLS:
		return tlsProblem(err)
	case pool.StagePolicy:
		return policyProblem(err)
	case pool.StageHTTP2:
		if !isTimeout(err) {
			return &problemHTTP2
		}
	}
	switch {
	case isTimeout(err):
		return &problemConnTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return &problemRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &problemUnroutable
	}
	return &problemConnect
}

func dnsProblem(err error) *problem {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &problemUnknownHost
	case isTimeout(err):
		return &problemDNSTimeout
	}
	return &problemDNS
}

func policyProblem(err error) *problem {
	var denied *policy.Denied
	switch {
	case errors.As(err, &denied):
		return &problem{403, kindDestinationIPProhibited, denied.Message}
	case errors.Is(err, errLoop):
		return &problemLoop
	case sock.Exhausted(err):
		return &problemBudget
	}
	return &problemConnect
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &t) && t.Timeout()
}
