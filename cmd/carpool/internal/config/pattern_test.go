package config_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

// The charts cannot ask Load: the schema of the values and the admission policy
// know a setting by a regular expression that all its values match. But for words
// in any letter case, which the schema lists, it is in the syntax that JSON Schema
// and RE2 have in common.

const (
	unit = `(ns|us|µs|μs|ms|s|m|h)`
	some = `(([0-9]+(\.[0-9]*)?|\.[0-9]+)` + unit + `)`                             // a part of a duration
	more = `(([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)` + unit + `)` // one that is not 0
	// Numbers of 0 to 1, also as Helm writes small ones, 1e-05.
	unitShare = `\+?(0*(0|0?\.[0-9]+|0\.|1\.?|1\.0+)|[0-9](\.[0-9]+)?e-[0-9]*[1-9][0-9]*|[01](\.0+)?e[-+]?0+)`
)

// pattern is what the text of a setting matches, if it is one of the values
// that Load takes, which all the empty one is.
func pattern(t *testing.T, field reflect.StructField) string {
	p := ""
	switch {
	case field.Type == reflect.TypeFor[time.Duration]() && positive(field):
		p = `\+?` + some + `*` + more + some + `*`
	case field.Type == reflect.TypeFor[time.Duration]():
		p = `\+?(0|` + some + `+)`
	case field.Type == reflect.TypeFor[config.Bytes]():
		p = `0*(` + upTo(1024, 1<<20) + `|(` + upTo(1, 1024) + `)KiB?|1MiB?)`
	case field.Type == reflect.TypeFor[config.Hosts]():
		one := `[ \t]*(` + host(`\.?`) + `)[ \t]*`
		p = one + `(,` + one + `)*`
	case field.Type == reflect.TypeFor[config.Warm]():
		one := `[ \t]*([Hh][Tt][Tt][Pp][Ss]?://)?(` + host(``) + `)=0*(` + upTo(1, config.MaxWarm) + `)[ \t]*`
		p = one + `(,` + one + `)*`
	case field.Type == reflect.TypeFor[config.LocalPorts]():
		one := `[ \t]*0*(` + upTo(1, 65535) + `)=([Hh][Tt][Tt][Pp][Ss]?://)?(` + host(``) + `)[ \t]*`
		p = one + `(,` + one + `)*`
	case field.Type == reflect.TypeFor[config.NextProxy]():
		p = `[Hh][Tt][Tt][Pp][Ss]?://(` + host(``) + `)/?`
	case field.Type == reflect.TypeFor[config.NoProxy]():
		one := `[ \t]*(` + host(`(\*?\.)?`) + `|` + cidr() + `)[ \t]*`
		p = one + `(,` + one + `)*`
	case field.Type == reflect.TypeFor[config.CIDRs]():
		one := `[ \t]*(` + cidr() + `)[ \t]*`
		p = one + `(,` + one + `)*`
	case field.Type.Kind() == reflect.Slice: // of ports
		port := `[ \t]*0*(` + upTo(1, 65535) + `)[ \t]*`
		p = port + `(,` + port + `)*`
		for _, word := range choices(field) {
			p += `|` + word.(string)
		}
	case field.Type.Kind() == reflect.Bool:
		p = `1|t|T|TRUE|true|True|0|f|F|FALSE|false|False`
	case field.Type.Kind() == reflect.Int:
		p = `0*(` + upTo(0, 1<<31-1) + `)`
	case field.Type.Kind() == reflect.Float64:
		p = unitShare
	case choices(field) != nil:
		p = words(field)
	case field.Name == "PreloadDir", field.Name == "CacheDir":
		p = `/.*`
	case field.Type.Kind() == reflect.String:
		return ``
	default:
		t.Fatalf("%s: say here what values of type %s look like", field.Name, field.Type)
	}
	return `^(` + p + `)?$`
}

// Forms of addresses. Of one of IPv6 this is not all that makes it one.
const ipv6 = `[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){1,6}:([0-9A-Fa-f]{0,4}|[0-9.]+)`

func ipv4() string {
	octet := `(` + upTo(0, 255) + `)`
	return octet + `(\.` + octet + `){3}`
}

// cidr is a pattern for one of CIDRs. How long a range of IPv4-mapped addresses is at
// least it does not say.
func cidr() string {
	return ipv4() + `(/(` + upTo(0, 32) + `))?|` + ipv6 + `(/(` + upTo(0, 128) + `))?`
}

// host is a pattern for one of Hosts, which names may have something before them. How long a name may be it does not say, and
// of an IPv6 address not all that makes it one.
func host(before string) string {
	const (
		label     = `[A-Za-z0-9_-]`
		notNumber = `([1-9][0-9]*|0[0-9]+)?[A-Za-z_-]` + label + `*|0[A-WYZa-wyz_-]` + label + `*|0[Xx][0-9A-Fa-f]*[G-Zg-z_-]` + label + `*`
		name      = `(` + label + `+\.)*(` + notNumber + `)\.?`
	)
	return `(` + before + name + `|` + ipv4() + `|\[` + ipv6 + `\])(:0*(` + upTo(1, 65535) + `))?`
}

