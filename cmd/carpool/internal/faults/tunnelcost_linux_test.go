package faults_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// What tunnels cost, beside HAProxy and Envoy where these are on the PATH. One round
// takes each of them once, so a ratio within a round does not depend on how fast the
// machine is just then. The proxies run on processor 0, clients and upstreams on 1.
var (
	costRounds = flag.Int("cost-rounds", 0, "how many rounds TestWhatTunnelsCost makes; 0: it is skipped")
	costAlso   = flag.String("cost-also", "", "NAME=PATH of other builds of carpool, with commas")
	costOnly   = flag.String("cost-only", "", "the loads to run, with commas; all if empty")
)

// relay is a proxy under measurement.
type relay struct {
	name string
	pid  int
	addr string
	raw  bool // a relay to bulkUp alone, without CONNECT
}

// dial opens a tunnel to an upstream.
func (p *relay) dial(t testing.TB, upstream string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(p.name, err)
	}
	if p.raw {
		return c
	}
	testkit.Write(t, c, "CONNECT "+upstream+" HTTP/1.1\r\nHost: "+upstream+"\r\n\r\n")
	for head := ""; !strings.HasSuffix(head, "\r\n\r\n"); {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			t.Fatal(p.name, head, err)
		}
		if head += string(b[:]); len(head) == 12 && !strings.HasSuffix(head, " 200") {
			t.Fatal(p.name, head)
		}
	}
	return c
}

// cpu is what all threads of the proxy have used so far.
func (p *relay) cpu(t testing.TB) (sum time.Duration) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	if err != nil || len(tasks) == 0 {
		t.Fatal(p.name, "has no tasks", err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// load is something that clients do, so many times a round.
type load struct {
	name  string
	unit  string
	count int
	do    func(t testing.TB, p *relay)
	fits  func(p *relay) bool
}

func TestWhatTunnelsCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("measures for minutes: -cost-rounds 7")
	}
	if out, err := exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).CombinedOutput(); err != nil {
		t.Skipf("taskset: %v %s", err, out)
	}
	up := bulkUpstream(t)
	secure := tlsUpstream(t)
	small := newPlain(t)
	relays := relaysUnderMeasurement(t, up)
	for _, l := range loads(up, secure, small.Addr().String()) {
		if *costOnly != "" && !slices.Contains(strings.Split(*costOnly, ","), l.name) {
			continue
		}
		costs := map[string][]float64{}
		for round := range *costRounds + 1 {
			for i := range relays {
				p := relays[(i+round)%len(relays)]
				if !l.fits(p) {
					continue
				}
				before := p.cpu(t)
				l.do(t, p)
				if round > 0 { // the first warms up
					costs[p.name] = append(costs[p.name], float64(p.cpu(t)-before)/1e3/float64(l.count))
				}
			}
		}
		report(t, l, relays, costs)
	}
}

// report tells the median cost of each, and the ratio of carpool's to it within the
// rounds: median, least and most.
func report(t *testing.T, l load, relays []*relay, costs map[string][]float64) {
	for _, p := range relays {
		c := costs[p.name]
		if len(c) == 0 {
			continue
		}
		ratios := make([]float64, len(c))
		for i := range c {
			ratios[i] = costs["carpool"][i] / c[i]
		}
		slices.Sort(ratios)
		sorted := slices.Sorted(slices.Values(c))
		t.Logf("%-14s %-16s %8.2f µs/%s   carpool takes %.2f x [%.2f–%.2f]", l.name, p.name, sorted[len(c)/2], l.unit,
			ratios[len(c)/2], ratios[0], ratios[len(c)-1])
	}
}

// bulk is how much goes through a tunnel in a round.
const bulk = 1 << 30

