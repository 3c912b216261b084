// Package certs reads the files that TLS towards upstreams goes by, and reads them
// again when they change.
//
// What is mounted from a ConfigMap or a Secret changes by a link that leads elsewhere
// from one moment to the next; certbot and others write a file anew, and a certificate
// and its key one after the other. So what is looked at is what the paths lead to, and
// what cannot be used as a whole is not used at all: what was read before stays in
// force until it can.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Files are paths; "" is none. Cert and Key come together.
type Files struct {
	CA        string // authorities besides the system's, in PEM
	Cert, Key string // a client certificate with those it rests on, and its key, in PEM
}

// Set is what is in such files.
type Set struct {
	Roots       *x509.CertPool   // nil without Files.CA: the system's
	Certificate *tls.Certificate // nil without Files.Cert
}

// reading is what was found at a time.
type reading struct {
	set   Set
	texts [3][]byte
	infos [3]fs.FileInfo
	at    time.Time
}

// settling is for how long after a file was written it may have been written once more
// without that showing in its time, which some file systems keep in whole seconds.
const settling = 2 * time.Second

// paths are the settings with their files.
func (f Files) paths() [3]struct{ setting, path string } {
	return [3]struct{ setting, path string }{
		{"CARPOOL_CA_FILE", f.CA}, {"CARPOOL_CLIENT_CERT_FILE", f.Cert}, {"CARPOOL_CLIENT_KEY_FILE", f.Key},
	}
}

// read reads all files that differ from what was found before. The error names all
// that are bad.
func (f Files) read(before *reading) (*reading, error) {
	r := &reading{at: time.Now()}
	var errs []error
	for i, p := range f.paths() {
		if p.path == "" {
			continue
		}
		var err error
		if r.infos[i], err = os.Stat(p.path); err == nil {
			r.texts[i], err = os.ReadFile(p.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.setting, err))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, r.parse(f, before))
	}
	return r, errors.Join(errs...)
}

// parse makes a Set of the texts. What is in those that are as they were before stays
// the same.
func (r *reading) parse(f Files, before *reading) error {
	same := func(i int) bool { return before != nil && bytes.Equal(r.texts[i], before.texts[i]) }
	var errs []error
	switch {
	case f.CA == "":
	case same(0):
		r.set.Roots = before.set.Roots
	default:
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if r.set.Roots = roots; !roots.AppendCertsFromPEM(r.texts[0]) {
			errs = append(errs, fmt.Errorf("CARPOOL_CA_FILE: %s holds no PEM certificate", f.CA))
		}
	}
	switch {
	case f.Cert == "":
	case same(1) && same(2):
		r.set.Certificate = before.set.Certificate
	default:
		c, err := tls.X509KeyPair(r.texts[1], r.texts[2])
		if r.set.Certificate = &c; err != nil {
			errs = append(errs, fmt.Errorf("CARPOOL_CLIENT_CERT_FILE=%s, CARPOOL_CLIENT_KEY_FILE=%s: want a certificate and its key in PEM: %w", f.Cert, f.Key, err))
		}
	}
	return errors.Join(errs...)
}

// moved reports whether the files may hold something else than when they were read.
func (f Files) moved(since *reading) bool {
	for i, p := range f.paths() {
		if p.path == "" {
			continue
		}
		then := since.infos[i]
		now, err := os.Stat(p.path)
		if err != nil || then == nil || !os.SameFile(then, now) || then.Size() != now.Size() || !then.ModTime().Equal(now.ModTime()) ||
			since.at.Sub(then.ModTime()) < settling {
			return true
		}
	}
	return false
}

// empty reports whether there is no file.
func (f Files) empty() bool { return f == Files{} }

// equal reports whether two readings found the same.
func (r *reading) equal(other *reading) bool {
	return slices.EqualFunc(r.texts[:], other.texts[:], bytes.Equal)
}
