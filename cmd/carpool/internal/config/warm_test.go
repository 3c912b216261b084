package config_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

// Host and port are as the proxy finds them in requests, or what is warm would not
// be what is used.
func TestWarmNamesOriginsAsRequestsDo(t *testing.T) {
	for text, want := range map[string]config.Origin{
		"orders":                {Host: "orders", Port: 80},
		"Orders:8080":           {Host: "orders", Port: 8080},
		"orders.shop.:080":      {Host: "orders.shop.", Port: 80},
		"http://orders":         {Host: "orders", Port: 80},
		"HTTPS://API.example":   {TLS: true, Host: "api.example", Port: 443},
		"https://orders:80":     {TLS: true, Host: "orders", Port: 80},
		"10.0.0.7":              {Host: "10.0.0.7", Port: 80},
		"https://[2001:DB8::0]": {TLS: true, Host: "2001:db8::", Port: 443},
		"[::1]:81":              {Host: "::1", Port: 81},
	} {
		var got config.Warm
		if err := got.UnmarshalText([]byte(text + "=3")); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, config.Warm{{Origin: want, Conns: 3}}) {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestAllBadEntriesOfWarmAreNamed(t *testing.T) {
	_, _, err := config.Load([]string{"CARPOOL_WARM=a=0, b=1,c,d:99999=1"})
	if err == nil || !strings.Contains(err.Error(), `: not "a=0", "c", "d:99999=1": want upstreams, each with the number`) {
		t.Errorf("%v", err)
	}
}
