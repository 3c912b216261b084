package injector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	"go.uber.org/zap"
)

// Keeper is a keeper, for tests.
type Keeper = keeper

// Constants that tests count on.
const (
	Every    = every
	Overlap  = overlap
	Lifetime = lifetime
	Renewal  = renewal
	Settling = settling
)

// NewKeeper returns one that has looked at nothing yet.
func NewKeeper(c Config, from api, log *zap.Logger) *Keeper {
	return &keeper{config: c, api: from, log: log, now: time.Now}
}

// Look and Ready are a keeper's.
var (
	Look  = (*keeper).look
	Ready = (*keeper).ready
)

// Run looks again and again until ctx ends.
func (k *keeper) Run(ctx context.Context) { k.run(ctx) }

// Leaf returns what is served, or nil.
func (k *keeper) Leaf() *x509.Certificate {
	if s := k.served.Load(); s != nil {
		return s.leaf.Leaf
	}
	return nil
}

// Holds returns why somebody who trusts these does not take a certificate, or nil.
func Holds(leaf *x509.Certificate, host string, pem []byte) error {
	return verifies(tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf}, host, certificates(pem), time.Now())
}

// Certificates returns those of a text.
var Certificates = certificates

// Count counts the pods without carpool.
func Count(ctx context.Context, from interface {
	Metadata(ctx context.Context, path string, into any) error
}) (map[string]int, error) {
	return counter{from, zap.NewNop()}.count(ctx)
}
