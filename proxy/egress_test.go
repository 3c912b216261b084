package proxy_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/proxy"
)

// asked records the addresses that are about to be dialled, and lets none but
// the permitted be.
type asked struct {
	mu   sync.Mutex
	list []netip.AddrPort
}

func (a *asked) check(next func(netip.AddrPort) error) func(netip.AddrPort) error {
	return func(addr netip.AddrPort) error {
		a.mu.Lock()
		a.list = append(a.list, addr)
		a.mu.Unlock()
		return next(addr)
	}
}

// forbidden is a list of targets and what they are answered, in absolute-form
// and by CONNECT alike.
func TestForbiddenDestinations(t *testing.T) {
	t.Parallel()
	r := start(t)
	for name, c := range map[string]struct {
		authority string
		status    int
		kind      string
	}{
		"S1 metadata":                {"169.254.169.254:80", 403, "destination_ip_prohibited"},
		"S1 link-local":              {"169.254.1.1:8080", 403, "destination_ip_prohibited"},
		"S1 Alibaba":                 {"100.100.100.200:80", 403, "destination_ip_prohibited"},
		"S1 link-local IPv6":         {"[fe80::1]:80", 403, "destination_ip_prohibited"},
		"S1 EC2 IPv6":                {"[fd00:ec2::254]:80", 403, "destination_ip_prohibited"},
		"S2 IPv4-mapped":             {"[::ffff:169.254.169.254]:80", 403, "destination_ip_prohibited"},
		"S2 IPv4-mapped hexadecimal": {"[::ffff:a9fe:a9fe]:80", 403, "destination_ip_prohibited"},
		"S2 IPv4-compatible":         {"[::169.254.169.254]:80", 403, "destination_ip_prohibited"},
		"S2 NAT64":                   {"[64:ff9b::a9fe:a9fe]:80", 403, "destination_ip_prohibited"},
		"S2 6to4":                    {"[2002:a9fe:a9fe::]:80", 403, "destination_ip_prohibited"},
		"S5 name in brackets":        {"[localhost]:80", 400, "http_request_error"},
		"S5 IDN":                     {"b\xc3\xbccher.example:80", 400, "http_request_error"},
		"S5 percent":                 {"%31%32%37.0.0.1:80", 400, "http_request_error"},
		"S6 short":                   {"127.1:80", 400, "http_request_error"},
		"S6 decimal":                 {"2130706433:80", 400, "http_request_error"},
		"S6 hexadecimal":             {"0x7f000001:80", 400, "http_request_error"},
		"S6 octal":                   {"0177.0.0.1:80", 400, "http_request_error"},
		"S6 hexadecimal parts":       {"0xa9.0xfe.0xa9.0xfe:80", 400, "http_request_error"},
		"S7 itself":                  {r.addr, 508, "proxy_loop_detected"},
		"S7 itself unspecified":      {strings.Replace(r.addr, "127.0.0.1", "0.0.0.0", 1), 508, "proxy_loop_detected"},
		"S7 itself unspecified IPv6": {strings.Replace(r.addr, "127.0.0.1", "[::]", 1), 508, "proxy_loop_detected"},
		"S7 itself mapped":           {strings.Replace(r.addr, "127.0.0.1", "[::ffff:127.0.0.1]", 1), 508, "proxy_loop_detected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := r.client()
			client.send("GET http://" + c.authority + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			head, _ := client.problem(c.status)
			if got := field(head, "Proxy-Status"); got != "carpool; error="+c.kind {
				t.Errorf("Proxy-Status: %s", got)
			}
			client = r.client()
			client.send("CONNECT " + c.authority + " HTTP/1.1\r\nHost: x\r\n\r\nearly")
			client.refused(c.status)
		})
	}
	t.Cleanup(func() {
		if n := r.proxy.Stats().Accepted; n != 44 {
			t.Errorf("%d connections were accepted: one led back", n)
		}
		e := r.proxy.Stats().Errors
		if e["destination_ip_prohibited"] != 20 || e["http_request_error"] != 16 || e["proxy_loop_detected"] != 8 || e["dns_error"] != 0 {
			t.Errorf("counted by error type: %v", e)
		}
	})
}