// words are those that a field's type takes, the documented and others.
func words(field reflect.StructField) string {
	decoder := reflect.New(field.Type).Interface().(encoding.TextUnmarshaler)
	var all []string
	for _, word := range slices.Concat(choices(field), []any{"warning", "dpanic", "panic", "fatal"}) {
		if decoder.UnmarshalText([]byte(word.(string))) == nil {
			all = append(all, word.(string))
		}
	}
	either := strings.Join(all, `|`)
	if decoder.UnmarshalText([]byte(strings.ToUpper(all[0]))) == nil {
		return `(?i:` + either + `)`
	}
	return either
}

// positive reports whether a duration must not be 0.
func positive(field reflect.StructField) bool {
	_, _, err := config.Load([]string{"CARPOOL_" + field.Tag.Get("envconfig") + "=0"})
	return err != nil
}

// upTo is a pattern for the decimal numbers from least to most, without zeros
// before them.
func upTo(least, most int) string {
	low, high := fmt.Sprint(least), fmt.Sprint(most)
	power := int(math.Pow10(len(high) - 1)) // the least of as many digits as most
	switch {
	case len(low) == len(high):
		return digits(low, high)
	case least == 0:
		return `0|` + upTo(1, most)
	case low == `1`+strings.Repeat(`0`, len(low)-1):
		return fmt.Sprintf(`[1-9][0-9]{%d,%d}|`, len(low)-1, len(high)-2) + digits(fmt.Sprint(power), high)
	}
	next := int(math.Pow10(len(low)))
	return digits(low, fmt.Sprint(next-1)) + `|` + upTo(next, most)
}

// digits is a pattern for the numbers from low to high, which have as many
// digits.
func digits(low, high string) string {
	rest := strings.Replace(fmt.Sprintf(`[0-9]{%d}`, len(low)-1), `{1}`, ``, 1)
	switch {
	case len(low) == 1:
		return oneDigit(low[0], high[0])
	case low[0] == high[0]:
		return low[:1] + `(` + digits(low[1:], high[1:]) + `)`
	case strings.Trim(low[1:], "0") == "" && strings.Trim(high[1:], "9") == "":
		return oneDigit(low[0], high[0]) + rest
	case strings.Trim(low[1:], "0") != "":
		all := strings.Repeat("9", len(low)-1)
		return digits(low, low[:1]+all) + `|` + digits(string(low[0]+1)+strings.Repeat("0", len(low)-1), high)
	}
	return digits(low, string(high[0]-1)+strings.Repeat("9", len(low)-1)) + `|` +
		digits(high[:1]+strings.Repeat("0", len(low)-1), high)
}

func oneDigit(low, high byte) string {
	if low == high {
		return string(low)
	}
	return fmt.Sprintf(`[%c-%c]`, low, high)
}

func TestPatternsOfNumbersEndWhereTheNumbersDo(t *testing.T) {
	for _, c := range [][2]int{{0, 9}, {0, 10}, {10, 12345}, {37, 5000}, {1, 65535}, {1024, 1 << 20}, {7, 7}, {95, 105}, {123, 987}, {100, 100}} {
		matches := regexp.MustCompile(`^(` + upTo(c[0], c[1]) + `)$`).MatchString
		for n := max(0, c[0]-120); n < c[1]+120; n++ {
			if matches(fmt.Sprint(n)) != (c[0] <= n && n <= c[1]) {
				t.Fatalf("%v: %d", c, n)
			}
		}
	}
}

