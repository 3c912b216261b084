package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Load reads the settings from environ, a list of NAME=value as os.Environ returns it, and from nowhere else. A
// variable that is set but empty counts as unset.
//
// The error names every bad variable, one a line, with its value and what is expected; the Config is zero then. The
// variables that begin with CARPOOL_ but are no settings come with or without an error. They are none: a chart that is
// newer than the image must not stop a namespace.
func Load(environ []string) (Config, []Unknown, error) {
	env := ours(environ)
	c, err := load(env, func(rule) bool { return true })
	return c, unknown(env), err
}

// load reads what is ours of an environment, and looks at some of the rules.
func load(env map[string]string, counts func(rule) bool) (Config, error) {
	var (
		c     Config
		errs  []error
		texts = map[string]string{}
		bad   = map[string]bool{}
	)
	fail := func(name string, err error) {
		bad[name] = true
		errs = append(errs, fmt.Errorf("%s%s=%s: %w", prefix, name, quote(texts[name]), err))
	}
	for field, value := range reflect.ValueOf(&c).Elem().Fields() {
		name := field.Tag.Get("envconfig")
		texts[name] = cmp.Or(env[prefix+name], field.Tag.Get("default"))
		if err := parse(value, texts[name]); err != nil {
			fail(name, err)
		}
	}
	for _, r := range rules {
		if counts(r) && !bad[r.name] && !bad[r.with] && !r.ok(&c) {
			fail(r.name, errors.New("want "+r.want))
		}
	}
	if len(errs) > 0 {
		c = Config{}
	}
	return c, errors.Join(errs...)
}

// ours picks the variables that begin with the prefix and are not empty. Of two with one name the first counts, as in
// os.Getenv.
func ours(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if _, seen := env[name]; !seen && value != "" && strings.HasPrefix(name, prefix) {
			env[name] = value
		}
	}
	return env
}

// parse reads text into v, a field of Config, by way of envconfig.
//
// envconfig stops at the first error, so each field is a struct of its own here. And it reads the process environment,
// where it also takes a variable that lacks the prefix: any LISTEN or VIA would do. So the text is handed over as the
// default of a variable named "=", which no environment has.
func parse(v reflect.Value, text string) error {
	if text == "" {
		return nil
	}
	t := v.Type()
	if strict, ok := stricter[t]; ok {
		t = strict
	}
	spec := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "V",
		Type: t,
		Tag:  reflect.StructTag(`envconfig:"=" default:` + strconv.Quote(text)),
	}}))
	if err := envconfig.Process("", spec.Interface()); err != nil {
		return reason(err, t)
	}
	v.Set(spec.Elem().Field(0).Convert(v.Type()))
	return nil
}

// reason takes out of envconfig's error, which repeats the whole value, what is expected of the type.
func reason(err error, t reflect.Type) error {
	if want, ok := wantOf[t]; ok {
		return errors.New("want " + want)
	}
	if pe, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return pe.Err
	}
	return err
}

// quote makes one printable line of a value, and never a long one: it may be a secret in the wrong place. What may be a
// user and a password in a URL is left out.
func quote(s string) string {
	const most = 64
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		_, rest, found := strings.Cut(s[:at], "//")
		if !found {
			rest = s[:at]
		}
		s = s[:at-len(rest)] + "…" + s[at:]
	}
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// listenAddr reads an address to listen on. Names other than localhost are refused: they would need DNS before carpool
// serves anything.
func listenAddr(s string) (netip.AddrPort, bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch host {
	case "":
		host = "::"
	case "localhost":
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), err == nil
}

// Listeners returns the addresses that carpool listens on, the proxy's first, as far as settings tell: a port may be 0.
func (c Config) Listeners() []netip.AddrPort {
	own, _ := listenAddr(c.Listen)
	admin, _ := listenAddr(c.AdminListen)
	return []netip.AddrPort{own, admin}
}

// overlap reports whether two listeners would take the same port of the same address. The unspecified address of either
// family is both families' every address, as it is to net.Listen.
func overlap(a, b string) bool {
	x, _ := listenAddr(a)
	y, _ := listenAddr(b)
	return x.Port() == y.Port() && x.Port() != 0 &&
		(x.Addr() == y.Addr() || x.Addr().IsUnspecified() || y.Addr().IsUnspecified())
}
