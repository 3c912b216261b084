package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// upstream answers /N with N bytes, in TLS 1.3.
type upstream struct {
	addr   string // 127.0.0.1:port
	ca     string // the file with its certificate, which is its own authority
	server *http.Server
}

func (u *upstream) close() { _ = u.server.Close() }

func serveUpstream(dir string) (*upstream, error) {
	cert, pemText, err := newCertificate()
	if err != nil {
		return nil, err
	}
	u := &upstream{ca: filepath.Join(dir, "ca.pem")}
	if err := os.WriteFile(u.ca, pemText, 0o600); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u.addr = l.Addr().String()
	u.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Path[1:])
			w.Header().Set("Content-Length", strconv.Itoa(n))
			_, _ = w.Write(body[:n])
		}),
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	go func() { _ = u.server.ServeTLS(l, "", "") }()
	return u, nil
}

var body = bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)

func newCertificate() (cert tls.Certificate, pemText []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// crowd has clients do requests, each after the answer to the one before.
func crowd(addr string, l load, requests, clients int) error {
	var left atomic.Int64
	left.Store(int64(requests))
	failed := make(chan error, clients)
	var work sync.WaitGroup
	for range min(clients, requests) {
		work.Go(func() {
			c := client{addr: addr, load: l}
			defer c.hangUp()
			for left.Add(-1) >= 0 {
				if err := c.ask(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	work.Wait()
	close(failed)
	return <-failed
}

// client is one that writes and reads as little as it can.
type client struct {
	addr string
	load load
	conn net.Conn
	in   *bufio.Reader
}

func (c *client) ask() error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReaderSize(conn, 128<<10)
	}
	last := ""
	if c.load.close {
		last = "Connection: close\r\n"
	}
	_, err := fmt.Fprintf(c.conn, "GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/plain, */*\r\n"+
		"User-Agent: axios/0.21.4\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n%s\r\n", c.load.size, last)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("answered %q", line)
		}
		if len(line) == 2 {
			break
		}
	}
	if _, err := io.CopyN(io.Discard, c.in, int64(c.load.size)); err != nil {
		return err
	}
	if c.load.close {
		c.hangUp()
	}
	return nil
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
