package policy_test

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// reasonOf returns the Reason of a refusal, "" of none, and fails the test when an error is not a well-made *Denied.
func reasonOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var d *policy.Denied
	if !errors.As(err, &d) {
		t.Fatalf("error %v is a %T, want *policy.Denied", err, err)
	}
	if d.Reason == "" || d.Message == "" || d.Error() != d.Message {
		t.Fatalf("refusal %+v lacks a reason or a message", d)
	}
	if strings.ContainsFunc(d.Message, unicode.IsControl) {
		t.Fatalf("message %q is not one printable line", d.Message)
	}
	return d.Reason
}

func checkHosts(t *testing.T, reason string, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		_, err := policy.Host([]byte(host))
		if got := reasonOf(t, err); got != reason {
			t.Errorf("Host(%q): reason %q, want %q", host, got, reason)
		}
	}
}

func TestHostAcceptsNamesAndReturnsNoAddress(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := label + "." + label + "." + label + "." + strings.Repeat("a", 61)
	for _, host := range []string{
		"localhost", "orders", "orders.shop.svc.cluster.local", "my_service", "_srv._tcp.example.com", "a-b.example.com",
		"xn--bcher-kva.example", "1password.com", "10-0-0-1.ns.pod.cluster.local", "4.3.2.1.in-addr.arpa", "127.0.0.1.nip.io",
		"0xg", "0x7f.example", "1e3", "a1", "x0", label, longest, longest + ".",
	} {
		a, err := policy.Host([]byte(host))
		if err != nil || a.IsValid() {
			t.Errorf("Host(%q) = %v, %v, want a name", host, a, err)
		}
	}
}

func TestHostReturnsTheAddressOfALiteral(t *testing.T) {
	for host, want := range map[string]string{
		"10.1.2.3":                       "10.1.2.3",
		"0.0.0.0":                        "0.0.0.0",
		"255.255.255.255":                "255.255.255.255",
		"169.254.169.254":                "169.254.169.254", // well written: refusing it is up to Addr
		"[::1]":                          "::1",
		"[2001:DB8::1]":                  "2001:db8::1",
		"[0:0:0:0:0:ffff:10.1.2.3]":      "10.1.2.3",
		"[::ffff:a9fe:a9fe]":             "169.254.169.254",
		"[fe80::1]":                      "fe80::1",
		"[64:ff9b::169.254.169.254]":     "64:ff9b::a9fe:a9fe",
		"[2001:db8:1:2:3:4:5:6]":         "2001:db8:1:2:3:4:5:6",
		"[0000:0000:0000:0000::0.0.0.0]": "::",
	} {
		a, err := policy.Host([]byte(host))
		if err != nil || a.String() != want {
			t.Errorf("Host(%q) = %v, %v, want %s", host, a, err, want)
		}
	}
}

func TestR3AnEmptyHostIsRefused(t *testing.T) {
	checkHosts(t, policy.ReasonHostEmpty, "")
}

func TestHostRefusesWhatIsNoHostName(t *testing.T) {
	checkHosts(t, policy.ReasonHostByte,
		"a b", " a", "a ", "a\tb", "a\r\nb", "a\x00", "\x7f", "a/b", "a:80", "::1", "user@host", "a%2eb", "%31.example",
		"a?b", "a#b", "*.example.com", "a,b", "a;b", "a\\b", "<a>", "a]", "a[b]", "fe80::1%eth0", "a'b", "a|b", "a=b", "a+b", "~a", "$a")
	long := strings.Repeat("a", 64)
	label := strings.Repeat("a", 63)
	checkHosts(t, policy.ReasonHostLabel,
		".", "..", ".a", "a..b", "a..", "..a", "127..1", long, "a."+long, long+".a", long+".",
		label+"."+label+"."+label+"."+strings.Repeat("a", 62),
		strings.Repeat("a.", 128), strings.Repeat("a", 1<<16))
}