// Each kind of error has a name of its own, under which its answers are counted.
func TestEveryErrorTypeIsCounted(t *testing.T) {
	t.Parallel()
	counted := start(t).proxy.Stats().Errors
	seen := map[string]bool{}
	for _, name := range proxy.ErrorNames() {
		if name == "" || seen[name] {
			t.Errorf("the name %q is that of several kinds", name)
		}
		seen[name] = true
		if _, ok := counted[name]; !ok && name != "client_gone" {
			t.Errorf("%s is not counted", name)
		}
	}
	if len(counted) != len(seen)-1 {
		t.Errorf("%d names are counted, there are %d", len(counted), len(seen))
	}
}

// R4, R5: what is cut off a target changes no verdict on its host.
func TestForbiddenDestinationsInOddTargets(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, target := range []string{
		"http://good.test@169.254.169.254/", "http://good.test:80@169.254.169.254:80/", "http://a@good.test@169.254.169.254/",
		"http://169.254.169.254#@good.test/", "http://169.254.169.254?@good.test/", "http://169.254.169.254/@good.test",
		"http://169.254.169.254#good.test", "https://u@169.254.169.254#x", "http://[::1]@[::ffff:169.254.169.254]/",
	} {
		client := r.client()
		client.send("GET " + target + " HTTP/1.1\r\nHost: good.test\r\n\r\n")
		if head, _ := client.problem(403); field(head, "Proxy-Status") != "carpool; error=destination_ip_prohibited" {
			t.Errorf("%s is answered %q", target, head)
		}
	}
}

func TestS3LoopbackIsForThePod(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.pool.CheckAddr = proxy.NewEgress(proxy.EgressConfig{}).CheckAddr })
	for _, host := range []string{"127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"} {
		client := r.client()
		client.send("GET http://" + host + ":9/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.refused(403)
	}
}

