package program

import (
	"cmp"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/certs"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy/policy"
)

// certFiles are the files that settings name.
func certFiles(cfg config.Config) certs.Files {
	f := certs.Files{CA: cfg.CAFile, Cert: cfg.ClientCertFile}
	if f.Cert != "" {
		f.Key = cmp.Or(cfg.ClientKeyFile, f.Cert)
	}
	return f
}

// showTo says which upstreams see the client certificate, and warns if none does.
func (s *sidecar) showTo() func(pool.Key) bool {
	if s.cfg.ClientCertFile != "" && s.cfg.ClientCertHosts == nil {
		s.log.Warn("no upstream sees the certificate of CARPOOL_CLIENT_CERT_FILE: CARPOOL_CLIENT_CERT_HOSTS names none")
	}
	hosts := policy.NewHostSet(s.cfg.ClientCertHosts)
	return func(k pool.Key) bool {
		_, named := hosts.Match([]byte(k.Host), k.Port)
		return named
	}
}
