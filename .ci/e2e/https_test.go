package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCallsInHTTPSShareConnectionsOnARealCluster has a program of Node.js 12 whose
// calls are all https: by itself, with the script, and by a local port. Its pods get
// annotations and are restarted; the image stays.
func TestCallsInHTTPSShareConnectionsOnARealCluster(t *testing.T) {
	if os.Getenv("CARPOOL_E2E") == "" {
		t.Skip("needs a cluster: .ci/e2e/run says what it wants")
	}
	s := space(namespace + "-https")
	_, _ = command("helm", "--namespace", releaseNamespace, "uninstall", "carpool") // of an earlier run
	s.kubectl(t, "delete", "namespace", string(s), releaseNamespace, "--ignore-not-found", "--timeout", patience.String())
	s.kubectl(t, "create", "namespace", string(s))
	certify(t, s)
	s.kubectl(t, "apply", "--filename", "manifests/https.yaml")
	s.complete(t, "secure")
	s.complete(t, "caller")
	directly := s.during(t, 1000)
	t.Logf("directly:          %v", directly)
	if directly.seen.Connections < directly.seen.Requests*95/100 {
		t.Error("the program is not as old as it should be")
	}

	helm(t, "upgrade", "--install", "carpool", chart, "--create-namespace", "--wait", "--timeout", patience.String(),
		"--set", "image.repository="+repository, "--set", "image.tag="+tag, "--set", "image.pullPolicy=Never")
	s.kubectl(t, "label", "namespace", string(s), "carpoolproxy.github.io/inject=enabled")
	eventually(t, "pods are injected", func() bool {
		return strings.Contains(s.kubectl(t, "create", "--filename", "manifests/idle.yaml", "--dry-run=server", "--output",
			"jsonpath={.spec.initContainers[*].name}"), "carpool")
	})
	for _, way := range []struct {
		name string
		with map[string]any // annotations
		url  string
	}{
		{"with the script", map[string]any{"preload-https": "true"}, "https://secure/"},
		{"by a local port", map[string]any{"settings/LOCAL_PORTS": "9001=https://secure"}, "http://127.0.0.1:9001/"},
	} {
		s.annotate(t, way.with, way.url)
		seen := s.during(t, 1000)
		t.Logf("%-18s %v", way.name+":", seen)
		if seen.seen.Connections > seen.seen.Requests/20 {
			t.Errorf("%s: not pooled", way.name)
		}
		if seen.calls.Failed > 0 {
			t.Errorf("%s: %v", way.name, seen.calls)
		}
	}
	helm(t, "uninstall", "carpool")
}

// annotate gives the caller's pods annotations, and another URL to call.
func (s space) annotate(t *testing.T, with map[string]any, url string) {
	t.Helper()
	all := []string{
		`"carpoolproxy.github.io/preload-https": null`, `"settings.carpoolproxy.github.io/LOCAL_PORTS": null`,
		`"carpoolproxy.github.io/secret": "authority"`, `"settings.carpoolproxy.github.io/CA_FILE": "/etc/carpool/secret/ca.crt"`,
	}
	for name, value := range with {
		key := "carpoolproxy.github.io/" + name
		if setting, ok := strings.CutPrefix(name, "settings/"); ok {
			key = "settings.carpoolproxy.github.io/" + setting
		}
		all = append(all, fmt.Sprintf("%q: %q", key, value))
	}
	s.kubectl(t, "patch", "deployment", "caller", "--patch",
		`{"spec": {"template": {"metadata": {"annotations": {`+strings.Join(all, ", ")+`}}, "spec": {"containers": [{"name": "app", "env": [{"name": "UPSTREAM", "value": "`+url+`"}]}]}}}}`)
	s.complete(t, "caller")
	if p := s.pods(t, "app=caller")[0]; !p.injected() {
		t.Fatal("the caller has no carpool")
	}
}

// cost is what a number of calls came to.
type cost struct {
	seen       served // by the upstream
	handshakes int
	calls      calls
	cpu        float64 // seconds, of the app and its carpool
}

func (c cost) String() string {
	return fmt.Sprintf("%v, %d handshakes; %v; %.2f ms of CPU a call, app and carpool",
		c.seen, c.handshakes, c.calls, 1000*c.cpu/float64(max(c.calls.Calls, 1)))
}

// during returns what calls cost until there were n more, from a few hundred on.
func (s space) during(t *testing.T, n int) cost {
	t.Helper()
	var from cost
	eventually(t, "the caller is under way", func() bool {
		from = s.cost(t)
		return from.calls.Calls >= 300
	})
	to := from
	eventually(t, fmt.Sprintf("%d more calls", n), func() bool {
		to = s.cost(t)
		return to.calls.Calls >= from.calls.Calls+n
	})
	return cost{to.seen.since(from.seen), to.handshakes - from.handshakes, to.calls.since(from.calls), to.cpu - from.cpu}
}

// cost is what all calls of the pods there are have come to.
func (s space) cost(t *testing.T) cost {
	t.Helper()
	var c cost
	var up struct {
		served
		Handshakes int
	}
	s.raw(t, &up, s.proxyPath(s.pods(t, "app=secure")[0].Metadata.Name, 8081, "seen"))
	p := s.pods(t, "app=caller")[0]
	var app struct {
		calls
		CPU float64
	}
	s.raw(t, &app, s.proxyPath(p.Metadata.Name, 8080, "seen"))
	c.seen, c.handshakes, c.calls, c.cpu = up.served, up.Handshakes, app.calls, app.CPU
	if !p.injected() {
		return c
	}
	for line := range strings.Lines(s.kubectl(t, "get", "--raw", s.proxyPath(p.Metadata.Name, 9128, "metrics"))) {
		if value, ok := strings.CutPrefix(line, "process_cpu_seconds_total "); ok {
			seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			c.cpu += seconds
		}
	}
	return c
}

// certify makes an authority and a certificate for the upstream, and Secrets of them.
func certify(t *testing.T, s space) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	issue := func(of, by *x509.Certificate, subject, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, of, by, subject.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "secure"}, DNSNames: []string{"secure"}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caFile := write("ca.crt", "CERTIFICATE", issue(ca, ca, caKey, caKey))
	leafFile := write("tls.crt", "CERTIFICATE", issue(leaf, ca, leafKey, caKey))
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("tls.key", "PRIVATE KEY", der)
	s.kubectl(t, "create", "secret", "generic", "authority", "--from-file", caFile)
	s.kubectl(t, "create", "secret", "tls", "secure", "--cert", leafFile, "--key", keyFile)
}