func TestS4TheCheckedAddressIsTheOneDialled(t *testing.T) {
	t.Parallel()
	metadata, local := netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1")
	t.Run("S4 mixed answers", func(t *testing.T) {
		t.Parallel()
		var seen asked
		r, o := start(t, func(s *settings) {
			s.pool.Reuse = true // in this order
			s.pool.Resolver = names{"mixed.test": {metadata, local}}
			s.pool.CheckAddr = seen.check(s.pool.CheckAddr)
		}), newOrigin(t)
		client := r.client()
		client.send("GET http://mixed.test" + o.port() + "/ HTTP/1.1\r\nHost: mixed.test" + o.port() + "\r\n\r\n")
		up := o.accept()
		up.head()
		up.send(ok)
		client.want(ok)
		for _, a := range seen.list {
			if a.Port() != netip.MustParseAddrPort(o.addr).Port() {
				t.Errorf("asked about %v", a)
			}
		}
		if len(seen.list) != 2 {
			t.Errorf("asked about %v, want both", seen.list)
		}
	})
	t.Run("S4 rebinding", func(t *testing.T) {
		t.Parallel()
		// Every look-up gives another answer: only the first is ever asked for.
		look := &rebinding{answers: [][]netip.Addr{{metadata}, {local}}}
		r, o := start(t, func(s *settings) { s.pool.Resolver = look }), newOrigin(t)
		client := r.client()
		client.send("GET http://rebind.test" + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.refused(403)
		o.served(0)
		client = r.client()
		client.send("GET http://rebind.test" + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		up := o.accept()
		up.head()
		up.send(ok)
		client.want(ok)
		if look.asked != 2 {
			t.Errorf("resolved %d times for two connections", look.asked)
		}
	})
	t.Run("S4 nothing but forbidden addresses", func(t *testing.T) {
		t.Parallel()
		r := start(t, func(s *settings) {
			s.pool.Resolver = names{"bad.test": {metadata, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("100.100.100.200")}}
		})
		client := r.client()
		client.send("GET http://bad.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.refused(403)
	})
}

type rebinding struct {
	answers [][]netip.Addr
	asked   int
}

func (r *rebinding) LookupNetIP(ctx context.Context, network, _ string) ([]netip.Addr, error) {
	if network != "ip" { // asked because the machine is slow
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.asked++
	return r.answers[min(r.asked, len(r.answers))-1], nil
}

func TestS5SpellingsOfOneName(t *testing.T) {
	t.Parallel()
	r, o := start(t, func(s *settings) {
		s.pool.Resolver = names{
			"orders.test": {netip.MustParseAddr("127.0.0.1")}, "orders.test.": {netip.MustParseAddr("127.0.0.1")},
			"metadata.test": {netip.MustParseAddr("169.254.169.254")}, "metadata.test.": {netip.MustParseAddr("169.254.169.254")},
		}
	}), newOrigin(t)
	client := r.client()
	var up *wire
	for _, host := range []string{"orders.test", "ORDERS.test", "Orders.Test"} { // share connections
		client.send("GET http://" + host + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if up == nil {
			up = o.accept()
		}
		up.want("GET / HTTP/1.1\r\nHost: " + host + o.port() + "\r\n\r\n")
		up.send(ok)
		client.want(ok)
	}
	client.send("GET HTTP://orders.test." + o.port() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	up = o.accept()
	up.want("GET / HTTP/1.1\r\nHost: orders.test." + o.port() + "\r\n\r\n")
	up.send(ok)
	client.want(ok)
	for _, host := range []string{"metadata.test", "METADATA.TEST", "metadata.test.", "Metadata.Test."} {
		client := r.client()
		client.send("GET http://" + host + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.refused(403)
	}
}

// S7: whatever else localhost may be, one of its addresses is where carpool listens.
func TestS7LocalhostIsAnAliasToo(t *testing.T) {
	t.Parallel()
	r := start(t)
	_, port, _ := net.SplitHostPort(r.addr)
	for _, host := range []string{"localhost", "localhost.", "LocalHost", "LOCALHOST."} {
		client := r.client()
		client.send("GET http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, body := client.problem(508); !strings.Contains(body, "leads back") {
			t.Errorf("%s: %q", host, body)
		}
		client = r.client()
		client.send(connectTo(host + ":" + port))
		client.refused(508)
	}
}

// S7: whether an address is this machine's takes a descriptor to find out. Where
// there is none it is not dialled, and descriptors are what is short.
func TestS7OwnAddressesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	listener := netip.MustParseAddrPort("0.0.0.0:9128")
	own := []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	short := false
	check := proxy.EgressOf(func() ([]net.Addr, error) {
		if short {
			return nil, &net.OpError{Op: "route", Err: os.NewSyscallError("netlinkrib", syscall.EMFILE)}
		}
		return own, nil
	}, listener)
	for i, c := range []struct {
		addr         string
		short, fails bool
	}{
		{"192.0.2.1:9128", false, true}, {"192.0.2.2:9128", false, false}, {"192.0.2.2:9128", true, true},
		{"127.0.0.1:9128", true, true}, {"192.0.2.2:80", true, false},
	} {
		short = c.short
		if err := check(netip.MustParseAddrPort(c.addr)); (err != nil) != c.fails {
			t.Errorf("%d: %s: %v", i, c.addr, err)
		}
	}
	r := start(t, func(s *settings) { s.pool.CheckAddr = check })
	client := r.client()
	client.send("GET http://192.0.2.2:9128/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, body := client.problem(503); !strings.Contains(body, "open files") {
		t.Errorf("answered %q", body)
	}
}

// O1: the admin port is one of the listeners that nothing may lead to.
func TestO1AdminPortThroughTheProxy(t *testing.T) {
	t.Parallel()
	admin := newOrigin(t)
	own := netip.MustParseAddrPort("0.0.0.0" + admin.port()) // as the kubelet reaches it
	r := start(t, func(s *settings) {
		s.pool.CheckAddr = proxy.NewEgress(proxy.EgressConfig{Listeners: []netip.AddrPort{own}, OnLoopback: true}).CheckAddr
		s.pool.Resolver = names{"localhost": {netip.MustParseAddr("127.0.0.1")}}
	})
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::1]", "127.0.0.2", "[::ffff:127.0.0.1]"} {
		client := r.client()
		client.send("GET http://" + host + admin.port() + "/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		client.problem(508)
		client = r.client()
		client.send(connectTo(host + admin.port()))
		client.refused(508)
	}
	admin.served(0)
}

func TestO2SecretsStayOutOfRecords(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client := r.client()
	secrets := "Authorization: Bearer s3cret\r\nCookie: s3cret=s3cret\r\nProxy-Authorization: Basic s3cret\r\nX-Api-Key: s3cret\r\n"
	client.send(o.request("GET", "/path?token=s3cret", secrets))
	up := o.accept()
	up.head()
	up.send("HTTP/1.1 500 Oops s3cret\r\nSet-Cookie: s3cret\r\nContent-Length: 6\r\n\r\ns3cret")
	client.take(10)
	_ = up.Close()
	if rec := r.logged(1); rec.Method != "GET" || rec.Path != "/path" || rec.Origin != "http://"+o.addr || rec.Status != 500 {
		t.Errorf("logged as %+v", rec)
	}
	client = r.client()
	client.send(o.request("POST", "/other?token=s3cret", secrets))
	up = o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nContent-Length s3cret\r\n\r\n")
	client.problem(502)
	r.logged(2)
	client = r.client()
	client.send("GET http://user:s3cret@" + o.addr + "/at?s3cret#s3cret HTTP/1.1\r\nHost: s3cret\r\n" + secrets + "\r\n")
	up = o.accept()
	if head := up.head(); strings.Contains(strings.SplitN(head, "\r\n", 2)[0], "@") || field(head, "Host") != o.addr {
		t.Errorf("%q goes upstream", head)
	}
	_ = up.Close()
	client.problem(502)
	if rec := r.logged(3); rec.Path != "/at" || rec.Origin != "http://"+o.addr {
		t.Errorf("logged as %+v", rec)
	}
	client = r.client()
	client.send("GET http://" + o.addr + "/s3cret#s3cret HTTP/1.1\r\ns3cret\r\n\r\n")
	client.refused(400)
	r.logged(4)
	for _, rec := range r.records {
		if text := rec.Method + rec.Path + rec.Origin + rec.Error + rec.Detail; strings.Contains(text, "s3cret") {
			t.Errorf("a secret is told: %+v", rec)
		}
	}
}

// O3: what a record holds of a hostile request has no control characters, or
// is left to the encoder.
func TestO3HostileBytesInRecords(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	for _, target := range []string{"/a\x1b[31m", "/a\rb", "/a\nb", "/a\x00b", "/a\x7fb"} {
		client := r.client()
		client.send("GET http://" + o.addr + target + " HTTP/1.1\r\nHost: " + o.addr + "\r\nX: \x1b[31m\r\n\r\n")
		client.refused(400)
	}
	r.logged(5)
	for _, rec := range r.records {
		if strings.ContainsAny(rec.Method+rec.Path+rec.Origin+rec.Detail, "\r\n\x1b\x00\x7f") {
			t.Errorf("control characters are told: %+v", rec)
		}
	}
}

// Why there is no connection is named, in the status as in Proxy-Status.
func TestReasonsForNoConnection(t *testing.T) {
	t.Parallel()
	local := testkit.Refused(t).String()
	for name, c := range map[string]struct {
		authority string
		status    int
		kind      string
		change    func(*settings)
	}{
		"X1 no such name": {"nowhere.test", 502, "dns_error", func(s *settings) { s.pool.Resolver = names{} }},
		"X1 no answer to the name": {"slow.test", 504, "dns_timeout", func(s *settings) {
			s.pool.Resolver, s.pool.DNSTimeout = stuck{make(chan struct{}, 9)}, 100*time.Millisecond
		}},
		"X5 refused": {local, 502, "connection_refused", func(*settings) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, c.change)
			client := r.client()
			client.send("POST http://" + c.authority + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
			head, _ := client.problem(c.status)
			if got := field(head, "Proxy-Status"); got != "carpool; error="+c.kind {
				t.Errorf("Proxy-Status: %s", got)
			}
			// The request was whole, so the connection goes on.
			if !strings.Contains(c.authority, ":") {
				c.authority += ":443"
			}
			client.send(connectTo(c.authority))
			client.refused(c.status)
		})
	}
}
