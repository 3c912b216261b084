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
}

// makeTLSFiles makes them once, for all tests.
var makeTLSFiles = sync.OnceValues(func() (tlsFiles, error) {
	files := tlsFiles{filepath.Join(scratch, "ca.pem"), filepath.Join(scratch, "server.pem")}
	validity := x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}

	root := validity
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

	leaf := validity
	leaf.SerialNumber = big.NewInt(2)
	leaf.Subject = pkix.Name{CommonName: "carpool test upstream"}
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4zero}
	if own, err := ownAddress(); err == nil {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(own))
	}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	return files, writeCertificate(files.server, &leaf, &root, leafKey, rootKey, true)
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
