package config_test

import (
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

func TestC39ANextProxyInEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"http://proxy.corp:8080":  "http://proxy.corp:8080",
		"HTTPS://Proxy.Corp/":     "https://proxy.corp:443",
		"http://[2001:DB8::1]:80": "http://[2001:db8::1]:80",
		"http://10.0.0.7":         "http://10.0.0.7:80",
	} {
		if got := load(t, "CARPOOL_NEXT_PROXY="+text).NextProxy.String(); got != want {
			t.Errorf("%s is read as %s, want %s", text, got, want)
		}
	}
	if got := load(t).NextProxy; got != (config.NextProxy{}) || got.String() != "" {
		t.Errorf("without a setting there is %v", got)
	}
}

// C37: credentials in the wrong place are not repeated, and the right one is named.
func TestC37CredentialsInAURLAreNotShown(t *testing.T) {
	for _, setting := range []string{
		"NEXT_PROXY=http://user:s3cret@proxy.corp:8080", "NEXT_PROXY=user:s3cret@proxy.corp", "NEXT_PROXY=http://s3c/r@et@proxy.corp",
		"NEXT_NO_PROXY=http://user:s3cret@x", "ALLOW_HOSTS=s3cret@x",
	} {
		_, _, err := config.Load([]string{"CARPOOL_" + setting})
		if err == nil || strings.Contains(err.Error(), "s3c") || strings.Contains(err.Error(), "et@") {
			t.Errorf("%s: %v", setting, err)
		}
		if strings.HasPrefix(setting, "NEXT_PROXY") && !strings.Contains(err.Error(), "CARPOOL_NEXT_PROXY_AUTH_FILE") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

func TestC39ANextProxyThatIsCarpoolItself(t *testing.T) {
	for _, c := range []struct {
		listen, proxy string
		bad           bool
	}{
		{"127.0.0.1:3128", "http://127.0.0.1:3128", true}, {"127.0.0.1:3128", "http://localhost:3128", true},
		{"127.0.0.1:3128", "https://LOCALHOST.:3128/", true}, {"127.0.0.1:3128", "http://0.0.0.0:3128", true},
		{"127.0.0.1:3128", "http://[::ffff:127.0.0.1]:3128", true}, {":3128", "http://127.0.0.9:3128", true}, {"[::1]:3128", "http://[::1]:3128", true},
		{"127.0.0.1:3128", "http://127.0.0.1:9128", true}, // the admin port
		{"127.0.0.1:3128", "http://127.0.0.1:3129", false}, {"127.0.0.1:3128", "http://127.0.0.2:3128", false}, {"127.0.0.1:3128", "http://proxy.corp:3128", false},
	} {
		_, _, err := config.Load([]string{"CARPOOL_LISTEN=" + c.listen, "CARPOOL_NEXT_PROXY=" + c.proxy})
		if (err != nil) != c.bad || c.bad && !strings.Contains(err.Error(), "CARPOOL_NEXT_PROXY=") {
			t.Errorf("%s, listening on %s: %v", c.proxy, c.listen, err)
		}
	}
}

func TestC32WhatGoesWithoutTheNextProxyInEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       ".svc,.cluster.local",
		" corp.example , *.a.test:81,10.1.2.3/8": "corp.example,.a.test:81,10.0.0.0/8",
		"10.0.0.7,2001:db8::7,[::1]:80":          "[::1]:80,10.0.0.7/32,2001:db8::7/128",
	} {
		if got := load(t, "CARPOOL_NEXT_NO_PROXY="+text).NextNoProxy.String(); got != want {
			t.Errorf("%q is read as %s, want %s", text, got, want)
		}
	}
}