func TestS5TheSpellingOfANameChangesNoVerdict(t *testing.T) {
	t.Run("letter case and one trailing dot are legal in names", func(t *testing.T) {
		checkHosts(t, "", "example.com", "EXAMPLE.com", "example.com.", "Example.Com.")
	})
	t.Run("a trailing dot does not hide a number", func(t *testing.T) {
		checkHosts(t, policy.ReasonHostNumber, "127.0.0.1.", "169.254.169.254.", "127.1.", "0x7f000001.", "2130706433.")
	})
	t.Run("IDN comes as punycode", func(t *testing.T) {
		checkHosts(t, policy.ReasonHostByte,
			"bücher.example", "１２７.0.0.1", "127。0。0。1", "ⓛocalhost", "a\xff", "\xc0\xae", "a\u00adb", "\u200bexample")
		checkHosts(t, "", "xn--bcher-kva.example", "XN--BCHER-KVA.example")
	})
	t.Run("brackets hold an IPv6 address and nothing else", func(t *testing.T) {
		checkHosts(t, policy.ReasonHostLiteral,
			"[name]", "[localhost]", "[]", "[", "[::1", "[::1]x", "[::1].", "[[::1]]", "[ ::1]", "[::1 ]", "[127.0.0.1]", "[1]", "[:]",
			"[::1%eth0]", "[::1%25eth0]", "[fe80::1%25]", "[fe80::1%1]", "[v1.a]", "[v1.fe80::a+en1]",
			"[::ffff:127.1]", "[::ffff:0177.0.0.1]", "[::ffff:0x7f.0.0.1]", "[1:2:3:4:5:6:7:8:9]", "[12345::]", "[::1::]")
	})
}

func TestS6NumbersThatResolversReadAsAddressesAreRefused(t *testing.T) {
	checkHosts(t, policy.ReasonHostNumber,
		"127.1", "127.0.1", "1", "0", "2130706433", "017700000001", "0177.0.0.1", "0x7f000001", "0X7F000001", "0x7f.0.0.1",
		"0x7f.1", "127.0.0.0x1", "127.0.0.01", "127.0.0.001", "00.0.0.0", "127.0.0.256", "256.1.1.1", "1.2.3.4.5", "4294967296",
		"99999999999999999999", "0x", "a.0x", "a.1", "example.123", "example.0xabc", "foo.0377", "0xa9fea9fe", "0251.0376.0251.0376",
		"169.254.43518", "127.0.0.-1.1", "1.2.3.a.4", "-1.2.3.4", "_.1")
}

func TestHostAllocatesNothingForNamesAndIPv4(t *testing.T) {
	for _, host := range []string{"orders.shop.svc.cluster.local", "10.1.2.3", "LOCALHOST.", "127.1", "a b", "[name"} {
		b := []byte(host)
		if n := testing.AllocsPerRun(100, func() { _, _ = policy.Host(b) }); n != 0 {
			t.Errorf("Host(%q) allocates %v times", host, n)
		}
	}
}

func checkAddrs(t *testing.T, reason string, listenOnLoopback bool, addrs ...string) {
	t.Helper()
	for _, text := range addrs {
		err := policy.Addr(netip.MustParseAddr(text), listenOnLoopback)
		if got := reasonOf(t, err); got != reason {
			t.Errorf("Addr(%s, %v): reason %q, want %q", text, listenOnLoopback, got, reason)
		}
	}
}

// checkEverywhere checks a verdict that does not depend on the listener.
func checkEverywhere(t *testing.T, reason string, addrs ...string) {
	t.Helper()
	checkAddrs(t, reason, true, addrs...)
	checkAddrs(t, reason, false, addrs...)
}

