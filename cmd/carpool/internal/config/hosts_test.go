package config_test

import (
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

func TestRangesOfAddressesInEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":              "10.0.0.0/8",
		"10.1.2.3/8":              "10.0.0.0/8",
		" 10.0.0.0/8 , fd00::/8 ": "10.0.0.0/8,fd00::/8",
		"192.0.2.7":               "192.0.2.7/32",
		"2001:DB8::7":             "2001:db8::7/128",
		"::ffff:10.0.0.0/104":     "10.0.0.0/8",
		"::ffff:10.0.0.7":         "10.0.0.7/32",
		"0.0.0.0/0,::/0":          "0.0.0.0/0,::/0",
	} {
		var c config.CIDRs
		if err := c.UnmarshalText([]byte(text)); err != nil || c.String() != want {
			t.Errorf("%q is read as %s, %v", text, c, err)
		}
	}
	for _, text := range []string{"", ",", "10.0.0.0/8,", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "010.0.0.0/8", "10.0.0.0/08", "10.0.0.0/-1",
		"::1/129", "[::1]/128", "[::1]", "fe80::1%eth0", "fe80::1%eth0/64", "::ffff:10.0.0.0/95", "::ffff:10.0.0.0/8", "example.com", "10.0.0.0-10.0.0.9"} {
		var c config.CIDRs
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %s", text, c)
		}
	}
}
