package injector

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// lifetime is how long a generation is valid, and renewal after how long there is
	// another: often enough that what is seldom done is known to work.
	lifetime = 90 * 24 * time.Hour
	renewal  = lifetime * 2 / 3
	// skew is by how much clocks may differ.
	skew = time.Hour
)

// A generation is a certificate of the webhook, and the authority that it is from.
// Each has an authority of its own, whose key is forgotten as soon as it has signed:
// no key that could sign another certificate is kept anywhere.
type generation struct {
	authority *x509.Certificate
	leaf      tls.Certificate // with its key; Leaf is set

	authorityPEM, certPEM, keyPEM []byte
}

// generate makes a generation for a host.
func generate(host string, now time.Time) (*generation, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: serial,
		// Authorities of one name would be tried for one another's certificates.
		Subject:   pkix.Name{CommonName: fmt.Sprintf("carpool injector %x", serial)},
		NotBefore: now.Add(-skew), NotAfter: now.Add(lifetime + skew),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	authorityDER, authorityKey, err := sign(authority, nil, nil)
	if err != nil {
		return nil, err
	}
	if authority, err = x509.ParseCertificate(authorityDER); err != nil { // with the key identifier that the leaf must name
		return nil, err
	}
	leafDER, key, err := sign(&x509.Certificate{
		SerialNumber: new(big.Int).Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: "carpool injector"}, DNSNames: []string{host},
		NotBefore: authority.NotBefore, NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return parse(encode("CERTIFICATE", authorityDER), encode("CERTIFICATE", leafDER), encode("PRIVATE KEY", keyDER))
}

// sign makes a key and a certificate for it, by a key of an authority's or its own.
func sign(template, by *x509.Certificate, with *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if by == nil {
		by, with = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), with)
	return der, key, err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parse reads a generation as a Secret has it.
func parse(authority, cert, key []byte) (*generation, error) {
	g := &generation{authorityPEM: authority, certPEM: cert, keyPEM: key}
	all := certificates(authority)
	if len(all) != 1 {
		return nil, errors.New("want one authority")
	}
	g.authority = all[0]
	var err error
	if g.leaf, err = tls.X509KeyPair(cert, key); err != nil {
		return nil, err
	}
	if g.leaf.Leaf, err = x509.ParseCertificate(g.leaf.Certificate[0]); err != nil {
		return nil, err
	}
	return g, nil
}

// certificates returns those in a text; what is none is passed over.
func certificates(text []byte) (all []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

// verifies reports whether somebody who trusts these takes a certificate for that of
// a host.
func verifies(leaf tls.Certificate, host string, trusted []*x509.Certificate, now time.Time) error {
	if leaf.Leaf == nil {
		return errors.New("there is no certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range trusted {
		roots.AddCert(c)
	}
	for _, der := range leaf.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// isFor reports whether a generation can be used for a host now.
func (g *generation) isFor(host string, now time.Time) bool {
	return g != nil && verifies(g.leaf, host, []*x509.Certificate{g.authority}, now) == nil
}

// isDue reports whether another one should take its place.
func (g *generation) isDue(now time.Time) bool {
	return !now.Before(g.leaf.Leaf.NotAfter.Add(renewal - lifetime))
}

func same(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) }
