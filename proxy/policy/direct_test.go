package policy_test

import (
	"net/netip"
	"testing"

	"github.com/carpoolproxy/carpool/proxy/policy"
)

func TestC32WhatGoesDirectly(t *testing.T) {
	var patterns []policy.HostPattern
	for _, s := range []string{"example.com", ".svc", ".cluster.local", "api.test:8443", "192.0.2.7", "[2001:db8::7]:80"} {
		p, ok := policy.ParseHostPattern(s)
		if !ok {
			t.Fatal(s)
		}
		patterns = append(patterns, p)
	}
	d := policy.NewDirect(patterns, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	for _, c := range []struct {
		host string
		port uint16
		want bool
	}{
		{"example.com", 80, true}, {"example.com.", 443, true}, {"www.example.com", 80, true}, {"a.b.example.com", 80, true},
		{"notexample.com", 80, false}, {"example.com.evil.test", 80, false}, {"com", 80, true}, // without a dot
		{"orders.shop.svc", 8080, true}, {"orders.shop.svc.cluster.local", 8080, true}, {"orders.shop.svc.cluster.local.", 8080, true},
		{"svc", 80, true}, {"orders", 80, true}, {"orders.", 80, true}, {"orders.shop", 80, false},
		{"api.test", 8443, true}, {"v1.api.test", 8443, true}, {"api.test", 443, false},
		{"localhost", 80, true}, {"localhost.", 80, true}, {"a.localhost", 80, true}, {"notlocalhost.test", 80, false},
		{"127.0.0.1", 80, true}, {"127.9.9.9", 80, true}, {"0.0.0.0", 80, true}, {"::1", 80, true}, {"::", 80, true}, {"::ffff:127.0.0.1", 80, true},
		{"10.1.2.3", 80, true}, {"::ffff:10.1.2.3", 80, true}, {"11.1.2.3", 80, false}, {"fd12::1", 80, true}, {"fe12::1", 80, false},
		{"192.0.2.7", 80, true}, {"192.0.2.8", 80, false}, {"2001:db8::7", 80, true}, {"2001:db8::7", 81, false},
		{"10.1.2.3.nip.io", 80, false}, // a name, whatever it leads to
	} {
		addr, _ := netip.ParseAddr(c.host)
		if got := d.Has([]byte(c.host), addr, c.port); got != c.want {
			t.Errorf("%s:%d goes directly: %v, want %v", c.host, c.port, got, c.want)
		}
	}
	var none policy.Direct
	if none.Has([]byte("example.com"), netip.Addr{}, 80) || !none.Has([]byte("orders"), netip.Addr{}, 80) {
		t.Error("the zero value has something other than what is built in")
	}
	if n := testing.AllocsPerRun(100, func() { d.Has([]byte("a.b.example.org"), netip.Addr{}, 80) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestC36NamesThatSomebodyElseResolves(t *testing.T) {
	t.Parallel()
	var none, open policy.Rules
	open.AllowMetadata = true
	for _, name := range policy.Exemptions().Names {
		if d := none.HandedOn([]byte(name)); d == nil || d.Reason != policy.ReasonMetadata {
			t.Errorf("%s is handed on: %v", name, d)
		}
		if d := open.HandedOn([]byte(name)); d != nil {
			t.Errorf("%s is not handed on, although it is allowed: %v", name, d)
		}
	}
	if d := none.HandedOn([]byte("example.com")); d != nil {
		t.Errorf("example.com: %v", d)
	}
}
