package config_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

func TestHostsMatchExactlyOrBelow(t *testing.T) {
	for pattern, c := range map[string]struct{ yes, no []string }{
		"legacy":           {[]string{"legacy 80", "legacy 8080", "LEGACY 80", "legacy. 80"}, []string{"legacy2 80", "a.legacy 80", "legacy.a 80", "egacy 80"}},
		"legacy:8080":      {[]string{"legacy 8080"}, []string{"legacy 80", "a.legacy 8080"}},
		".old.example":     {[]string{"a.old.example 80", "b.a.old.example 1", "A.Old.Example. 80"}, []string{"old.example 80", "bold.example 80", "old.example.a 80"}},
		".old.example:81":  {[]string{"a.old.example 81"}, []string{"a.old.example 80"}},
		".Old.Example.":    {[]string{"a.old.example 80"}, nil},
		"10.0.0.7":         {[]string{"10.0.0.7 80"}, []string{"10.0.0.70 80", "110.0.0.7 80"}},
		"[2001:DB8:0::1]":  {[]string{"2001:db8::1 80"}, []string{"2001:db8::2 80"}},
		"[::1]:80":         {[]string{"::1 80"}, []string{"::1 81"}},
		"[::ffff:1.2.3.4]": {[]string{"1.2.3.4 80"}, nil},
		"a, b:1 ,.c":       {[]string{"a 80", "b 1", "x.c 80"}, []string{"b 2", "c 80", "d 80"}},
	} {
		var h config.Hosts
		if err := h.UnmarshalText([]byte(pattern)); err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		for want, upstreams := range map[bool][]string{true: c.yes, false: c.no} {
			for _, u := range upstreams {
				host, port, _ := strings.Cut(u, " ")
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					t.Fatal(err)
				}
				if h.Match(host, uint16(n)) != want {
					t.Errorf("%s matches %s: %v", pattern, u, !want)
				}
			}
		}
	}
	if config.Hosts(nil).Match("a", 80) {
		t.Error("no pattern matches something")
	}
}
