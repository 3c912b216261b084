package program

// warnOfCertificate says so if nobody sees the client certificate.
func (s *sidecar) warnOfCertificate() {
	if s.cfg.ClientCertFile != "" && s.cfg.ClientCertHosts == nil {
		s.log.Warn("no upstream sees the certificate of CARPOOL_CLIENT_CERT_FILE: CARPOOL_CLIENT_CERT_HOSTS names none")
	}
}
