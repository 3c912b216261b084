package proxy_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rsaChain makes a certificate for secure.test with an RSA key, which old
// servers have, and who signed it.
func rsaChain(t *testing.T, how x509.SignatureAlgorithm) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	sign := func(c, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
		c.SerialNumber = big.NewInt(time.Now().UnixNano())
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root = sign(root, root, keys[0], keys[0])
	leaf := sign(&x509.Certificate{DNSNames: []string{"secure.test"}, SignatureAlgorithm: how}, root, keys[1], keys[0])
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: keys[1], Leaf: leaf}, root
}

// secureRig is a proxy that trusts a root, and what it makes of an upstream that
// answers by play.
func secureRig(t *testing.T, root *x509.Certificate, play func(net.Conn)) (r *rig, client *wire, request string) {
	t.Helper()
	r, o := start(t, (&authority{t: t, cert: root}).trusted), newOrigin(t)
	o.handle(func(w *wire) { play(w.Conn) })
	host := "secure.test" + o.port()
	return r, r.client(), "GET https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
}

// serveTLS is an upstream that speaks TLS like this and answers one request.
func serveTLS(c *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		s := tls.Server(conn, c)
		b := make([]byte, 1000)
		if _, err := s.Read(b); err == nil {
			_, _ = s.Write([]byte(ok))
			_, _ = s.Read(b)
		}
	}
}

// Not parallel: GODEBUG is for the whole process.
func TestTLSThatGoNoLongerOffers(t *testing.T) {
	cert, root := rsaChain(t, 0)
	weak, weakRoot := rsaChain(t, x509.SHA1WithRSA)
	with := func(most uint16, suites ...uint16) func(net.Conn) {
		return serveTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: most, CipherSuites: suites})
	}
	for _, c := range []struct {
		name   string
		root   *x509.Certificate
		play   func(net.Conn)
		kind   string
		says   string
		mended string // by this GODEBUG, which the answer names
	}{
		{"RSA key exchange", root, with(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256), "tls_protocol_error",
			"RSA key exchange", "tlsrsakex=1"},
		{"3DES", root, with(tls.VersionTLS12, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), "tls_protocol_error", "3DES", "tlsrsakex=1,tls3des=1"},
		{"TLS 1.0", root, with(tls.VersionTLS10), "tls_protocol_error", "TLS 1.0", ""},
		{"TLS 1.1", root, with(tls.VersionTLS11), "tls_protocol_error", "1.1", ""},
		{"a certificate signed with SHA-1", weakRoot, serveTLS(&tls.Config{Certificates: []tls.Certificate{weak}}),
			"tls_certificate_error", "SHA-1", ""},
		{"broken off", root, func(c net.Conn) { _, _ = c.Read(make([]byte, 10)); _ = tcp(c).SetLinger(0) }, "tls_protocol_error",
			"broke the TLS handshake off", ""},
		{"a client certificate is wanted, TLS 1.2", root, serveTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}),
			"tls_alert_received", "CARPOOL_CLIENT_CERT_FILE", ""},
		{"a client certificate is wanted, TLS 1.3", root, serveTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}),
			"tls_alert_received", "certificate required", ""},
		{"no TLS", root, func(c net.Conn) { _, _ = c.Write([]byte("220 hello\r\n")); _, _ = c.Read(make([]byte, 1000)) },
			"tls_protocol_error", "does it speak TLS on this port?", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, client, request := secureRig(t, c.root, c.play)
			client.send(request)
			head, body := client.problem(502)
			if got, _, _ := strings.Cut(field(head, "Proxy-Status"), "; details="); got != "carpool; error="+c.kind || !strings.Contains(body, c.says) {
				t.Errorf("got %s: %q", got, body)
			}
			if c.mended == "" {
				return
			}
			if !strings.Contains(body, "GODEBUG="+c.mended) {
				t.Errorf("the answer does not say what helps: %q", body)
			}
			t.Setenv("GODEBUG", c.mended)
			client.send(request)
			client.want(ok)
		})
	}
}

// The same with OpenSSL's server, where there is one. Not parallel, as above.
func TestTLSOfOpenSSLThatGoNoLongerOffers(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	cert, root := rsaChain(t, 0)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, der := range map[string][]byte{"cert": cert.Certificate[0], "key": key} {
		if err := os.WriteFile(filepath.Join(dir, file), der, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, says, mended string }{
		{"-tls1_2 -cipher AES128-SHA", "RSA key exchange", "tlsrsakex=1"},
		{"-tls1_2 -sigalgs RSA+SHA1 -cipher ECDHE-RSA-AES128-SHA:@SECLEVEL=0", "SHA-1", "tlssha1=1"},
		{"-tls1_1 -cipher DEFAULT:@SECLEVEL=0", "TLS 1.0 or 1.1", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			addr := vacant(t)
			args := append(strings.Fields("s_server -quiet -www -certform DER -keyform DER -cert cert -key key -accept "+addr), strings.Fields(c.args)...)
			cmd := exec.CommandContext(t.Context(), openssl, args...)
			cmd.Dir = dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			eventually(t, "the server listens", func() bool {
				var d net.Dialer
				probe, err := d.DialContext(t.Context(), "tcp", addr)
				if err == nil {
					_ = probe.Close()
				}
				return err == nil
			})
			r := start(t, (&authority{t: t, cert: root}).trusted)
			_, port, _ := net.SplitHostPort(addr)
			request := "GET https://secure.test:" + port + "/ HTTP/1.0\r\nHost: x\r\n\r\n"
			client := r.client()
			client.send(request)
			if _, body := client.problem(502); !strings.Contains(body, c.says) || !strings.Contains(body, c.mended) {
				t.Errorf("got %q", body)
			}
			if c.mended == "" {
				return
			}
			t.Setenv("GODEBUG", c.mended)
			client = r.client()
			client.send(request)
			if head := client.head(); !strings.HasPrefix(head, "HTTP/1.1 200") {
				t.Errorf("with GODEBUG=%s got %q", c.mended, head)
			}
		})
	}
}
