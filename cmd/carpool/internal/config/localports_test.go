package config_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

func TestAllThatIsWrongWithLocalPortsIsNamed(t *testing.T) {
	for text, want := range map[string][]string{
		"9001=https://a/v1":                   {`not "9001=https://a/v1"`, "without a path"},
		"9001":                                {`not "9001"`},
		"0=a,9001=b,x=c,70000=d":              {`"0=a", "x=c", "70000=d"`},
		"9001=a,9001=b":                       {"not twice 9001"},
		"9001=a,9001=b,9002=,9003=a, 09003=b": {`not "9002="`, "not twice 9001, 9003"},
		"3128=a":                              {"other ports than those of CARPOOL_LISTEN"},
		"9001=a,9128=b":                       {"other ports than those of CARPOOL_LISTEN"},
	} {
		_, _, err := config.Load([]string{"CARPOOL_LOCAL_PORTS=" + text, "CARPOOL_VIA=maybe"})
		if err == nil || !strings.Contains(err.Error(), "CARPOOL_VIA") {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in %v", text, w, err)
			}
		}
	}
}

func TestALocalPortMayBeAnyPortWhereTheProxyHasAnyFreeOne(t *testing.T) {
	c := load(t, "CARPOOL_LISTEN=127.0.0.1:0", "CARPOOL_LOCAL_PORTS=3128=orders,9001=orders")
	if got := c.LocalPorts.String(); got != "3128=http://orders:80,9001=http://orders:80" {
		t.Errorf("%q", got)
	}
}
