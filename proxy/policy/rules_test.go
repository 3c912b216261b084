package policy_test

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

// hosts makes a set of patterns with commas between them.
func hosts(t testing.TB, list string) policy.HostSet {
	t.Helper()
	return policy.NewHostSet(patterns(t, list))
}

func patterns(t testing.TB, list string) (all []policy.HostPattern) {
	t.Helper()
	for field := range strings.SplitSeq(list, ",") {
		if field == "" {
			continue
		}
		p, ok := policy.ParseHostPattern(field)
		if !ok {
			t.Fatalf("%q is no pattern", field)
		}
		all = append(all, p)
	}
	return all
}

func cidrs(list ...string) (all []netip.Prefix) {
	for _, text := range list {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// asked gives rules a host and port as a request has them: in its brackets, and read by Host first.
func asked(t testing.TB, r policy.Rules, authority string) *policy.Denied {
	t.Helper()
	colon := strings.LastIndexByte(authority, ':')
	host, digits := authority[:colon], authority[colon+1:]
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := policy.Host([]byte(host))
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	name := strings.ToLower(host)
	if addr.IsValid() {
		name = addr.String()
	}
	return r.Host([]byte(name), addr, uint16(port))
}

func reasonIn(t testing.TB, d *policy.Denied, settings ...string) string {
	t.Helper()
	if d == nil {
		return ""
	}
	for _, s := range settings {
		if !strings.Contains(d.Message, s) {
			t.Errorf("the refusal %q does not name %s", d.Message, s)
		}
	}
	if !slices.Contains(policy.Reasons(), d.Reason) {
		t.Errorf("%s is none of the reasons", d.Reason)
	}
	return d.Reason
}

func TestHostPatternsMatchExactlyOrBelow(t *testing.T) {
	for list, c := range map[string]struct{ yes, no []string }{
		"legacy":           {[]string{"legacy 80", "legacy 8080", "legacy. 80"}, []string{"legacy2 80", "a.legacy 80", "legacy.a 80", "egacy 80"}},
		"legacy:8080":      {[]string{"legacy 8080"}, []string{"legacy 80", "a.legacy 8080"}},
		".old.example":     {[]string{"a.old.example 80", "b.a.old.example 1", "a.old.example. 80"}, []string{"old.example 80", "bold.example 80", "old.example.a 80"}},
		".old.example:81":  {[]string{"a.old.example 81"}, []string{"a.old.example 80"}},
		".Old.Example.":    {[]string{"a.old.example 80"}, nil},
		"10.0.0.7":         {[]string{"10.0.0.7 80"}, []string{"10.0.0.70 80", "110.0.0.7 80", "10.0.0 80"}},
		"[2001:DB8:0::1]":  {[]string{"2001:db8::1 80"}, []string{"2001:db8::2 80"}},
		"[::1]:80":         {[]string{"::1 80"}, []string{"::1 81"}},
		"[::ffff:1.2.3.4]": {[]string{"1.2.3.4 80"}, nil},
		"a,b:1,.c":         {[]string{"a 80", "b 1", "x.c 80"}, []string{"b 2", "c 80", "d 80"}},
		"a:1,a:2":          {[]string{"a 1", "a 2"}, []string{"a 3"}},
		".a:1,.b.a:2":      {[]string{"x.b.a 1", "x.b.a 2", "b.a 1"}, []string{"x.b.a 3", "b.a 2"}},
		"":                 {nil, []string{"a 80", " 80"}},
	} {
		set := hosts(t, list)
		for want, upstreams := range map[bool][]string{true: c.yes, false: c.no} {
			for _, u := range upstreams {
				host, port, _ := strings.Cut(u, " ")
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					t.Fatal(err)
				}
				if _, got := set.Match([]byte(host), uint16(n)); got != want {
					t.Errorf("%s matches %s: %v", list, u, got)
				}
			}
		}
	}
	for _, list := range []string{"legacy:81", ".old.example", "10.0.0.7:1", "[2001:db8::1]", "[::1]:80"} {
		if p := patterns(t, list); p[0].String() != list {
			t.Errorf("%s is written %s", list, p[0])
		}
	}
}

func TestWithoutRulesEveryHostMayBeAskedFor(t *testing.T) {
	for _, authority := range []string{"example.com:80", "10.0.0.1:80", "[::1]:443", "localhost:1"} {
		if got := asked(t, policy.Rules{}, authority); got != nil {
			t.Errorf("%s: %v", authority, got)
		}
	}
	if new(policy.Rules).JudgesHosts() || new(policy.Rules).ConnectPort(22) != nil {
		t.Error("no rules judge something")
	}
}

func TestS9WhatNoEntryOfAllowHostsMatchesIsRefused(t *testing.T) {
	r := policy.Rules{AllowHosts: hosts(t, "orders,.example.com,10.0.0.7,[2001:db8::7]:8080"), AllowCIDRs: cidrs("10.1.0.0/16", "2001:db8:1::/48")}
	for authority, want := range map[string]string{
		"orders:80": "", "ORDERS:80": "", "orders.:80": "", "a.example.com:80": "", "A.EXAMPLE.COM.:443": "",
		"10.0.0.7:80": "", "[::ffff:10.0.0.7]:80": "", "[2001:db8:0::7]:8080": "", "10.1.2.3:80": "", "[::ffff:10.1.2.3]:1": "", "[2001:db8:1::9]:80": "",
		"order:80": policy.ReasonAllowHosts, "orders.shop:80": policy.ReasonAllowHosts, "example.com:80": policy.ReasonAllowHosts,
		"badexample.com:80": policy.ReasonAllowHosts, "a.example.com.evil:80": policy.ReasonAllowHosts, "10.0.0.8:80": policy.ReasonAllowHosts,
		"[2001:db8::7]:80": policy.ReasonAllowHosts, "10.2.0.0:80": policy.ReasonAllowHosts, "[64:ff9b::10.1.2.3]:80": policy.ReasonAllowHosts,
		"xn--exampl-gva.com:80": policy.ReasonAllowHosts,
	} {
		if got := reasonIn(t, asked(t, r, authority), "CARPOOL_ALLOW_HOSTS"); got != want {
			t.Errorf("%s: %q, want %q", authority, got, want)
		}
	}
}

func TestS9DenyWinsOverAllow(t *testing.T) {
	r := policy.Rules{
		AllowHosts: hosts(t, ".example.com,10.0.0.7"), DenyHosts: hosts(t, "admin.example.com,.secret.example.com,10.0.0.7,127.0.0.1"),
		AllowCIDRs: cidrs("10.0.0.0/8"), DenyCIDRs: cidrs("10.9.0.0/16"),
	}
	for authority, want := range map[string]string{
		"a.example.com:80": "", "admin.example.com:80": policy.ReasonDenyHosts, "Admin.Example.Com.:80": policy.ReasonDenyHosts,
		"x.secret.example.com:80": policy.ReasonDenyHosts, "secret.example.com:80": "",
		"10.0.0.7:80": policy.ReasonDenyHosts, "[::ffff:10.0.0.7]:80": policy.ReasonDenyHosts, "[64:ff9b::10.0.0.7]:80": policy.ReasonDenyHosts,
		"[2002:a00:7::]:80": policy.ReasonDenyHosts, "0.0.0.0:80": policy.ReasonDenyHosts, "[::]:80": policy.ReasonDenyHosts,
		"10.0.0.8:80": "",
	} {
		if got := reasonIn(t, asked(t, r, authority)); got != want {
			t.Errorf("%s: %q, want %q", authority, got, want)
		}
	}
	if got := reasonIn(t, r.Addr(netip.MustParseAddr("10.9.1.1"), true), "10.9.1.1", "10.9.0.0/16", "CARPOOL_DENY_CIDRS"); got != policy.ReasonDenyCIDRs {
		t.Errorf("an address that is allowed and denied: %q", got)
	}
}

func TestS9TheRefusalNamesTheEntryAndNotTheRequest(t *testing.T) {
	r := policy.Rules{DenyHosts: hosts(t, ".example.com:8080")}
	d := asked(t, r, "s3cret.example.com:8080")
	if reasonIn(t, d, "CARPOOL_DENY_HOSTS", " .example.com:8080 ") != policy.ReasonDenyHosts || strings.Contains(d.Message, "s3cret") {
		t.Errorf("%+v", d)
	}
}

func TestS2DeniedRangesHoldInEverySpelling(t *testing.T) {
	r := policy.Rules{DenyCIDRs: cidrs("203.0.113.0/24", "127.0.0.0/8", "2001:db8:9::/48")}
	for form, a := range spellings([4]byte{203, 0, 113, 9}) {
		if got := reasonIn(t, r.Addr(a, true)); got != policy.ReasonDenyCIDRs {
			t.Errorf("%s %s: %q", form, a, got)
		}
	}
	for text, want := range map[string]string{
		"127.0.0.1": policy.ReasonDenyCIDRs, "0.0.0.0": policy.ReasonDenyCIDRs, "::": policy.ReasonDenyCIDRs, "::ffff:0.0.0.0": policy.ReasonDenyCIDRs,
		"2001:db8:9::1": policy.ReasonDenyCIDRs, "2001:db8:9::1%eth0": policy.ReasonDenyCIDRs,
		"::1": "", "203.0.112.255": "", "203.0.114.0": "", "2001:db8:a::": "",
	} {
		if got := reasonIn(t, r.Addr(netip.MustParseAddr(text), true)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestS1AllowedRangesOpenAllButMetadata(t *testing.T) {
	for _, c := range []struct {
		name         string
		rules        policy.Rules
		open, closed []string
	}{
		{
			"VPC Lattice", policy.Rules{AllowCIDRs: cidrs("169.254.171.0/24", "fd00:ec2:80::/64")},
			[]string{"169.254.171.7", "::ffff:169.254.171.7", "64:ff9b::169.254.171.7", "fd00:ec2:80::1", "10.0.0.1"},
			[]string{"169.254.172.1", "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd00:ec2:81::1", "fe80::1", "127.0.0.1"},
		}, {
			"all that is link-local", policy.Rules{AllowCIDRs: cidrs("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")},
			[]string{"169.254.1.1", "fe80::1", "fd00:ec2::253"},
			[]string{"169.254.169.254", "169.254.169.1", "169.254.170.23", "169.254.42.42", "169.254.0.23", "fe80::a9fe:a9fe", "fd00:ec2::254", "fd00:ec2::23", "100.100.100.200"},
		}, {
			"wider than what is refused", policy.Rules{AllowCIDRs: cidrs("0.0.0.0/0", "0.0.0.0/1", "168.0.0.0/6", "::/0", "fd00::/8")},
			[]string{"10.0.0.1"},
			[]string{"169.254.1.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "::1", "fe80::1", "fd00:ec2:80::1", "224.0.0.1", "255.255.255.255", "0.0.0.1"},
		}, {
			"metadata services named one by one", policy.Rules{AllowCIDRs: cidrs("169.254.169.254/32", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")},
			nil, []string{"169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"},
		}, {
			"the setting for metadata", policy.Rules{AllowMetadata: true},
			[]string{"169.254.169.254", "169.254.170.2", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"},
			[]string{"169.254.171.1", "fd00:ec2:80::1", "fe80::1", "127.0.0.1"},
		}, {
			"loopback", policy.Rules{AllowCIDRs: cidrs("127.0.0.1/32", "::1/128")},
			[]string{"127.0.0.1", "::1", "::ffff:127.0.0.1"}, []string{"127.0.0.2", "0.0.0.0", "::"},
		}, {
			"denied besides", policy.Rules{AllowCIDRs: cidrs("169.254.171.0/24"), AllowMetadata: true, DenyCIDRs: cidrs("169.254.0.0/16")},
			nil, []string{"169.254.171.7", "169.254.169.254"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for denied, list := range map[bool][]string{false: c.open, true: c.closed} {
				for _, text := range list {
					if d := c.rules.Addr(netip.MustParseAddr(text), false); (d != nil) != denied {
						t.Errorf("%s: %v", text, d)
					}
				}
			}
		})
	}
}

func TestAllowedRangesThatHaveNoEffectAreTold(t *testing.T) {
	ranges := cidrs("10.0.0.0/8", "169.254.171.0/24", "0.0.0.0/0", "fd00:ec2:80::/64")
	if got := (&policy.Rules{AllowCIDRs: ranges}).Idle(); !slices.Equal(got, cidrs("10.0.0.0/8", "0.0.0.0/0")) {
		t.Errorf("without hosts: %v", got)
	}
	if got := (&policy.Rules{AllowCIDRs: ranges, AllowHosts: hosts(t, "a")}).Idle(); len(got) > 0 {
		t.Errorf("with hosts: %v", got)
	}
}

func TestOnlyRulesThatAreSetAreConfigured(t *testing.T) {
	configured := []string{policy.ReasonAllowHosts, policy.ReasonDenyHosts, policy.ReasonDenyCIDRs, policy.ReasonConnectPorts}
	for _, reason := range policy.Reasons() {
		if d := (&policy.Denied{Reason: reason}); d.Configured() != slices.Contains(configured, reason) {
			t.Errorf("%s: %v", reason, d.Configured())
		}
	}
	var d *policy.Denied
	if _, err := policy.Host([]byte("127.1")); !errors.As(err, &d) || d.Configured() {
		t.Errorf("a malformed host: %v", err)
	}
}

func TestAllowedHostsCostNoMemory(t *testing.T) {
	r := policy.Rules{
		AllowHosts: hosts(t, "a.example,.svc.cluster.local,10.0.0.7,[2001:db8::7]"), DenyHosts: hosts(t, ".bad.example,10.0.0.8"),
		AllowCIDRs: cidrs("10.1.0.0/16"), DenyCIDRs: cidrs("10.9.0.0/16"),
	}
	for _, name := range []string{"a.example", "orders.shop.svc.cluster.local.", "10.0.0.7", "10.1.2.3", "2001:db8::7"} {
		host := []byte(name)
		addr, _ := netip.ParseAddr(name)
		if n := testing.AllocsPerRun(100, func() {
			if r.Host(host, addr, 80) != nil {
				t.Fatal("refused")
			}
		}); n != 0 {
			t.Errorf("%s costs %v allocations", name, n)
		}
	}
}

// FuzzHostSet holds the set to patterns that are looked through one by one.
func FuzzHostSet(f *testing.F) {
	for _, seed := range [][2]string{
		{"legacy,.old.example:81,10.0.0.7", "a.old.example."}, {".a,a,.b.a:80,b.a:81", "b.a"}, {"[::1]:80,.com", "::1"}, {".a.b.c.d", "x.a.b.c.d"},
		{"10.0.0.7", "10.0.0.7."}, {".", ".."}, {"a.", "a"},
	} {
		f.Add(seed[0], seed[1], uint16(80))
	}
	f.Fuzz(func(t *testing.T, list, host string, port uint16) {
		var all []policy.HostPattern
		for field := range strings.SplitSeq(list, ",") {
			if p, ok := policy.ParseHostPattern(field); ok {
				if again, ok := policy.ParseHostPattern(p.String()); !ok || again != p {
					t.Fatalf("%q is read as %+v and, written as %q, as %+v", field, p, p, again)
				}
				all = append(all, p)
			}
		}
		host = strings.ToLower(host)
		want := slices.ContainsFunc(all, func(p policy.HostPattern) bool { return matchesOne(p, host, port) })
		p, got := policy.NewHostSet(all).Match([]byte(host), port)
		if got != want || got && !matchesOne(p, host, port) {
			t.Fatalf("%v match %q on %d: %v by %v, want %v", all, host, port, got, p, want)
		}
	})
}

// matchesOne compares labels, from the last to the first.
func matchesOne(p policy.HostPattern, host string, port uint16) bool {
	if p.Port != 0 && p.Port != port {
		return false
	}
	host = strings.TrimSuffix(host, ".")
	if !p.Below {
		return host == p.Name
	}
	have, want := strings.Split(host, "."), strings.Split(p.Name, ".")
	for len(want) > 0 {
		if len(have) == 0 || have[len(have)-1] != want[len(want)-1] {
			return false
		}
		have, want = have[:len(have)-1], want[:len(want)-1]
	}
	return len(have) > 0
}

func TestWhatAllowsAHostOrOpensAnAddressIsNamed(t *testing.T) {
	t.Parallel()
	none := policy.Rules{AllowCIDRs: cidrs("10.0.0.0/8")}
	some := policy.Rules{AllowHosts: hosts(t, "orders,.example.com:443"), AllowCIDRs: cidrs("0.0.0.0/0", "10.0.0.0/8", "169.254.171.0/24"), AllowMetadata: true}
	for _, c := range []struct {
		r              policy.Rules
		host           string
		port           uint16
		setting, entry string
	}{
		{none, "orders", 80, "", ""},
		{none, "10.0.0.7", 80, "", ""},
		{some, "orders", 80, "CARPOOL_ALLOW_HOSTS", "orders"},
		{some, "a.example.com", 443, "CARPOOL_ALLOW_HOSTS", ".example.com:443"},
		{some, "10.0.0.7", 80, "CARPOOL_ALLOW_CIDRS", "0.0.0.0/0"},
		{some, "elsewhere", 80, "", ""},
	} {
		addr, _ := netip.ParseAddr(c.host)
		if setting, entry := c.r.HostAllowedBy([]byte(c.host), addr, c.port); setting != c.setting || entry != c.entry {
			t.Errorf("%s:%d: %s of %s", c.host, c.port, entry, setting)
		}
	}
	for addr, want := range map[string]string{
		"10.0.0.7": "", "127.0.0.1": "", "169.254.1.1": "", "169.254.171.9": "CARPOOL_ALLOW_CIDRS=169.254.171.0/24",
		"::ffff:169.254.171.9": "CARPOOL_ALLOW_CIDRS=169.254.171.0/24", "169.254.169.254": "CARPOOL_ALLOW_METADATA=true",
	} {
		setting, entry := some.AddrOpenedBy(netip.MustParseAddr(addr), true)
		if got := strings.TrimSuffix(setting+"="+entry, "="); got != want {
			t.Errorf("%s is opened by %q, want %q", addr, got, want)
		}
	}
}
