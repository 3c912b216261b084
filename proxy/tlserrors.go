package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// What Go no longer offers, and old servers have nothing else of, ends a handshake
// in ways that do not name the cause. The settings of GODEBUG are those of
// crypto/tls in Go 1.26; there is none for TLS 1.0 and 1.1 towards servers, nor,
// since Go 1.24, for certificates signed with SHA-1.
var (
	problemTLS        = problem{502, kindTLSProtocolError, "the TLS handshake with the upstream failed: does it speak TLS on this port?"}
	problemTLSNothing = problem{502, kindTLSProtocolError,
		"the upstream found nothing that it knows in what it was offered for TLS. If all it knows is RSA key exchange, set GODEBUG=tlsrsakex=1 in the environment of carpool; if it is 3DES, GODEBUG=tlsrsakex=1,tls3des=1; if it is signatures with SHA-1, GODEBUG=tlssha1=1"}
	problemTLSVersion = problem{502, kindTLSProtocolError,
		"the upstream speaks only TLS 1.0 or 1.1, which carpool does not: its TLS has to be renewed, or its requests must not go through the proxy (NO_PROXY)"}
	problemTLSBrokenOff = problem{502, kindTLSProtocolError,
		"the upstream broke the TLS handshake off: does it speak TLS on this port? Old servers do so if all they know is RSA key exchange (GODEBUG=tlsrsakex=1 in the environment of carpool offers it), or if the first message is too long for them (GODEBUG=tlsmlkem=0 makes it shorter)"}
	problemCertificate = problem{502, kindTLSCertificateError, "the upstream's certificate does not hold for this host: carpool check https://HOST/ says more"}
	problemTLSName     = problem{502, kindTLSCertificateError, "the upstream's certificate is for other names than this host's"}
	problemTLSExpired  = problem{502, kindTLSCertificateError, "the upstream's certificate, or one it rests on, has expired"}
	problemTLSEarly    = problem{502, kindTLSCertificateError, "the upstream's certificate, or one it rests on, is not valid yet: is the clock right?"}
	problemTLSSelf     = problem{502, kindTLSCertificateError, "the upstream's certificate is signed by itself (CARPOOL_CA_FILE can name it)"}
	problemTLSStranger = problem{502, kindTLSCertificateError, "the upstream's certificate is signed by an unknown authority (CARPOOL_CA_FILE adds one)"}
	problemTLSWeak     = problem{502, kindTLSCertificateError,
		"the upstream's certificate, or one it rests on, is signed with SHA-1 or MD5, which is no longer accepted: it has to be renewed"}
)

// certificateAlerts are what an upstream says of the certificate that carpool has
// shown, or has not. In TLS 1.3 that comes behind the handshake, in place of the first
// answer.
var certificateAlerts = [...]tls.AlertError{
	alertHandshakeFailure,                                                                        // if it was asked for
	42 /* bad_certificate */, 43 /* unsupported_certificate */, 44 /* certificate_revoked */, 45, /* certificate_expired */
	46 /* certificate_unknown */, 48 /* unknown_ca */, 49 /* access_denied */, 116, /* certificate_required */
}

// certificateRefused returns the problem with what an upstream says of carpool's own
// certificate; nil if err is something else.
func certificateRefused(err error) *problem {
	var asked *pool.AskedError
	for _, a := range certificateAlerts {
		if isAlert(err, a) && (a != alertHandshakeFailure || errors.As(err, &asked)) {
			return &problem{502, kindTLSAlertReceived, "the upstream refuses the connection for want of a client certificate that it accepts (its word is \"" +
				strings.TrimPrefix(a.Error(), "tls: ") + "\"): CARPOOL_CLIENT_CERT_FILE has to hold one, and CARPOOL_CLIENT_CERT_HOSTS to name this host"}
		}
	}
	return nil
}

// Alerts of RFC 8446 section 6.
const (
	alertHandshakeFailure     tls.AlertError = 40
	alertProtocolVersion      tls.AlertError = 70
	alertInsufficientSecurity tls.AlertError = 71
)

// tlsProblem tells why a handshake failed.
func tlsProblem(err error) *problem {
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &verify):
		return certificateProblem(verify)
	case isTimeout(err):
		return &problemConnTimeout
	case certificateRefused(err) != nil:
		return certificateRefused(err)
	case isAlert(err, alertHandshakeFailure), isAlert(err, alertInsufficientSecurity):
		return &problemTLSNothing
	case isAlert(err, alertProtocolVersion), strings.Contains(err.Error(), "selected unsupported protocol version"):
		return &problemTLSVersion
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &problemTLSBrokenOff
	}
	return &problemTLS
}

// certificateProblem tells why a certificate does not hold.
func certificateProblem(err *tls.CertificateVerificationError) *problem {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case strings.Contains(err.Error(), "insecure algorithm"):
		return &problemTLSWeak
	case errors.As(err, &name):
		return &problemTLSName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return &problemTLSEarly
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &problemTLSExpired
	case errors.As(err, &unknown):
		if leaf := err.UnverifiedCertificates[0]; bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			return &problemTLSSelf
		}
		return &problemTLSStranger
	}
	return &problemCertificate
}

// isAlert reports whether err is an alert that the upstream has sent. crypto/tls
// has a type of its own for those, which it does not export.
func isAlert(err error, alert tls.AlertError) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == alert.Error()
}