func loads(up, secure, plain string) []load {
	tunnels := func(p *relay) bool { return !p.raw }
	all := func(*relay) bool { return true }
	const calls, handshakes = 10_000, 300
	return []load{
		{"download", "MB", bulk >> 20, func(t testing.TB, p *relay) { transfer(t, p.dial(t, up), 'd') }, all},
		{"upload", "MB", bulk >> 20, func(t testing.TB, p *relay) { transfer(t, p.dial(t, up), 'u') }, all},
		{"tls", "exchange", handshakes, func(t testing.TB, p *relay) {
			for range handshakes {
				c := tls.Client(p.dial(t, secure), &tls.Config{InsecureSkipVerify: true})
				askRaw(t, 0, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				_ = c.Close()
			}
		}, tunnels},
		{"absolute", "request", calls, func(t testing.TB, p *relay) {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range calls {
				askRaw(t, 0, c, "GET http://"+plain+"/ HTTP/1.1\r\nHost: "+plain+"\r\n\r\n")
			}
		}, tunnels},
		{"inside", "request", calls, func(t testing.TB, p *relay) {
			c := p.dial(t, plain)
			defer c.Close()
			for range calls {
				askRaw(t, 0, c, "GET / HTTP/1.1\r\nHost: "+plain+"\r\n\r\n")
			}
		}, tunnels},
		{"connect-each", "exchange", calls / 10, func(t testing.TB, p *relay) {
			for range calls / 10 {
				c := p.dial(t, plain)
				askRaw(t, 0, c, "GET / HTTP/1.1\r\nHost: "+plain+"\r\n\r\n")
				_ = c.Close()
			}
		}, tunnels},
	}
}

// transfer moves bulk bytes one way.
func transfer(t testing.TB, c net.Conn, way byte) {
	defer c.Close()
	if _, err := c.Write([]byte{way}); err != nil {
		t.Fatal(err)
	}
	if way == 'u' {
		pump(c)
	}
	buffer := make([]byte, 256<<10)
	for left := bulk; left > 0; {
		n, err := c.Read(buffer)
		if way == 'u' && n == 1 {
			return
		}
		if left -= n; err != nil {
			t.Fatal(err)
		}
	}
}

// pump sends bulk bytes.
func pump(c net.Conn) {
	part := make([]byte, 256<<10)
	for left := bulk; left > 0; left -= len(part) {
		if _, err := c.Write(part); err != nil {
			return
		}
	}
}

// bulkUpstream sends bulk bytes to who says d, and takes them from who says u.
func bulkUpstream(t testing.TB) string {
	return upstream(t, func(c net.Conn) {
		defer c.Close()
		var way [1]byte
		if _, err := io.ReadFull(c, way[:]); err != nil {
			return
		}
		if way[0] == 'd' {
			pump(c)
			return
		}
		buffer := make([]byte, 256<<10)
		for left := bulk; left > 0; {
			n, err := c.Read(buffer)
			if err != nil {
				return
			}
			left -= n
		}
		_, _ = c.Write([]byte("."))
	})
}

// tlsUpstream answers each head over TLS.
func tlsUpstream(t testing.TB) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return upstream(t, func(c net.Conn) {
		s := tls.Server(c, config)
		defer s.Close()
		for in := bufio.NewReader(s); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})
}

func upstream(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// relaysUnderMeasurement starts what there is.
func relaysUnderMeasurement(t *testing.T, up string) (all []*relay) {
	path, err := carpooltest.Program()
	if err != nil {
		t.Fatal(err)
	}
	builds := []string{"carpool=" + path}
	if *costAlso != "" {
		builds = append(builds, strings.Split(*costAlso, ",")...)
	}
	for _, b := range builds {
		name, path, _ := strings.Cut(b, "=")
		cmd := exec.Command("taskset", "-c", "0", path)
		c := carpooltest.StartCommand(t, cmd)
		all = append(all, &relay{name: name, pid: cmd.Process.Pid, addr: c.Proxy})
	}
	for _, p := range []struct {
		name, program, config string
		args                  func(config string) []string
		raw                   bool
	}{
		{"haproxy", "haproxy", haproxyConfig(""), func(c string) []string { return []string{"-db", "-f", c} }, true},
		{"haproxy-splice", "haproxy", haproxyConfig("option splice-auto"), func(c string) []string { return []string{"-db", "-f", c} }, true},
		{"envoy", "envoy", envoyConfig, func(c string) []string {
			return []string{"-c", c, "--concurrency", "1", "--disable-hot-restart", "-l", "error"}
		}, false},
	} {
		program, err := exec.LookPath(p.program)
		if err != nil {
			t.Log(p.name, "is not here")
			continue
		}
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		config := filepath.Join(t.TempDir(), p.name+".yaml")
		text := strings.NewReplacer("LISTEN", addr, "PORT", port, "UPSTREAM", up).Replace(p.config)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("taskset", append([]string{"-c", "0", program}, p.args(config)...)...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		testkit.Eventually(t, p.name+" listens", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
		all = append(all, &relay{name: p.name, pid: cmd.Process.Pid, addr: addr, raw: p.raw})
	}
	return all
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func haproxyConfig(option string) string {
	return "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  " +
		option + "\nlisten l\n  bind LISTEN\n  server s UPSTREAM\n"
}

const envoyConfig = `
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: fp
          codec_type: HTTP1
          http_protocol_options: {allow_absolute_url: true}
          generate_request_id: false
          upgrade_configs: [{upgrade_type: CONNECT}]
          route_config:
            name: r
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {connect_matcher: {}}
                route: {cluster: dfp, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
              - match: {prefix: "/"}
                route: {cluster: dfp, timeout: 60s}
          http_filters:
          - name: envoy.filters.http.dynamic_forward_proxy
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
              dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: dfp
    connect_timeout: 5s
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.dynamic_forward_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
        dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}
`
