package carpooltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

// NewAuthority returns a new one, which nobody trusts yet. changes are made to its
// certificate first.
func NewAuthority(t testing.TB, changes ...func(*x509.Certificate)) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t), dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, change := range changes {
		change(a.cert)
	}
	a.cert = parsed(t, signed(t, a.cert, a.cert, a.key, a.key))
	return a
}

// Issue returns a certificate for 127.0.0.1 and localhost, for servers and clients,
// changed first.
func (a *Authority) Issue(change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	leaf, key := newLeaf(change), newKey(a.t)
	return tls.Certificate{Certificate: [][]byte{signed(a.t, leaf, a.cert, key, a.key)}, PrivateKey: key}
}

// SelfSigned returns a certificate as Issue does, but one that no authority has signed.
func SelfSigned(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	leaf, key := newLeaf(change), newKey(t)
	return tls.Certificate{Certificate: [][]byte{signed(t, leaf, leaf, key, key)}, PrivateKey: key}
}

func newLeaf(change func(*x509.Certificate)) *x509.Certificate {
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(leaf)
	}
	return leaf
}

// Roots has the authority alone.
func (a *Authority) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return roots
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return pemOf("CERTIFICATE", a.cert.Raw) }

// File is a new file that has it.
func (a *Authority) File() string {
	a.t.Helper()
	f, err := os.CreateTemp(a.dir, "ca-*.pem")
	if err != nil {
		a.t.Fatal(err)
	}
	_ = f.Close()
	Write(a.t, f.Name(), a.PEM())
	return f.Name()
}

// PEM returns a certificate and its key.
func PEM(t testing.TB, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE", c.Certificate[0]), pemOf("PRIVATE KEY", der)
}

// Write writes a file: who reads it meanwhile finds it as it was before.
func Write(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// Project lays files out in a folder as the kubelet does those of a Secret, and takes
// the place of those that were there at once: by a link to a folder.
func Project(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	data, err := os.MkdirTemp(dir, "..version-")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		Write(t, filepath.Join(data, name), text)
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(data), next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signed(t testing.TB, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parsed(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