func TestAddrAllowsOrdinaryUpstreams(t *testing.T) {
	checkEverywhere(t, "",
		"10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "100.100.100.199", "100.100.100.201", "192.0.0.191", "168.63.129.15",
		"1.1.1.1", "128.0.0.1", "169.253.255.255", "169.255.0.0", "223.255.255.255", "240.0.0.1", "255.255.255.254",
		"::ffff:10.0.0.1", "2606:4700::1111", "fd00:10:96::1", "fc00::1", "fd00:ec3::254", "fd20:ce::253", "fec0::1",
		"64:ff9b::10.0.0.1", "64:ff9b:1::10.0.0.1", "64:ff9b:1::10.0.0.0", "64:ff9b:1:a00:0:100::", "64:ff9b:1:a:0:1::", "::10.0.0.1",
		"2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2003::7f00:1")
}

func TestAddrRefusesTheZeroAddress(t *testing.T) {
	if got := reasonOf(t, policy.Addr(netip.Addr{}, true)); got != policy.ReasonAddrInvalid {
		t.Errorf("reason %q, want %q", got, policy.ReasonAddrInvalid)
	}
}

func TestAddrRefusesWhatIsNoDestination(t *testing.T) {
	checkEverywhere(t, policy.ReasonMulticast, "224.0.0.1", "239.255.255.250", "ff02::1", "ff02::1%eth0", "ff0e::1", "::ffff:224.0.0.1", "2002:e000:1::")
	checkEverywhere(t, policy.ReasonBroadcast, "255.255.255.255", "::ffff:255.255.255.255", "64:ff9b::255.255.255.255")
	checkEverywhere(t, policy.ReasonThisNetwork, "0.0.0.1", "0.255.255.255", "::ffff:0.0.0.1", "::2", "2002:0:1::")
}

func TestS1MetadataServicesAreRefused(t *testing.T) {
	checkEverywhere(t, policy.ReasonLinkLocal,
		"169.254.0.0", "169.254.1.1", "169.254.168.255", "169.254.171.0", "169.254.255.255", "fe80::1", "fe80::1%eth0", "febf:ffff::1")
	checkEverywhere(t, policy.ReasonMetadata,
		"169.254.169.0", "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.170.255", "169.254.0.23", "169.254.42.42", "fe80::a9fe:a9fe",
		"100.100.100.200", "fd00:100::100:200", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::254%eth0",
		"168.63.129.16", "fd20:ce::254", "fd00:a9fe:a9fe::1", "192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:42::42")
	checkEverywhere(t, policy.ReasonCloudLocal, "fd00:ec2::", "fd00:ec2::253", "fd00:ec2:80::1", "fd00:ec2:ffff::1")
}

func TestS2TheSameVerdictInEverySpelling(t *testing.T) {
	for _, c := range []struct{ name, form4, reason string }{
		{"link-local", "169.254.1.1", policy.ReasonLinkLocal},
		{"metadata", "169.254.169.254", policy.ReasonMetadata},
		{"metadata of Alibaba Cloud", "100.100.100.200", policy.ReasonMetadata},
		{"loopback", "127.0.0.1", policy.ReasonLoopback},
	} {
		t.Run(c.name, func(t *testing.T) {
			for form, a := range spellings(netip.MustParseAddr(c.form4).As4()) {
				if got := reasonOf(t, policy.Addr(a, false)); got != c.reason {
					t.Errorf("%s %s: reason %q, want %q", form, a, got, c.reason)
				}
				err := policy.Addr(a, true)
				if allowed := err == nil; allowed != (c.reason == policy.ReasonLoopback) {
					t.Errorf("%s %s, listening on loopback: %v", form, a, err)
				}
			}
		})
	}
	t.Run("an allowed spelling does not cover a refused one", func(t *testing.T) {
		// A Teredo address whose server is 127.0.0.1 and whose client is 169.254.169.254.
		checkAddrs(t, policy.ReasonMetadata, true, "2001:0:7f00:1:0:0:5601:5601")
	})
}

