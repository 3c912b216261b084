package config_test

import (
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

// companions are what some settings are nothing without.
var companions = map[string][]string{
	"CLIENT_KEY_FILE":   {"CARPOOL_CLIENT_CERT_FILE=/tls/tls.crt"},
	"CLIENT_CERT_HOSTS": {"CARPOOL_CLIENT_CERT_FILE=/tls/tls.crt"},
}

func TestSomeSettingsAreNothingAlone(t *testing.T) {
	_, _, err := config.Load([]string{"CARPOOL_CLIENT_KEY_FILE=/k", "CARPOOL_CLIENT_CERT_HOSTS=a"})
	for name := range companions {
		if err == nil || !strings.Contains(err.Error(), "CARPOOL_"+name) || strings.Count(err.Error(), "want CARPOOL_CLIENT_CERT_FILE too") != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// load fails the test if environ is not taken without complaint.
func load(t *testing.T, environ ...string) config.Config {
	t.Helper()
	c, unknown, err := config.Load(environ)
	if err != nil || len(unknown) > 0 {
		t.Fatalf("Load(%q): unknown %v, error %v", environ, unknown, err)
	}
	return c
}

func defaults() config.Config {
	return config.Config{
		Listen:              "127.0.0.1:3128",
		AdminListen:         ":9128",
		LogLevel:            zapcore.InfoLevel,
		LogFormat:           config.LogJSON,
		AccessLog:           config.AccessErrors,
		IdleTimeout:         50 * time.Second,
		MaxConnAge:          20 * time.Second,
		MaxConnAgeJitter:    0.2,
		Balance:             config.BalanceSpread,
		HTTP2:               config.HTTP2Off,
		MaxPendingPerHost:   1024,
		PendingTimeout:      10 * time.Second,
		MaxIdlePerHost:      1024,
		DialTimeout:         5 * time.Second,
		UpstreamDeadTimeout: 15 * time.Second,
		ClientHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:      64 * config.KiB,
		BypassPorts:         config.PortsOrOff{80, 8080},
		NextNoProxy:         config.NoProxy{Hosts: config.Hosts{{Name: "svc", Below: true}, {Name: "cluster.local", Below: true}}},
		Policy:              config.PolicyEnforce,
		DrainTimeout:        25 * time.Second,

		TunnelHalfClosedTimeout: time.Minute,
		DNSTimeout:              10 * time.Second,
		DNSMinTTL:               5 * time.Second,
		DNSMaxTTL:               5 * time.Minute,
		DNSStale:                5 * time.Minute,
	}
}

func TestAnEmptyEnvironmentGivesTheDefaults(t *testing.T) {
	if got := load(t); !reflect.DeepEqual(got, defaults()) {
		t.Errorf("got  %+v\nwant %+v", got, defaults())
	}
}

func TestEveryVariableSetsItsField(t *testing.T) {
	tests := map[string]struct {
		value string
		set   func(*config.Config)
	}{
		"LISTEN":                  {"[::1]:8080", func(c *config.Config) { c.Listen = "[::1]:8080" }},
		"ADMIN_LISTEN":            {"localhost:0", func(c *config.Config) { c.AdminListen = "localhost:0" }},
		"LOG_LEVEL":               {"debug", func(c *config.Config) { c.LogLevel = zapcore.DebugLevel }},
		"LOG_FORMAT":              {"console", func(c *config.Config) { c.LogFormat = config.LogConsole }},
		"ACCESS_LOG":              {"all", func(c *config.Config) { c.AccessLog = config.AccessAll }},
		"IDLE_TIMEOUT":            {"1m30s", func(c *config.Config) { c.IdleTimeout = 90 * time.Second }},
		"MAX_CONN_AGE":            {"0", func(c *config.Config) { c.MaxConnAge = 0 }},
		"MAX_CONN_AGE_JITTER":     {"1", func(c *config.Config) { c.MaxConnAgeJitter = 1 }},
		"MAX_REQUESTS_PER_CONN":   {"010", func(c *config.Config) { c.MaxRequestsPerConn = 10 }},
		"MAX_CONNS_PER_HOST":      {"7", func(c *config.Config) { c.MaxConnsPerHost = 7 }},
		"MAX_PENDING_PER_HOST":    {"0", func(c *config.Config) { c.MaxPendingPerHost = 0 }},
		"PENDING_TIMEOUT":         {"1s", func(c *config.Config) { c.PendingTimeout = time.Second }},
		"MAX_IDLE_PER_HOST":       {"0", func(c *config.Config) { c.MaxIdlePerHost = 0 }},
		"BALANCE":                 {"reuse", func(c *config.Config) { c.Balance = config.BalanceReuse }},
		"HTTP2":                   {"auto", func(c *config.Config) { c.HTTP2 = config.HTTP2Auto }},
		"H2C":                     {"orders:8080", func(c *config.Config) { c.H2C = config.Hosts{{Name: "orders", Port: 8080}} }},
		"NO_REUSE_HOSTS":          {"Legacy", func(c *config.Config) { c.NoReuseHosts = config.Hosts{{Name: "legacy"}} }},
		"ALLOW_HOSTS":             {".Example.com", func(c *config.Config) { c.AllowHosts = config.Hosts{{Name: "example.com", Below: true}} }},
		"DENY_HOSTS":              {"[::1]:80", func(c *config.Config) { c.DenyHosts = config.Hosts{{Name: "::1", Port: 80}} }},
		"ALLOW_CIDRS":             {"10.1.0.0/8", func(c *config.Config) { c.AllowCIDRs = config.CIDRs{netip.MustParsePrefix("10.0.0.0/8")} }},
		"DENY_CIDRS":              {"::1", func(c *config.Config) { c.DenyCIDRs = config.CIDRs{netip.MustParsePrefix("::1/128")} }},
		"ALLOW_METADATA":          {"true", func(c *config.Config) { c.AllowMetadata = true }},
		"POLICY":                  {"report", func(c *config.Config) { c.Policy = config.PolicyReport }},
		"DIAL_TIMEOUT":            {"500ms", func(c *config.Config) { c.DialTimeout = time.Second / 2 }},
		"RESPONSE_HEADER_TIMEOUT": {"1h", func(c *config.Config) { c.ResponseHeaderTimeout = time.Hour }},
		"BODY_IDLE_TIMEOUT":       {"1h0m1s", func(c *config.Config) { c.BodyIdleTimeout = time.Hour + time.Second }},
		"UPSTREAM_DEAD_TIMEOUT":   {"0s", func(c *config.Config) { c.UpstreamDeadTimeout = 0 }},
		"CLIENT_HEADER_TIMEOUT":   {"0", func(c *config.Config) { c.ClientHeaderTimeout = 0 }},
		"CLIENT_IDLE_TIMEOUT":     {"5m", func(c *config.Config) { c.ClientIdleTimeout = 5 * time.Minute }},
		"MAX_HEADER_BYTES":        {"1MiB", func(c *config.Config) { c.MaxHeaderBytes = config.MiB }},
		"CA_FILE":                 {"/etc/carpool/ca.pem", func(c *config.Config) { c.CAFile = "/etc/carpool/ca.pem" }},
		"CONNECT_PORTS":           {" 443, 8443 ,65535", func(c *config.Config) { c.ConnectPorts = config.Ports{443, 8443, 65535} }},
		"VIA":                     {"true", func(c *config.Config) { c.Via = true }},
		"RETRY_IDEMPOTENCY_KEY":   {"1", func(c *config.Config) { c.RetryIdempotencyKey = true }},
		"PRELOAD_DIR":             {"/carpool", func(c *config.Config) { c.PreloadDir = "/carpool" }},
		"BYPASS_PORTS":            {"off", func(c *config.Config) { c.BypassPorts = nil }},
		"DRAIN_DELAY":             {"25s", func(c *config.Config) { c.DrainDelay = 25 * time.Second }},
		"DRAIN_TIMEOUT":           {"0", func(c *config.Config) { c.DrainTimeout = 0 }},

		"NEXT_PROXY": {"https://Proxy.corp/", func(c *config.Config) {
			c.NextProxy = config.NextProxy{TLS: true, Host: "proxy.corp", Port: 443}
		}},
		"NEXT_NO_PROXY": {"a.test,10.0.0.0/8", func(c *config.Config) {
			c.NextNoProxy = config.NoProxy{Hosts: config.Hosts{{Name: "a.test"}}, Ranges: config.CIDRs{netip.MustParsePrefix("10.0.0.0/8")}}
		}},
		"NEXT_PROXY_AUTH_FILE": {"/next/auth", func(c *config.Config) { c.NextProxyAuthFile = "/next/auth" }},

		"DNS_TIMEOUT": {"3s", func(c *config.Config) { c.DNSTimeout = 3 * time.Second }},
		"DNS_MIN_TTL": {"1s", func(c *config.Config) { c.DNSMinTTL = time.Second }},
		"DNS_MAX_TTL": {"1h", func(c *config.Config) { c.DNSMaxTTL = time.Hour }},
		"DNS_STALE":   {"0", func(c *config.Config) { c.DNSStale = 0 }},
		"RESOLV_CONF": {"/carpool/resolv.conf", func(c *config.Config) { c.ResolvConf = "/carpool/resolv.conf" }},
		"WARM": {"orders=4", func(c *config.Config) {
			c.Warm = config.Warm{{Origin: config.Origin{Host: "orders", Port: 80}, Conns: 4}}
		}},
		"CLIENT_CERT_FILE":  {"/tls/tls.crt", func(c *config.Config) { c.ClientCertFile = "/tls/tls.crt" }},
		"CLIENT_KEY_FILE":   {"/tls/tls.key", func(c *config.Config) { c.ClientKeyFile = "/tls/tls.key" }},
		"CLIENT_CERT_HOSTS": {"a", func(c *config.Config) { c.ClientCertHosts = config.Hosts{{Name: "a"}} }},
		"TLS_ORIGINATE":     {"a:8443", func(c *config.Config) { c.TLSOriginate = config.Hosts{{Name: "a", Port: 8443}} }},
		"LOCAL_PORTS": {"9001=https://a", func(c *config.Config) {
			c.LocalPorts = config.LocalPorts{{Port: 9001, Origin: config.Origin{TLS: true, Host: "a", Port: 443}}}
		}},
		"CACHE_DIR":                  {"/cache", func(c *config.Config) { c.CacheDir = "/cache" }},
		"CONNECT_TUNNEL_PORTS":       {"8080", func(c *config.Config) { c.ConnectTunnelPorts = config.Ports{8080} }},
		"SPARE_TUNNELS":              {"2", func(c *config.Config) { c.SpareTunnels = 2 }},
		"TUNNEL_IDLE_TIMEOUT":        {"1h", func(c *config.Config) { c.TunnelIdleTimeout = time.Hour }},
		"TUNNEL_HALF_CLOSED_TIMEOUT": {"90s", func(c *config.Config) { c.TunnelHalfClosedTimeout = 90 * time.Second }},
	}
	for _, s := range config.Settings() {
		name := strings.TrimPrefix(s.Name, "CARPOOL_")
		t.Run(name, func(t *testing.T) {
			test, ok := tests[name]
			if !ok {
				t.Fatal("the setting has no row in this test")
			}
			want := defaults()
			test.set(&want)
			if companions[name] != nil {
				tests["CLIENT_CERT_FILE"].set(&want)
			}
			if got := load(t, append(companions[name], s.Name+"="+test.value)...); !reflect.DeepEqual(got, want) {
				t.Errorf("%s=%s\ngot  %+v\nwant %+v", s.Name, test.value, got, want)
			}
		})
	}
	if len(tests) != len(config.Settings()) {
		t.Errorf("%d rows for %d settings", len(tests), len(config.Settings()))
	}
}

func TestSetButEmptyCountsAsUnset(t *testing.T) {
	var environ []string
	for _, s := range config.Settings() {
		environ = append(environ, s.Name+"=")
	}
	if got := load(t, environ...); !reflect.DeepEqual(got, defaults()) {
		t.Errorf("got  %+v\nwant %+v", got, defaults())
	}
}

func TestLoadReadsNothingButItsArgument(t *testing.T) {
	t.Setenv("CARPOOL_LISTEN", "bad")
	t.Setenv("CARPOOL_LISTENN", "unknown")
	t.Setenv("LISTEN", "bad") // envconfig by itself falls back to names without the prefix
	t.Setenv("V", "bad")
	if got := load(t, "VIA=maybe", "LOG_LEVEL=nonsense", "carpool_via=maybe", "XCARPOOL_VIA=maybe", "", "=", "CARPOOL"); !reflect.DeepEqual(got, defaults()) {
		t.Errorf("got  %+v\nwant %+v", got, defaults())
	}
	if os.Getenv("CARPOOL_LISTEN") != "bad" {
		t.Error("Load changed the process environment")
	}
}

func TestOfTwoVariablesWithOneNameTheFirstCounts(t *testing.T) {
	if c := load(t, "CARPOOL_VIA=true", "CARPOOL_VIA=false"); !c.Via {
		t.Error("the second won")
	}
}

func TestBytesTakeBinaryUnits(t *testing.T) {
	for text, want := range map[string]config.Bytes{
		"65536": 65536, "1024": config.KiB, "64KiB": 65536, "64Ki": 65536, "1Mi": config.MiB, "1048576": config.MiB, "1500": 1500,
	} {
		if got := load(t, "CARPOOL_MAX_HEADER_BYTES="+text).MaxHeaderBytes; got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
	for b, want := range map[config.Bytes]string{0: "0", 1: "1", 1500: "1500", 1024: "1KiB", 3 << 20: "3MiB", 1536: "1536", 1<<20 + 1024: "1025KiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d prints as %s, want %s", int64(b), got, want)
		}
	}
}

// Row O6.
func TestABadValueIsNamedWithWhatIsExpected(t *testing.T) {
	const (
		duration = "want a duration of 0 or more, e.g. 500ms, 50s or 2m"
		count    = "want a whole number of 0 or more, e.g. 100"
		share    = "want a number from 0 to 1, e.g. 0.2"
		size     = "want a size in bytes, KiB or MiB, e.g. 65536 or 64KiB"
		limits   = "want from 1KiB to 1MiB, e.g. 64KiB"
		ports    = "want ports from 1 to 65535 separated by commas, e.g. "
		truth    = "want true or false"
		listen   = "want an IP address or localhost or nothing, and a port, e.g. 127.0.0.1:3128 or :9128"
	)
	bad := map[string]map[string][]string{
		"DIAL_TIMEOUT": {
			duration:                        {"-5s", "-1", "five", "5 s", "5s\n", " ", "1d", "s", "9999999h", "-"},
			"give a unit: 5s":               {"5"},
			"give a unit: 300s":             {"300"},
			"give a unit: 90s":              {"1m30"},
			"give a unit: 0.5s":             {".5"},
			"want more than 0, e.g. 5s":     {"0", "0s"},
			"want a duration; give a unit:": {"5000", strings.Repeat("0", 100)},
		},
		"IDLE_TIMEOUT":        {"want more than 0, e.g. 50s": {"0"}},
		"PENDING_TIMEOUT":     {"want more than 0, e.g. 10s": {"0"}},
		"MAX_CONNS_PER_HOST":  {count: {"-1", "+1", "1.5", "0x10", "1_000", "1e3", "many", " 1", "99999999999", "2147483648"}},
		"MAX_CONN_AGE_JITTER": {share: {"-0.1", "1.1", "20%", "NaN", "Inf", "-Inf", "much"}},
		"MAX_HEADER_BYTES": {
			size:   {"64K", "64KB", "64k", "64kib", "64kB", "1GiB", "1.5MiB", "-1", "KiB", "64 KiB", "64B", "9999999999999MiB", "65536B"},
			limits: {"0", "1023", "1048577", "2MiB", "2147483647MiB"},
		},
		"CONNECT_PORTS": {ports + "443,8443": {"0", "65536", "-1", "443,", ",443", "443,,80", "443 80", "443;80", "https", " ", ",", "443-445", "+443"}},
		"BYPASS_PORTS":  {ports + "80,8080, or off": {"none", "0", "80,off", "Off", ",", "80-90"}},
		"NO_REUSE_HOSTS": {"want host names, .suffixes for all names below, or IP addresses": {
			"a,", ",a", "a,,b", " ", "a b", "a;b", "*", "*.a", ".", "..a", "a..b", "http://a", "a/b", "a:", "a:0", "a:http", "a:65536", "a:+1",
			"::1", "[::1", "[a]", "[::1]x", "10.0.0.0/8", "10.1", ".10.0.0.7", "user@a", "a:80:80", "é",
		}},
		"WARM": {"want upstreams, each with the number of connections to keep open to it, from 1 to 100, separated by commas, e.g. orders:8080=4": {
			"a", "a=", "=1", "a=0", "a=101", "a=-1", "a=+1", "a=1.5", "a=many", "a=1=1", "a =1", "a=1,", ",a=1", "a=1,,b=1", "a=1;b=1", ".a=1", "*.a=1",
			"http://=1", "ftp://a=1", "https://a/=1", "http://a/b=1", "a:0=1", "a:=1", "a:65536=1", "::1=1", "[a]=1", "10.1=1", "user@a=1", "é=1", " ",
		}},
		"CACHE_DIR":   {"want an absolute path, e.g. /cache": {"cache", "./cache", " /cache"}},
		"ALLOW_CIDRS": {"want ranges of IP addresses, or addresses": {"a", "10.0.0.0/33", ",", "10/8"}},
		"POLICY":      {"want one of [enforce report]": {"off", "Report"}},
		"PRELOAD_DIR": {"want an absolute path, e.g. /carpool": {"carpool", "./carpool", "../carpool", " /carpool"}},
		"LOG_LEVEL":   {"want debug, info, warn or error": {"verbose", "2"}},
		"LOG_FORMAT":  {"want one of [json console]": {"text", "JSON"}},
		"ACCESS_LOG":  {"want one of [off errors all debug]": {"true", "none"}},
		"HTTP2":       {"want one of [auto off]": {"on", "h2", "2"}},
		"BALANCE":     {"want one of [spread reuse]": {"Spread", "off", "none"}},
		"VIA":         {truth: {"yes", "no", "on", "2", "truee"}},
		"LISTEN": {
			listen: {"3128", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "example.com:3128",
				"::1:3128", "[::1]", "http://127.0.0.1:3128", "127.1:3128", "off", ":"},
		},
		"ADMIN_LISTEN": {
			listen: {"off", "9128"},
			"want another port than that of CARPOOL_LISTEN": {":3128", "127.0.0.1:3128", "0.0.0.0:3128", "[::]:3128", "localhost:3128", "[::ffff:127.0.0.1]:3128"},
		},
		"DRAIN_DELAY": {"want at most CARPOOL_DRAIN_TIMEOUT": {"25.001s", "1m"}},
	}
	for name, wants := range bad {
		for want, values := range wants {
			for _, value := range values {
				variable := "CARPOOL_" + name
				c, _, err := config.Load([]string{variable + "=" + value})
				if err == nil {
					t.Errorf("%s=%q is taken: %+v", variable, value, c)
					continue
				}
				if line := err.Error(); !strings.HasPrefix(line, variable+`="`) || !strings.Contains(line, want) || strings.Contains(line, "\n") {
					t.Errorf("%s=%q: error is not one line that begins with the variable and says %q:\n%s", variable, value, want, line)
				}
				if !reflect.ValueOf(c).IsZero() {
					t.Errorf("%s=%q: a Config comes with the error", variable, value)
				}
			}
		}
	}
}

func TestListenersMayShareWhatDoesNotCollide(t *testing.T) {
	for _, pair := range [][2]string{
		{"127.0.0.1:3128", "10.0.0.1:3128"},
		{"127.0.0.1:3128", "[::1]:3128"},
		{"127.0.0.1:0", "127.0.0.1:0"},
		{"localhost:3128", "0.0.0.0:9128"},
	} {
		load(t, "CARPOOL_LISTEN="+pair[0], "CARPOOL_ADMIN_LISTEN="+pair[1])
	}
}

// Row O6.
func TestAllBadValuesAreNamedAtOnceOneALine(t *testing.T) {
	_, unknown, err := config.Load([]string{
		"CARPOOL_VIA=perhaps",
		"CARPOOL_DRAIN_DELAY=30s",
		"CARPOOL_DRAIN_TIMEOUT=60", // unreadable, so whether DRAIN_DELAY is below it cannot be said
		"CARPOOL_LISTEN=:99999",
		"CARPOOL_IDLE_TIMEOUT=5",
		"CARPOOL_DIAL_TIMEOUT=0",
		"CARPOOL_NEW_FEATURE=on",
	})
	want := `CARPOOL_LISTEN=":99999": want an IP address or localhost or nothing, and a port, e.g. 127.0.0.1:3128 or :9128
CARPOOL_IDLE_TIMEOUT="5": want a duration; give a unit: 5s
CARPOOL_DIAL_TIMEOUT="0": want more than 0, e.g. 5s
CARPOOL_VIA="perhaps": want true or false
CARPOOL_DRAIN_TIMEOUT="60": want a duration; give a unit: 60s`
	if err == nil || !equalLines(err.Error(), want) {
		t.Errorf("got\n%v\nwant, in any order\n%s", err, want)
	}
	if len(unknown) != 1 {
		t.Errorf("unknown %v, want one even beside an error", unknown)
	}
}

func equalLines(a, b string) bool {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func TestNoErrorPrintsMoreThan64BytesOfAValueOrALineBreak(t *testing.T) {
	secret := strings.Repeat("s", 64) + "ECRET"
	for _, s := range config.Settings() {
		for _, value := range []string{secret, "line\r\nbreak\x1b[31m\xff" + secret} {
			_, _, err := config.Load([]string{s.Name + "=" + value})
			if err == nil {
				if !strings.HasSuffix(s.Name, "_FILE") && s.Name != "CARPOOL_RESOLV_CONF" {
					t.Errorf("%s takes %q", s.Name, value)
				}
				continue
			}
			if text := err.Error(); strings.Contains(text, "ECRET") || strings.ContainsAny(text, "\r\n\x1b") || !utf8.ValidString(text) {
				t.Errorf("%s: %q", s.Name, text)
			}
		}
	}
	_, unknown, _ := config.Load([]string{"CARPOOL_PASSWORD=hunter2", "CARPOOL_A\nB" + secret + "=hunter2"})
	if text := unknown[0].Warning() + unknown[1].Error(); strings.Contains(text, "hunter2") || strings.Contains(text, "\n") || strings.Contains(text, "ECRET") {
		t.Errorf("warnings %q", text)
	}
}

// Row O6.
func TestAnUnknownNameWarnsAndSuggests(t *testing.T) {
	for name, suggestion := range map[string]string{
		"CARPOOL_IDLE_TIMOUT":               "CARPOOL_IDLE_TIMEOUT",
		"CARPOOL_IDLETIMEOUT":               "CARPOOL_IDLE_TIMEOUT",
		"CARPOOL_idle_timeout":              "CARPOOL_IDLE_TIMEOUT",
		"CARPOOL_LISTEN_":                   "CARPOOL_LISTEN",
		"CARPOOL_ADMINLISTEN":               "CARPOOL_ADMIN_LISTEN",
		"CARPOOL_CONNECT_PORT":              "CARPOOL_CONNECT_PORTS",
		"CARPOOL_MAX_CONNECTIONS_PER_HOST":  "CARPOOL_MAX_CONNS_PER_HOST",
		"CARPOOL_LOGLEVEL":                  "CARPOOL_LOG_LEVEL",
		"CARPOOL_VIAS":                      "CARPOOL_VIA",
		"CARPOOL_":                          "",
		"CARPOOL_BIN":                       "",
		"CARPOOL_PORT":                      "",
		"CARPOOL_FORBID_HOSTS":              "",
		"CARPOOL_SERVICE_HOSTS":             "",
		"CARPOOL_" + strings.Repeat("X", 9): "",
	} {
		_, unknown, err := config.Load([]string{name + "=3128"})
		if err != nil || len(unknown) != 1 || unknown[0] != (config.Unknown{Name: name, Meant: suggestion}) {
			t.Errorf("%s: unknown %v, error %v, want the suggestion %q", name, unknown, err, suggestion)
			continue
		}
		bad, warning := `unknown variable "`+name+`"`, `unknown variable "`+name+`" is ignored`
		if suggestion != "" {
			bad, warning = bad+"; did you mean "+suggestion+"?", warning+"; did you mean "+suggestion+"?"
		}
		if unknown[0].Error() != bad || unknown[0].Warning() != warning {
			t.Errorf("it says %q and %q", unknown[0].Error(), unknown[0].Warning())
		}
	}
	t.Run("one warning each, sorted", func(t *testing.T) {
		_, unknown, _ := config.Load([]string{"CARPOOL_ZZZ=1", "CARPOOL_AAA=1", "CARPOOL_MMM=", "OTHER=1"})
		if len(unknown) != 2 || unknown[0].Name != "CARPOOL_AAA" || unknown[1].Name != "CARPOOL_ZZZ" {
			t.Errorf("unknown %v", unknown)
		}
	})
}

// Row O6: what the kubelet injects for Services named carpool and carpool-admin is no mistake of anybody's.
func TestKubernetesServiceLinksAreTolerated(t *testing.T) {
	load(t,
		"CARPOOL_SERVICE_HOST=10.96.1.2",
		"CARPOOL_SERVICE_PORT=3128",
		"CARPOOL_SERVICE_PORT_PROXY=3128",
		"CARPOOL_SERVICE_PORT_HTTP_METRICS=9128",
		"CARPOOL_PORT=tcp://10.96.1.2:3128",
		"CARPOOL_PORT_3128_TCP=tcp://10.96.1.2:3128",
		"CARPOOL_PORT_3128_TCP_PROTO=tcp",
		"CARPOOL_PORT_3128_TCP_PORT=3128",
		"CARPOOL_PORT_3128_TCP_ADDR=10.96.1.2",
		"CARPOOL_PORT_53_UDP=udp://[fd00::1]:53",
		"CARPOOL_PORT_53_UDP_PORT=53",
		"CARPOOL_ADMIN_SERVICE_HOST=10.96.1.3",
		"CARPOOL_ADMIN_SERVICE_PORT=9128",
		"CARPOOL_ADMIN_PORT=tcp://10.96.1.3:9128",
		"CARPOOL_ADMIN_PORT_9128_TCP_ADDR=10.96.1.3",
		"CARPOOL_2_X_PORT_9128_SCTP_PROTO=sctp",
	)
	t.Run("no setting is named like one", func(t *testing.T) {
		link := regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_[0-9]`)
		for _, s := range config.Settings() {
			if link.MatchString(s.Name) {
				t.Errorf("%s could be a service link", s.Name)
			}
		}
	})
}

func TestSettingsAreFitToPrint(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range config.Settings() {
		if !regexp.MustCompile(`^CARPOOL_[A-Z][A-Z0-9]*(_[A-Z]+)*$`).MatchString(s.Name) || seen[s.Name] {
			t.Errorf("name %q", s.Name)
		}
		seen[s.Name] = true
		if len(s.Help) < 20 || !strings.HasSuffix(s.Help, ".") || strings.ContainsAny(s.Help, "|\n`") {
			t.Errorf("%s: help %q", s.Name, s.Help)
		}
	}
}

func TestWriteTableIsMarkdown(t *testing.T) {
	var b strings.Builder
	if err := config.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != len(config.Settings())+2 {
		t.Errorf("%d lines for %d settings", len(lines), len(config.Settings()))
	}
	for _, line := range lines {
		if strings.Count(line, "|") != 5 {
			t.Errorf("not four columns: %s", line)
		}
	}
	for name, option := range map[string]string{
		"MAX_CONNS_PER_HOST":      "`maxSockets`",
		"MAX_IDLE_PER_HOST":       "`maxFreeSockets`",
		"IDLE_TIMEOUT":            "`freeSocketTimeout`",
		"MAX_CONN_AGE":            "`socketActiveTTL`",
		"RESPONSE_HEADER_TIMEOUT": "`timeout`",
		"BODY_IDLE_TIMEOUT":       "`timeout`",
		"CA_FILE":                 "–",
	} {
		if !regexp.MustCompile("(?m)^\\| `CARPOOL_" + name + "` .* \\| " + option + " \\|$").MatchString(b.String()) {
			t.Errorf("no row of %s ends with %s", name, option)
		}
	}
}

func effective(t *testing.T, c config.Config) string {
	t.Helper()
	var b strings.Builder
	if err := c.WriteEffective(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteEffectiveShowsDefaultsAsDeclared(t *testing.T) {
	var want strings.Builder
	for _, s := range config.Settings() {
		want.WriteString(s.Name + "=" + s.Default + "\n")
	}
	if got := effective(t, load(t)); got != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want.String())
	}
}

func TestWriteEffectiveMarksWhatDiffers(t *testing.T) {
	environ := []string{
		"CARPOOL_IDLE_TIMEOUT=90s", "CARPOOL_MAX_CONN_AGE=3600s", "CARPOOL_BODY_IDLE_TIMEOUT=120s", "CARPOOL_DIAL_TIMEOUT=5000ms",
		"CARPOOL_MAX_HEADER_BYTES=131072", "CARPOOL_CONNECT_PORTS=443, 8443", "CARPOOL_VIA=1", "CARPOOL_DRAIN_TIMEOUT=10s",
		"CARPOOL_LOG_LEVEL=WARN", "CARPOOL_MAX_CONN_AGE_JITTER=.25", "CARPOOL_BYPASS_PORTS=off",
		"CARPOOL_NO_REUSE_HOSTS=Legacy.:80, .Old.example,[::FFFF],10.0.0.7", "CARPOOL_DENY_CIDRS=10.1.2.3/8, ::ffff:192.0.2.7",
		"CARPOOL_WARM=Orders.:8080=04, https://API.example=2,http://[::FFFF]=1,10.0.0.7:81=100",
	}
	c := load(t, environ...)
	got := effective(t, c)
	for _, line := range []string{
		"CARPOOL_IDLE_TIMEOUT=1m30s  # default 50s",
		"CARPOOL_MAX_CONN_AGE=1h  # default 20s",
		"CARPOOL_BODY_IDLE_TIMEOUT=2m  # default 0",
		"CARPOOL_DIAL_TIMEOUT=5s",
		"CARPOOL_MAX_HEADER_BYTES=128KiB  # default 64KiB",
		"CARPOOL_CONNECT_PORTS=443,8443  # default empty",
		"CARPOOL_VIA=true  # default false",
		"CARPOOL_BYPASS_PORTS=off  # default 80,8080",
		"CARPOOL_NO_REUSE_HOSTS=legacy:80,.old.example,[::ffff],10.0.0.7  # default empty",
		"CARPOOL_WARM=http://orders.:8080=4,https://api.example:443=2,http://[::ffff]:80=1,http://10.0.0.7:81=100  # default empty",
		"CARPOOL_DENY_CIDRS=10.0.0.0/8,192.0.2.7/32  # default empty",
		"CARPOOL_DRAIN_TIMEOUT=10s  # default 25s",
		"CARPOOL_LOG_LEVEL=warn  # default info",
		"CARPOOL_MAX_CONN_AGE_JITTER=0.25  # default 0.2",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	t.Run("it can be loaded again", func(t *testing.T) {
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		for i := range lines {
			lines[i], _, _ = strings.Cut(lines[i], "  # ")
		}
		if again := load(t, lines...); !reflect.DeepEqual(again, c) {
			t.Errorf("got  %+v\nwant %+v", again, c)
		}
	})
	t.Run("a path cannot forge a line", func(t *testing.T) {
		got := effective(t, load(t, "CARPOOL_CA_FILE=/a\nCARPOOL_VIA=true"))
		if !strings.Contains(got, `CARPOOL_CA_FILE="/a\nCARPOOL_VIA=true"  # default empty`+"\n") {
			t.Errorf("got\n%s", got)
		}
	})
}
