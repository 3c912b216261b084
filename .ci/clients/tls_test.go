package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// tlsFiles names PEM files.
type tlsFiles struct {
	ca     string // the root that carpool and the clients are told to trust
	server string // an upstream's certificate, signed by it, and its key
	// bad are the same, of certificates that do not hold: for another host, expired,
	// not yet valid, and signed by itself.
	bad []string
}

// badCodes are the errors that Node.js has for them.
var badCodes = []string{"ERR_TLS_CERT_ALTNAME_INVALID", "CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID", "DEPTH_ZERO_SELF_SIGNED_CERT"}

// makeTLSFiles makes them once, for all tests.
var makeTLSFiles = sync.OnceValues(func() (tlsFiles, error) {
	files := tlsFiles{ca: filepath.Join(scratch, "ca.pem"), server: filepath.Join(scratch, "server.pem")}
	now, day := time.Now(), 24*time.Hour
	root := x509.Certificate{NotBefore: now.Add(-3 * day), NotAfter: now.Add(3 * day)}
	root.SerialNumber = big.NewInt(1)
	root.Subject = pkix.Name{CommonName: "carpool test root"}
	root.IsCA, root.BasicConstraintsValid = true, true
	root.KeyUsage = x509.KeyUsageCertSign
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	if err := writeCertificate(files.ca, &root, &root, rootKey, rootKey, false); err != nil {
		return files, err
	}
	leaf := x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(day)}
	leaf.Subject = pkix.Name{CommonName: "carpool test upstream"}
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4zero}
	if own, err := ownAddress(); err == nil {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(own))
	}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	other, expired, early := leaf, leaf, leaf
	other.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 9)}
	expired.NotBefore, expired.NotAfter = now.Add(-2*day), now.Add(-day)
	early.NotBefore, early.NotAfter = now.Add(day), now.Add(2*day)
	for i, c := range []struct {
		name       string
		cert       x509.Certificate
		selfSigned bool
	}{{"server", leaf, false}, {"other-host", other, false}, {"expired", expired, false}, {"not-yet-valid", early, false}, {"self-signed", leaf, true}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return files, err
		}
		parent, parentKey := &root, rootKey
		if c.selfSigned {
			parent, parentKey = &c.cert, key
		}
		c.cert.SerialNumber = big.NewInt(int64(2 + i))
		file := filepath.Join(scratch, c.name+".pem")
		if err := writeCertificate(file, &c.cert, parent, key, parentKey, true); err != nil {
			return files, err
		}
		if i > 0 {
			files.bad = append(files.bad, file)
		}
	}
	return files, nil
})

func writeCertificate(path string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey, withKey bool) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if withKey {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return os.WriteFile(path, out, 0o600)
}
