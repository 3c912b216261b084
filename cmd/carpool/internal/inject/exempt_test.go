package inject_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/charts"
	"github.com/carpoolproxy/carpool/proxy/policy"
	"go.yaml.in/yaml/v3"
)

// Where the definition of the sidecar has what is exempt.
var (
	noProxyLine   = regexp.MustCompile(`(define "carpool.noProxy" -}}\n).*`)
	nonProxyHosts = regexp.MustCompile(`(-Dhttp\.nonProxyHosts=)[^%]*`)
)

// TestS1TheDefinitionExemptsWhatThePolicyRefuses keeps the definition to the
// policy's list. With -update it writes the definition.
func TestS1TheDefinitionExemptsWhatThePolicyRefuses(t *testing.T) {
	e := policy.Exemptions()
	want := charts.Sidecar
	for at, with := range map[*regexp.Regexp]string{
		noProxyLine:   "localhost,127.0.0.1,::1," + e.NoProxy() + ",kubernetes.default.svc,$(KUBERNETES_SERVICE_HOST)",
		nonProxyHosts: "localhost|127.*|[::1]|" + e.NonProxyHosts() + "|kubernetes.default.svc",
	} {
		if n := len(at.FindAllString(want, -1)); n != 1 {
			t.Fatalf("%v is there %d times, want once", at, n)
		}
		want = at.ReplaceAllString(want, "${1}"+strings.ReplaceAll(with, "$", "$$"))
	}
	if *update {
		if err := os.WriteFile(filepath.Join("../../../../charts/carpool-lib/templates/_sidecar.tpl"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want != charts.Sidecar {
		t.Error("charts/carpool-lib/templates/_sidecar.tpl is out of date: run go test ./cmd/carpool/internal/inject -update, then the same in .ci/charts")
	}
}

// envOf returns the environment of the first container of a pod.
func envOf(t *testing.T, manifest string) map[string]string {
	t.Helper()
	var pod struct {
		Spec struct {
			Containers []struct {
				Env []struct{ Name, Value string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(manifest), &pod); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, v := range pod.Spec.Containers[0].Env {
		env[v.Name] = v.Value
	}
	return env
}

// exemptByNoProxy reads NO_PROXY as the plainest of clients do: an entry is a
// name, for it and what is below it, or an address; there are no ranges.
func exemptByNoProxy(list, host string) bool {
	for entry := range strings.SplitSeq(list, ",") {
		if host == entry || strings.HasSuffix(host, "."+strings.TrimPrefix(entry, ".")) {
			return true
		}
	}
	return false
}

// exemptByJava reads http.nonProxyHosts as Java does: * stands for any text, at
// the beginning or the end, and the host is that of the URL, with its brackets.
func exemptByJava(list, host string) bool {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	for entry := range strings.SplitSeq(list, "|") {
		if head, ok := strings.CutSuffix(entry, "*"); ok && strings.HasPrefix(host, head) || host == entry {
			return true
		}
	}
	return false
}

// TestS1WhatIsRefusedIsExempt asks whether an app gets its credentials beside
// carpool as it did alone: where carpool refuses to go, the app goes by itself.
func TestS1WhatIsRefusedIsExempt(t *testing.T) {
	env := envOf(t, run(aPod(), "inject", "-f", "-", "--java").stdout)
	_, java, _ := strings.Cut(env["JAVA_TOOL_OPTIONS"], "-Dhttp.nonProxyHosts=")
	e := policy.Exemptions()
	hosts := e.Names
	for _, a := range e.Addrs {
		if policy.Addr(a, true) == nil {
			t.Errorf("%s is exempt, but not refused: it could be pooled", a)
		}
		hosts = append(hosts, a.String())
	}
	for _, host := range hosts {
		for _, name := range []string{"NO_PROXY", "no_proxy"} {
			if !exemptByNoProxy(env[name], host) {
				t.Errorf("%s has no %s: %s", name, host, env[name])
			}
		}
		if !exemptByJava(java, host) {
			t.Errorf("Java's list has no %s: %s", host, java)
		}
	}
	for _, r := range e.Ranges {
		if policy.Addr(r.Addr(), true) == nil {
			t.Errorf("%s is not refused", r)
		}
		// Those of IPv6 end some clients, and fe80::/10 cannot be asked for.
		if r.Addr().Is4() && !strings.Contains(","+env["NO_PROXY"]+",", ","+strings.TrimSuffix(r.String(), "/32")+",") {
			t.Errorf("NO_PROXY has no %s: %s", r, env["NO_PROXY"])
		}
		called := r == netip.MustParsePrefix("fe80::/10")
		for _, a := range e.Addrs {
			called = called || r.Contains(a)
		}
		if !called {
			t.Errorf("%s is refused, and it is not known where clients call it", r)
		}
	}
}

func TestNoProxyEntriesThatEndSomeClientsAreRefused(t *testing.T) {
	good := []string{
		"a", "a.example.com", ".a.example.com", "*.a.example.com", "a.example.com.", "a_b-c.x", "A", "a:8080", ".a:80", "10.0.0.1", "10.0.0.1:80",
		"10.0.0.0/8", "0.0.0.0/0", "10.0.0.1/32", "fd00::1", "::1", "2001:DB8:0:0:0:0:0:1", "$(HOST_IP)", "", " a , ,.b ",
	}
	bad := []string{
		"[::1]", "[fd00::1]:80", "fd00::/8", "fd00::1/128", "fe80::1%eth0", "::ffff:10.0.0.1", "1::2::3", "a;b", "a b", "a|b", "http://a", "https://a/b", "a/b", "a:b",
		"a:", "10.0.0.0/33", "10.0.0.0/", "10.*", "*", "**.a", "ä.de", "-a", "a@b", `"a"`, "'a'", "$HOST", "${HOST}", "a\tb", "a#b", "a?b", "<local>",
	}
	for _, entry := range good {
		if got := run(aPod(), "inject", "-f", "-", "--no-proxy", entry); got.code != 0 || got.stderr != "" {
			t.Errorf("%q: %+v", entry, got)
		}
	}
	for _, entry := range bad {
		want := "want names, IP addresses without brackets and IPv4 ranges, with commas between them, not "
		if got := run(aPod(), "inject", "-f", "-", "--no-proxy", "a,"+entry); got.code != 2 || !strings.Contains(got.stderr, want) {
			t.Errorf("option %q: %+v", entry, got)
		}
		quoted, err := yaml.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		in := annotated(prefix + "no-proxy: " + strings.TrimSpace(string(quoted)))
		if got := run(in, "inject", "-f", "-"); got.code != 1 || !strings.Contains(got.stderr, prefix+"no-proxy: "+want) {
			t.Errorf("annotation %q: %+v", entry, got)
		}
	}
}

func TestAContainersOwnNoProxyIsExtendedOrTold(t *testing.T) {
	const ours = "http://127.0.0.1:3128"
	list := envOf(t, run(aPod(), "inject", "-f", "-").stdout)["NO_PROXY"]
	cases := map[string]struct {
		env  string            // entries
		want map[string]string // what becomes of NO_PROXY and no_proxy
		note string
	}{
		"extended":              {`{name: NO_PROXY, value: a.example.com}`, map[string]string{"NO_PROXY": "a.example.com," + list}, ""},
		"in both spellings":     {`{name: NO_PROXY, value: a}, {name: no_proxy, value: b}`, map[string]string{"NO_PROXY": "a," + list, "no_proxy": "b," + list}, ""},
		"empty":                 {`{name: no_proxy, value: ""}`, map[string]string{"no_proxy": list}, ""},
		"has it":                {`{name: NO_PROXY, value: "a,` + list + `,b"}`, map[string]string{"NO_PROXY": "a," + list + ",b"}, ""},
		"beside carpool's":      {`{name: HTTP_PROXY, value: "` + ours + `"}, {name: NO_PROXY, value: a}`, map[string]string{"NO_PROXY": "a," + list}, ""},
		"no proxy for any host": {`{name: NO_PROXY, value: "*"}`, map[string]string{"NO_PROXY": "*"}, ""},
		"from elsewhere":        {`{name: NO_PROXY, valueFrom: {secretKeyRef: {name: s, key: k}}}`, map[string]string{"NO_PROXY": ""}, "container a gets NO_PROXY from elsewhere: put " + list},
		"beside another proxy":  {`{name: http_proxy, value: "http://corp:3128"}, {name: NO_PROXY, value: a}`, map[string]string{"NO_PROXY": "a"}, "container a has a proxy of its own"},
		"another proxy, alone":  {`{name: HTTP_PROXY, value: "http://corp:3128"}`, map[string]string{}, "CARPOOL_NEXT_PROXY=http://corp:3128"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := aPod() + "      env: [" + c.env + "]\n"
			out := run(in, "inject", "-f", "-")
			if out.code != 0 || (out.stderr == "") != (c.note == "") || !strings.Contains(out.stderr, c.note) {
				t.Errorf("code %d, notes %q, want one with %q", out.code, out.stderr, c.note)
			}
			got := envOf(t, out.stdout)
			maps.DeleteFunc(got, func(name, _ string) bool { return !strings.EqualFold(name, "NO_PROXY") })
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v\nwant %v", got, c.want)
			}
			if again := run(out.stdout, "inject", "-f", "-"); again.stdout != out.stdout {
				t.Errorf("twice is not once:\n%s", again.stdout)
			}
		})
	}
}