// specimens are values good and bad, each of which is tried on each setting.
var specimens = strings.Split(strings.ReplaceAll(`|0|00|1|2|9|010|30|100|1023|1024|65535|65536|070000|1048576|1048577|2147483647|2147483648|99999999999
-1|+1|1.5|1.|.5|.|0.2|00.5|1.0|1.00|1.01|1e-05|1.5e-05|1e-0|2e-1|20e-1|1e5|NaN|Inf|0x10|1_000
30s|0s|0.0s|0.5s|.5s|5.s|1h30m|1m30|1d|-5s|+5s|+0|+|s|500ms|10us|10µs|10μs|3 s| 3s|3s |0h0m1s|0h0m0s|1h1|2m 3s
64KiB|64Ki|64KB|64K|64k|1MiB|1Mi|2MiB|5MiB|1024KiB|1025KiB|0KiB|01KiB|512B|512|1024B|1M|1GiB|1.5KiB|Ki
true|false|True|FALSE|t|f|T|F|yes|no|on|off|off,80|maybe|tRue
443|443,8443|443, 8443| 443 ,	8443|443,|,443|443,,8443|443;8443|0,1|80,65536|00443
debug|info|warn|error|DEBUG|Warn|warning|panic|fatal|trace|JSON|OFF|verbose|json|console|errors|all|none|/carpool|carpool|/etc/ca.pem|../x|soon
legacy|Legacy_1.|.old.example.com|.a.:81|-a|_a._b|a:80, b:00443 ,.c|a b|a;b|a:0|a:65535|a:65536|a:|:80|.|..|..a|a..b|a..|.:80|*.a|a/b|http://a|ä.example
10.0.0.7|10.0.0.7:8080|10.0.0.7.|.10.0.0.7|256.1.1.1|255.255.255.255|10.0.0.07|10.0.7|1.2.3.4.5|a.7|7.a|a.7a|a.07a|a.0|a.0x|a.0xf:80|a.0xg|a.0y|0x.a|a.00x1
legacy=1|Legacy_1.:80=100|a=0|a=101|a=007|a=|=1|a|a=-1|a=1.5|a=+1|a = 1|a=1, b:81=2 ,	https://c=3|a=1,|,a=1|a=1,,b=1|a=1;b=1|.a=1|a:0=1|a:65536=1|a:=1|*.a=1|a=1=2
http://a=1|HTTPS://A:8443=2|http://=1|http:a=1|ftp://a=1|https://a/=1|https://a/b=1|http://http://a=1|://a=1|u@a=1|10.0.0.7=1|10.0.0.7:80=1|10.0.7=1|[::1]=1|http://[::1]:80=1|[::1=1
9001=https://a|9001=a:80, 09002=HTTP://B ,	9003=[::1]:81|9001=|9001|=a|0=a|65536=a|9001=a=b|9001=https://a/|9001=https://a/b|9001=.a|9001=ftp://a|9001=a,|9001=a;9002=b| 9001=a
http://proxy.corp:8080|https://Proxy|http://proxy:80/|HTTP://10.0.0.7:3128|http://[::1]:3128/|http://proxy//|http://proxy/x|http://|http:///|http://u:p@proxy:80|ftp://proxy:80
*.corp.example|.svc,corp.example, 10.0.0.0/8 ,fd00::/8|*.a:81|*|*a|*..a|.10.0.0.0/8|10.0.0.0/33|10.0.0.0/8:80|a/8
[::1]|[::1]:80|[2001:DB8:0::1]|[::ffff:1.2.3.4]|[1.2.3.4]|[::]|[::1|::1|.[::1]|[fe80::1%eth0]|[1:2:3:4:5:6:7:8]|[1:2:3:4:5:6:7:8:9]|[12345::]|[a]`, "\n", "|"), "|")

// TestPatternsAreWhatLoadTakes holds the patterns to what reads the settings.
func TestPatternsAreWhatLoadTakes(t *testing.T) {
	for field := range reflect.TypeFor[config.Config]().Fields() {
		name := field.Tag.Get("envconfig")
		if notInChart[name] && name != "PRELOAD_DIR" {
			continue
		}
		matches := regexp.MustCompile(pattern(t, field)).MatchString
		for _, text := range specimens {
			_, _, err := config.Load(append(companions[name], "CARPOOL_"+name+"="+text, "CARPOOL_DRAIN_TIMEOUT="+far(name)))
			if matches(text) != (err == nil) {
				t.Errorf("%s=%q: the pattern %s says %t, Load says %v", name, text, pattern(t, field), matches(text), err)
			}
		}
	}
}

// far is a DRAIN_TIMEOUT above every DRAIN_DELAY, where it is not that which is
// looked at: patterns know one setting each.
func far(name string) string {
	if name == "DRAIN_TIMEOUT" {
		return ""
	}
	return "1000h"
}

// TestThePolicyHasTheSettings keeps what the admission policy knows of them up
// to date.
func TestThePolicyHasTheSettings(t *testing.T) {
	const path = "../../../../charts/carpool/templates/_settings.tpl"
	type rule struct {
		Pattern string `json:"pattern"`
		Want    string `json:"want"`
	}
	var want bytes.Buffer
	want.WriteString("{{/*\nWhat carpool's settings must match, and what is said if they do not, as YAML. Made\n" +
		"from the table of settings: go test ./cmd/carpool/internal/config -update\n*/}}\n{{- define \"carpool.settings\" -}}\n")
	for field := range reflect.TypeFor[config.Config]().Fields() {
		name := field.Tag.Get("envconfig")
		if notInChart[name] && name != "PRELOAD_DIR" {
			continue
		}
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(rule{pattern(t, field), config.Want(name)}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "CARPOOL_%s: %s", name, &line)
	}
	want.WriteString("{{- end }}\n")
	got, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if bytes.Equal(got, want.Bytes()) {
		return
	}
	if !*update {
		t.Fatalf("%s does not hold the settings as they are: go test ./cmd/carpool/internal/config -update", path)
	}
	if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
