package inject

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DefaultImage is the image of the sidecar where none is named. The
// chart's values name the same.
const DefaultImage = "ghcr.io/carpoolproxy/carpool:0.1.0"

// What carpool's labels and annotations begin with.
const (
	prefix         = "carpoolproxy.github.io/"
	settingsPrefix = "settings." + prefix
)

// Options are what can be chosen about the sidecar, as in the chart's values.
// Annotations of a pod override them one by one. The zero value is of no use:
// [Defaults] has the chart's.
type Options struct {
	Image      string
	PullPolicy string // Always, IfNotPresent or Never

	CPURequest, CPULimit, MemoryRequest, MemoryLimit string // Kubernetes quantities; "" is none

	// CPULimitWhereRequired is the CPU limit where none is chosen and all other
	// containers of the pod have one; "" is none.
	CPULimitWhereRequired string

	// OtherRequests and OtherLimits are those of the sidecar for other resources than CPU and memory, by their names.
	OtherRequests, OtherLimits map[string]string

	RunAsUser   string   // of the sidecar; "": the image's own, or as the pod says
	PullSecrets []string // names of what the image is pulled with, beside the pod's own

	Port, AdminPort string // of the proxy, and of health and metrics
	GODEBUG         string // of the sidecar; "" is none

	Settings map[string]string // carpool's settings, by their names without CARPOOL_
	NoProxy  []string          // what is not sent through carpool, beside the definition's list
	Skip     []string          // names of containers that get nothing

	HTTPS   bool // https goes through carpool too
	Java    bool // JAVA_TOOL_OPTIONS is extended
	Preload bool // Node.js gets the script that makes it use carpool

	// PreloadHTTPS makes that script send https through carpool too. Preload comes
	// with it.
	PreloadHTTPS bool

	// Cache gives the sidecar a volume, in which it remembers upstreams over a restart.
	Cache bool
	// Secret is mounted in the sidecar, for settings that name files; "" is none.
	Secret string

	// Plain makes the sidecar an ordinary container, for Kubernetes before 1.29.
	// Preload does not go with it: the app may start before the script is there.
	Plain bool

	// Strict makes an error of what is passed over: containers in a place where
	// no pod is looked for, and patches. Pods that carpool is not for, by their
	// label or because of the node they are for, are none.
	Strict bool

	by          map[string]string // who has chosen an option, as messages call it, by the option's name
	user, group string            // of the sidecar, or ""
}

// Defaults returns the options of the chart's own values.
func Defaults() Options {
	return Options{
		Image: DefaultImage, PullPolicy: "IfNotPresent",
		CPURequest: "20m", MemoryRequest: "32Mi", MemoryLimit: "128Mi", CPULimitWhereRequired: "100m",
		Port: usualPort, AdminPort: usualAdminPort,
		Settings: map[string]string{},
	}
}

// An option can be chosen by a flag and by an annotation.
type option struct {
	name string // of the annotation, behind the prefix
	set  func(o *Options, value string) error
}

var options = []option{
	{"image", func(o *Options, v string) error { o.Image = v; return want(v != "", "an image", v) }},
	{"pull-policy", func(o *Options, v string) error {
		o.PullPolicy = v
		return want(slices.Contains([]string{"Always", "IfNotPresent", "Never"}, v), "Always, IfNotPresent or Never", v)
	}},
	quantity("cpu-request", "20m", func(o *Options) *string { return &o.CPURequest }),
	quantity("cpu-limit", "100m", func(o *Options) *string { return &o.CPULimit }),
	quantity("memory-request", "32Mi", func(o *Options) *string { return &o.MemoryRequest }),
	quantity("memory-limit", "128Mi", func(o *Options) *string { return &o.MemoryLimit }),
	port("port", func(o *Options) *string { return &o.Port }),
	port("admin-port", func(o *Options) *string { return &o.AdminPort }),
	{"godebug", setGODEBUG},
	{"skip-containers", func(o *Options, v string) error { o.Skip = split(v); return nil }},
	{"no-proxy", setNoProxy},
	choice("https", func(o *Options) *bool { return &o.HTTPS }),
	choice("java", func(o *Options) *bool { return &o.Java }),
	choice("preload", func(o *Options) *bool { return &o.Preload }),
	choice("preload-https", func(o *Options) *bool { return &o.PreloadHTTPS }),
	choice("cache", func(o *Options) *bool { return &o.Cache }),
	{"secret", setSecret},
}

// preloads reports whether Node.js gets the script.
func (o Options) preloads() bool { return o.Preload || o.PreloadHTTPS }

// setNoProxy takes entries that every client reads, or at least passes over.
func setNoProxy(o *Options, v string) error {
	o.NoProxy = split(v)
	isEntry, wanted, err := rule("carpool.noProxyEntry", "carpool.noProxyWant")
	if err != nil {
		return err
	}
	bad := slices.DeleteFunc(slices.Clone(o.NoProxy), func(entry string) bool { return isEntry(entry) || isIP(entry) })
	return want(len(bad) == 0, wanted, strings.Join(bad, ","))
}

// setGODEBUG takes what looks like GODEBUG; Go passes over names that it does not
// know.
func setGODEBUG(o *Options, v string) error {
	o.GODEBUG = v
	matches, wanted, err := rule("carpool.godebug", "carpool.godebugWant")
	if err != nil {
		return err
	}
	return want(matches(v), wanted, v)
}

// setSecret takes what can be a Secret's name: the API server takes any, and the pod
// would wait for it for ever.
func setSecret(o *Options, v string) error {
	o.Secret = v
	matches, wanted, err := rule("carpool.secretName", "carpool.secretNameWant")
	if err != nil {
		return err
	}
	return want(matches(v) && len(v) <= 253, wanted, v)
}

// rule returns a pattern of the definition, and what it is called in messages.
func rule(pattern, name string) (matches func(string) bool, wanted string, err error) {
	if pattern, err = execute(pattern, nil); err != nil {
		return nil, "", err
	}
	wanted, err = execute(name, nil)
	return regexp.MustCompile(pattern).MatchString, wanted, err
}

// isIP reports what the function of this name does in the admission policy's
// language: IPv6 has no zone there, and no IPv4 in it.
func isIP(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" && !a.Is4In6()
}

func want(ok bool, what, value string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("want %s, not %q", what, value)
}

var isQuantity = regexp.MustCompile(`^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$`).MatchString

func quantity(name, example string, field func(*Options) *string) option {
	return option{name, func(o *Options, v string) error {
		*field(o) = v
		return want(v == "" || isQuantity(v), "a quantity such as "+example, v)
	}}
}

func port(name string, field func(*Options) *string) option {
	return option{name, func(o *Options, v string) error {
		*field(o) = v
		n, err := strconv.ParseUint(v, 10, 16)
		return want(err == nil && n >= 1024 && v[0] != '0', "a port from 1024 to 65535", v)
	}}
}

func choice(name string, field func(*Options) *bool) option {
	return option{name, func(o *Options, v string) error {
		*field(o) = v == "true"
		return want(v == "true" || v == "false", "true or false", v)
	}}
}

// split returns the entries of a list with commas. Empty ones do not count.
func split(s string) []string {
	var entries []string
	for entry := range strings.SplitSeq(s, ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			entries = append(entries, entry)
		}
	}
	return entries
}
