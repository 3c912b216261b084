package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/proxy"
)

// TLS is how the handshake went.
type TLS struct {
	Version string  `json:"version,omitempty"`
	Cipher  string  `json:"cipher,omitempty"`
	Took    float64 `json:"took_ms"`
	// Protocol is what carpool and the upstream speak, OffersHTTP2 whether the upstream would speak HTTP/2 with others.
	Protocol    string `json:"protocol,omitempty"`
	OffersHTTP2 bool   `json:"offers_http2"`
	// Verified says that carpool trusts the certificate for this host.
	Verified bool `json:"verified"`
	// Chain are the certificates that the upstream has sent, its own first. Root is who signed the last of them.
	Chain []Certificate `json:"chain,omitempty"`
	Root  string        `json:"root,omitempty"`
	// Cause is what is wrong with the certificate: expired, not_yet_valid, wrong_host, unknown_authority or other.
	Cause string `json:"cause,omitempty"`
	Error string `json:"error,omitempty"`
}

// Certificate is one of a chain.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names,omitempty"` // at most 20
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

const (
	maxChain = 10
	maxNames = 20
	// soon is how long before its end a certificate deserves a look.
	soon = 14 * 24 * time.Hour
)

// tlsBut is who does not notice a failure of carpool's own TLS.
const tlsBut = "That is for clients that hand https:// to carpool whole; in a tunnel (CONNECT) the app itself judges the certificate."

func (t *trip) tls(ctx context.Context) found {
	if !t.origin.Key().TLS {
		return found{}
	}
	s := TLS{Took: ms(t.trial.TLS)}
	if err := t.trial.Err; err != nil {
		return t.untrusted(s, err)
	}
	state := t.trial.State
	s.Version, s.Cipher, s.Verified = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), true
	s.Protocol = "http/1.1" // which needs no negotiation
	if state.NegotiatedProtocol != "" {
		s.Protocol = state.NegotiatedProtocol
	}
	s.Chain = chain(state.PeerCertificates)
	s.Root = root(state.VerifiedChains)
	also := t.origin.Try(ctx, "h2", "http/1.1")
	s.OffersHTTP2 = also.State != nil && also.State.NegotiatedProtocol == "h2"
	return found{state: expires(s.Chain[0]), lines: s.lines(t.trial.TLS), facts: s}
}

// lines are those of a handshake that went well.
func (s *TLS) lines(took time.Duration) []string {
	speaks := s.Version + " in " + short(took) + ", speaks " + s.Protocol
	if s.OffersHTTP2 {
		speaks += "; it would speak HTTP/2 too, which only tunnels carry"
	}
	leaf := s.Chain[0]
	return []string{speaks, "certificate for " + listed(leaf.Names) + ", " + lasts(leaf, time.Now()), "signed by " + s.Chain[0].Issuer + s.trust()}
}

// trust says whom carpool trusts.
func (s *TLS) trust() string {
	if s.Root == s.Chain[0].Issuer || s.Root == "" {
		return ", which carpool trusts"
	}
	return ", and that by " + s.Root + ", which carpool trusts"
}

// untrusted tells of a handshake that has failed.
func (t *trip) untrusted(s TLS, err error) found {
	s.Error = logs.Text(cause(err).Error())
	lines, why, do := []string{s.Error}, "", ""
	if verify, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(verify.UnverifiedCertificates) > 0 {
		s.Chain = chain(verify.UnverifiedCertificates)
		s.Cause, why, do = t.distrust(verify)
		leaf := s.Chain[0]
		lines = append(lines, "certificate for "+listed(leaf.Names)+", "+lasts(leaf, time.Now()), "signed by "+leaf.Issuer)
	}
	f := failed(s, proxy.DialAnswer(err), do, lines...)
	f.why, f.but = why, tlsBut
	if t.relayed() { // it is the hop's certificate
		f.why, f.but = "", ""
	}
	return f
}

// distrust names what is wrong with a certificate, and what to do.
func (t *trip) distrust(err *tls.CertificateVerificationError) (cause, why, do string) {
	leaf, host := err.UnverifiedCertificates[0], t.origin.Key().Host
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "wrong_host", "the upstream's certificate is not for " + host, "ask for a host that the certificate is for, or have it renewed with this one in it"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		which := "the upstream's certificate"
		if !invalid.Cert.Equal(leaf) {
			which = "the certificate of " + text(invalid.Cert.Subject.String()) + ", on which the upstream's rests,"
		}
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "not_yet_valid", which + " holds from " + day(invalid.Cert.NotBefore) + " on", "check the clock of this machine, or wait"
		}
		return "expired", which + " expired on " + day(invalid.Cert.NotAfter), "have it renewed, or check the clock of this machine"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return "other", "", ""
	}
	const unknown = "the upstream's certificate is signed by an authority that carpool does not know"
	switch {
	case slices.Equal(leaf.RawSubject, leaf.RawIssuer):
		return "unknown_authority", "the upstream's certificate is self-signed", "if that is meant, name its PEM file in CARPOOL_CA_FILE"
	case len(err.UnverifiedCertificates) == 1:
		return "unknown_authority", unknown, "name a PEM file with that authority in CARPOOL_CA_FILE. If it is a public one, the upstream does not send the intermediate certificate: have it send the whole chain"
	}
	return "unknown_authority", unknown, "name a PEM file with that authority in CARPOOL_CA_FILE"
}

// chain is what an upstream has sent.
func chain(certs []*x509.Certificate) (list []Certificate) {
	for _, c := range certs[:min(len(certs), maxChain)] {
		names := slices.Clone(c.DNSNames)
		for _, ip := range c.IPAddresses {
			names = append(names, ip.String())
		}
		names = names[:min(len(names), maxNames)]
		for i, n := range names {
			names[i] = text(n)
		}
		list = append(list, Certificate{text(c.Subject.String()), text(c.Issuer.String()), names, c.NotBefore.UTC(), c.NotAfter.UTC()})
	}
	return list
}

// root is the subject of the authority at the end of a verified chain.
func root(chains [][]*x509.Certificate) string {
	if len(chains) == 0 || len(chains[0]) == 0 {
		return ""
	}
	return text(chains[0][len(chains[0])-1].Subject.String())
}

// text makes one printable line of what a certificate says, and a dash of nothing.
func text(s string) string {
	if s == "" {
		return "–"
	}
	return logs.Text(s)
}

// listed writes the first names of a list.
func listed(names []string) string {
	const most = 3
	switch n := len(names); {
	case n == 0:
		return "no host"
	case n > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(names, ", ")
}

// lasts says how long a certificate holds.
func lasts(c Certificate, now time.Time) string {
	days := func(d time.Duration) string { return count(int(d.Hours()/24), "day") }
	switch {
	case now.Before(c.NotBefore):
		return "holds from " + day(c.NotBefore) + " on"
	case now.After(c.NotAfter):
		return "expired on " + day(c.NotAfter) + ", " + days(now.Sub(c.NotAfter)) + " ago"
	}
	return "holds until " + day(c.NotAfter) + ", for " + days(c.NotAfter.Sub(now))
}

// expires is the state of a step by how long a certificate holds still.
func expires(c Certificate) State {
	if time.Until(c.NotAfter) < soon {
		return Warning
	}
	return OK
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
