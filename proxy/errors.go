package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/http1"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// problem is an answer that carpool makes itself: a status, an error type of
// RFC 9209 for Proxy-Status, and one line that says what to do. It never
// repeats bytes of the request.
type problem struct {
	status int
	kind   string
	text   string
}

// errorTypes are the error types that problems have. They are the labels of a
// metric.
var errorTypes = [...]string{
	"connection_limit_reached",
	"connection_refused",
	"connection_terminated",
	"connection_timeout",
	"destination_ip_prohibited",
	"destination_ip_unroutable",
	"destination_unavailable",
	"dns_error",
	"dns_timeout",
	"http_protocol_error",
	"http_request_denied",
	"http_request_error",
	"http_response_incomplete",
	"http_response_timeout",
	"http_upgrade_failed",
	"proxy_internal_response",
	"proxy_loop_detected",
	"tls_certificate_error",
	"tls_protocol_error",
}

func (p *problem) Error() string { return p.text }

var (
	problemHeadTimeout = problem{408, "http_request_error", "the request head did not arrive in time (CLIENT_HEADER_TIMEOUT)"}
	problemBodyTimeout = problem{408, "http_request_error", "the request body did not arrive in time (BODY_IDLE_TIMEOUT)"}
	problemHeadSize    = problem{431, "http_request_error", "the header section is too large (MAX_HEADER_BYTES)"}
	problemNotProxied  = problem{400, "http_request_error",
		"this is a proxy, not a web server: set HTTP_PROXY to this address and ask for the full URL, as in: curl -x http://127.0.0.1:3128 http://host/path"}
	problemTarget    = problem{400, "http_request_error", "the request target is not http://host[:port]/path or https://host[:port]/path"}
	problemPort      = problem{400, "http_request_error", "the port of the request target is not a number from 1 to 65535"}
	problemAuthority = problem{400, "http_request_error", "CONNECT takes a target of the form host:port"}

	problemConnectPort = problem{403, "http_request_denied", "CONNECT to this port is not allowed (CONNECT_PORTS)"}
	problemLoop        = problem{508, "proxy_loop_detected", "the request leads back to this proxy: check its host and port"}

	problemBusy     = problem{503, "connection_limit_reached", "all connections to this host are in use and too many requests wait (MAX_CONNS_PER_HOST, MAX_PENDING_PER_HOST, PENDING_TIMEOUT)"}
	problemBudget   = problem{503, "connection_limit_reached", "too many connections are open (the limit on open files)"}
	problemMemory   = problem{503, "proxy_internal_response", "the proxy's memory is nearly used up, so it takes no new requests for a moment: try again, and raise the memory limit of its container if this goes on"}
	problemStopping = problem{503, "proxy_internal_response", "the proxy is stopping"}

	problemUnknownHost = problem{502, "dns_error", "the host name does not exist, or has no address"}
	problemDNS         = problem{502, "dns_error", "the host name could not be resolved"}
	problemDNSTimeout  = problem{504, "dns_timeout", "the name server did not answer in time (DNS_TIMEOUT)"}
	problemRefused     = problem{502, "connection_refused", "the upstream refused the connection: is it listening on this port?"}
	problemConnTimeout = problem{504, "connection_timeout", "the upstream could not be connected to in time (DIAL_TIMEOUT)"}
	problemUnroutable  = problem{502, "destination_ip_unroutable", "there is no route to the upstream"}
	problemConnect     = problem{502, "destination_unavailable", "the upstream could not be connected to"}
	problemCertificate = problem{502, "tls_certificate_error", "the upstream's certificate does not hold for this host: wrong name, expired, or an unknown authority (CA_FILE adds one)"}

	problemTerminated = problem{502, "connection_terminated", "the upstream closed the connection without an answer; the request may or may not have been carried out"}
	problemReuse      = problem{502, "connection_terminated", "the upstream closed a kept connection just as the request was sent; it was not repeated because the method is not idempotent, or the request is conditional (If-Match and the like)"}
	problemStray      = problem{502, "http_protocol_error", "the upstream sent bytes on a kept connection that belong to no answer, just as the request came; it was not repeated because the method is not idempotent, or the body too long"}
	problemDead       = problem{504, "connection_timeout", "the upstream gives no sign of life (UPSTREAM_DEAD_TIMEOUT)"}
	problemIncomplete = problem{502, "http_response_incomplete", "the upstream broke off its answer"}
	problemProtocol   = problem{502, "http_protocol_error", "the upstream's answer is not valid HTTP/1.1"}
	problemUpgrade    = problem{502, "http_upgrade_failed", "the upstream switched protocols without being asked to"}
	problemTimeout    = problem{504, "http_response_timeout", "the upstream did not answer in time (RESPONSE_HEADER_TIMEOUT)"}
)

func badRequest(err *http1.Error) *problem {
	return &problem{err.Status, "http_request_error", err.Text}
}

// badResponse is the problem with a response that does not parse.
func badResponse(err *http1.Error) *problem {
	p := problemProtocol
	p.text += ": " + err.Text
	return &p
}

// dialProblem tells why there is no upstream connection.
func dialProblem(err error) *problem {
	switch {
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
		return &problem{403, "destination_ip_prohibited", denied.Message}
	case errors.Is(err, errLoop):
		return &problemLoop
	}
	return &problemConnect
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &t) && t.Timeout()
}

// errLoop is Egress' verdict on carpool's own listeners.
var errLoop = errors.New("proxy: the address is this proxy's own")

// Egress returns the check to be made on every address before it is dialled
// (pool.Config.CheckAddr): whether it is one of carpool's own listeners, and
// whether egress may go there at all. onLoopback says that only this pod can
// reach the proxy, so that it may reach this pod's loopback in turn.
func Egress(listeners []netip.AddrPort, onLoopback bool) func(netip.AddrPort) error {
	return egress(listeners, onLoopback, net.InterfaceAddrs)
}

// egress is Egress with where the addresses of this machine are had from. It takes
// a descriptor to ask for them; where there is none, nothing is said of an
// address, and the error is the lack's own.
func egress(listeners []netip.AddrPort, onLoopback bool, own func() ([]net.Addr, error)) func(netip.AddrPort) error {
	return func(a netip.AddrPort) error {
		var unknown error
		isOwn := func(a netip.Addr) bool {
			addrs, err := own()
			unknown = errors.Join(unknown, err)
			return contains(addrs, a)
		}
		switch {
		case policy.Self(a, listeners, isOwn):
			return errLoop
		case unknown != nil:
			return unknown
		}
		return policy.Addr(a.Addr(), onLoopback)
	}
}

// contains reports whether an address is one of those of interfaces.
func contains(addrs []net.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(i net.Addr) bool {
		n, ok := i.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() == a
	})
}