// spellings writes an IPv4 address in every form that IPv6 has for it.
func spellings(v4 [4]byte) map[string]netip.Addr {
	at := func(prefix string, xor byte, positions ...int) netip.Addr {
		b := netip.MustParseAddr(prefix).As16()
		for i, p := range positions {
			b[p] = v4[i] ^ xor
		}
		return netip.AddrFrom16(b)
	}
	return map[string]netip.Addr{
		"plain":               netip.AddrFrom4(v4),
		"mapped":              at("::ffff:0:0", 0, 12, 13, 14, 15),
		"mapped with a zone":  at("::ffff:0:0", 0, 12, 13, 14, 15).WithZone("eth0"),
		"compatible":          at("::", 0, 12, 13, 14, 15),
		"translated":          at("::ffff:0:0:0", 0, 12, 13, 14, 15),
		"NAT64":               at("64:ff9b::", 0, 12, 13, 14, 15),
		"NAT64 with a zone":   at("64:ff9b::", 0, 12, 13, 14, 15).WithZone("eth0"),
		"local NAT64 /96":     at("64:ff9b:1::", 0, 12, 13, 14, 15),
		"local NAT64 /96 sub": at("64:ff9b:1:fffe:0:1::", 0, 12, 13, 14, 15),
		"local NAT64 /48":     at("64:ff9b:1::", 0, 6, 7, 9, 10),
		"local NAT64 /56":     at("64:ff9b:1::", 0, 7, 9, 10, 11),
		"local NAT64 /64":     at("64:ff9b:1::", 0, 9, 10, 11, 12),
		"6to4":                at("2002::", 0, 2, 3, 4, 5),
		"6to4 with a host":    at("2002:0:0:1::1", 0, 2, 3, 4, 5),
		"Teredo server":       at("2001::3fff:fdd2", 0, 4, 5, 6, 7),
		"Teredo client":       at("2001:0:4136:e378::", 0xff, 12, 13, 14, 15),
	}
}

func TestS3UnspecifiedAddressesGetTheLoopbackVerdict(t *testing.T) {
	addrs := []string{"127.0.0.1", "127.255.255.254", "::1", "::1%lo", "0.0.0.0", "::", "::%lo", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "64:ff9b::0.0.0.0"}
	checkAddrs(t, policy.ReasonLoopback, false, addrs...)
	checkAddrs(t, "", true, addrs...)
}

func TestARefusalNamesTheAddressAndWhereItLeads(t *testing.T) {
	err := policy.Addr(netip.MustParseAddr("64:ff9b::a9fe:a9fe%eth0"), true)
	for _, part := range []string{"64:ff9b::a9fe:a9fe leads to 169.254.169.254,", "metadata service", "NO_PROXY", "CARPOOL_ALLOW_METADATA"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func TestS7CarpoolKnowsItselfByEveryAlias(t *testing.T) {
	podIP := netip.MustParseAddr("10.1.2.3")
	local := func(a netip.Addr) bool { return a == podIP || a == netip.MustParseAddr("fe80::1") }
	for _, c := range []struct {
		listener     string
		self, others []string
	}{
		{
			listener: "127.0.0.1:3128",
			self:     []string{"127.0.0.1:3128", "0.0.0.0:3128", "[::]:3128", "[::ffff:127.0.0.1]:3128", "[::ffff:0.0.0.0]:3128", "[64:ff9b::7f00:1]:3128"},
			others:   []string{"127.0.0.1:3129", "127.0.0.2:3128", "[::1]:3128", "10.1.2.3:3128", "10.9.9.9:3128"},
		},
		{
			listener: "[::1]:3128",
			self:     []string{"[::1]:3128", "[::1%lo]:3128", "[::]:3128", "0.0.0.0:3128"},
			others:   []string{"127.0.0.1:3128", "[::2]:3128"},
		},
		{
			listener: "[::]:9128",
			self: []string{"127.0.0.1:9128", "127.0.0.2:9128", "[::1]:9128", "0.0.0.0:9128", "[::]:9128", "10.1.2.3:9128",
				"[::ffff:10.1.2.3]:9128", "[fe80::1%eth0]:9128"},
			others: []string{"10.9.9.9:9128", "10.1.2.3:9129", "127.0.0.1:80"},
		},
		{
			listener: "0.0.0.0:9128",
			self:     []string{"127.0.0.1:9128", "[::1]:9128", "10.1.2.3:9128", "[::]:9128"},
			others:   []string{"10.9.9.9:9128"},
		},
		{
			listener: "10.1.2.3:9128",
			self:     []string{"10.1.2.3:9128", "[::ffff:10.1.2.3]:9128"},
			others:   []string{"127.0.0.1:9128", "0.0.0.0:9128", "10.1.2.4:9128"},
		},
		{
			listener: "[::ffff:127.0.0.1]:3128",
			self:     []string{"127.0.0.1:3128"},
			others:   []string{"127.0.0.2:3128"},
		},
	} {
		listeners := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort(c.listener)}
		for _, dst := range c.self {
			if !policy.Self(netip.MustParseAddrPort(dst), listeners, local) {
				t.Errorf("listening on %s, %s is not recognised", c.listener, dst)
			}
		}
		for _, dst := range c.others {
			if policy.Self(netip.MustParseAddrPort(dst), listeners, local) {
				t.Errorf("listening on %s, %s is taken for carpool", c.listener, dst)
			}
		}
	}
	t.Run("no listener and no local function", func(t *testing.T) {
		dst := netip.MustParseAddrPort("10.1.2.3:80")
		if policy.Self(dst, nil, nil) || policy.Self(dst, []netip.AddrPort{netip.MustParseAddrPort("[::]:80")}, nil) {
			t.Error("an unknown address is taken for carpool")
		}
	})
}

// FuzzHost holds the promise that a resolver never sees an address in what Host calls a name, and that the address
// which Host returns is the one that every resolver would read. Then judging the returned address judges the text.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{
		"", "localhost", "example.com.", "10.1.2.3", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x", "1.2.3.4.", "a.1",
		"169.254.43518", "0251.0376.0251.0376", "[::1]", "[::ffff:169.254.169.254]", "[fe80::1%25eth0]", "[name]", "bücher", "::1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, host []byte) {
		a, err := policy.Host(host)
		if err != nil {
			reasonOf(t, err)
			return
		}
		text := string(host)
		if inner, ok := strings.CutPrefix(text, "["); ok {
			want, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
			if err != nil || want.Unmap() != a || want.Zone() != "" {
				t.Fatalf("Host(%q) = %v, but it reads as %v, %v", text, a, want, err)
			}
			return
		}
		text = strings.TrimSuffix(text, ".")
		if parsed, err := netip.ParseAddr(text); (err == nil) != a.IsValid() || parsed != a {
			t.Fatalf("Host(%q) = %v, but netip reads %v", host, a, parsed)
		}
		if parsed, ok := inetAton(text); ok != a.IsValid() || parsed != a {
			t.Fatalf("Host(%q) = %v, but inet_aton reads %v", host, a, parsed)
		}
	})
}

// inetAton reads an IPv4 address as the C library does: one to four parts, each decimal, octal or hexadecimal, of which
// the last fills all bytes that are left. Like the laxest of its kind it takes 0x for 0.
func inetAton(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, p := range parts {
		digits, base := p, 10
		if lower := strings.ToLower(p); strings.HasPrefix(lower, "0x") {
			digits, base = "0"+p[2:], 16
		} else if strings.HasPrefix(p, "0") {
			base = 8
		}
		limit := uint64(0xff)
		if i == len(parts)-1 {
			limit = 1<<(8*(5-len(parts))) - 1
		}
		n, err := strconv.ParseUint(digits, base, 32)
		if err != nil || n > limit {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			sum = sum<<(8*(4-i)) | n
		} else {
			sum = sum<<8 | n
		}
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}
