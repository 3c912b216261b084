package inject

import (
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"go.yaml.in/yaml/v3"
)

// The usual ports, which need no setting.
const (
	usualPort      = "3128"
	usualAdminPort = "9128"
)

// fit returns the options for a pod's own sidecar. A namespace may ask things of
// all containers that the sidecar must do as well, or the pod that was admitted
// without it is refused. What a namespace asks for is not known here, but that
// all other containers of the pod do it is.
func (o Options) fit(spec *yaml.Node) (Options, error) {
	others, err := all(spec)
	if err != nil {
		return o, err
	}
	var errs []error
	for _, c := range others {
		for _, port := range o.takenBy(c) {
			errs = append(errs, errorAt(port, "container %s has port %s of its own, which carpool is to listen on: choose another %s, "+
				"or leave the pod out by its label %sinject: \"false\"", text(c, "name"), port.Value, o.portOption(port.Value), prefix))
		}
	}
	o.user, o.group = runAs(spec, others, "runAsUser"), runAs(spec, others, "runAsGroup")
	if o.RunAsUser != "" {
		o.user = o.RunAsUser
	}
	return o.fitResources(get(spec, "resources"), others), errors.Join(errs...)
}

// all returns the pod's containers but carpool.
func all(spec *yaml.Node) ([]*yaml.Node, error) {
	var found []*yaml.Node
	for _, l := range []list{containers, initContainers} {
		n, err := l.get(spec)
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		for _, c := range n.Content {
			if text(c, "name") != sidecarName {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// takenBy returns the ports that a container has of carpool's.
func (o Options) takenBy(container *yaml.Node) (taken []*yaml.Node) {
	ports := get(container, "ports")
	if ports == nil {
		return nil
	}
	for _, p := range ports.Content {
		number := get(p, "containerPort")
		if protocol := text(p, "protocol"); number != nil && (protocol == "" || protocol == "TCP") && o.portOption(number.Value) != "" {
			taken = append(taken, number)
		}
	}
	return taken
}

// portOption says by what option a port was chosen, or is "".
func (o Options) portOption(port string) string {
	switch port {
	case o.Port:
		return "by the annotation " + prefix + "port"
	case o.AdminPort:
		return "by the annotation " + prefix + "admin-port"
	}
	var local config.LocalPorts
	_ = local.UnmarshalText([]byte(o.Settings["LOCAL_PORTS"])) // check has told what is wrong with it
	for _, p := range local {
		if port == strconv.Itoa(int(p.Port)) {
			return "in " + settingPrefix + "LOCAL_PORTS"
		}
	}
	return ""
}

// listening returns the options with the ports of the sidecar that is there.
func (o Options) listening(spec *yaml.Node) Options {
	o.Port, o.AdminPort = usualPort, usualAdminPort
	for _, l := range []list{initContainers, containers} {
		env := get(named(get(spec, l.name), sidecarName), "env")
		for setting, port := range map[string]*string{"LISTEN": &o.Port, "ADMIN_LISTEN": &o.AdminPort} {
			if listen := text(named(env, settingPrefix+setting), "value"); listen != "" {
				*port = listen[strings.LastIndex(listen, ":")+1:]
			}
		}
	}
	return o
}

// runAs returns what the sidecar's security context has to say under a field, or
// "": the image's own user will do unless the pod is root's, or all others say
// who they are, which may be asked of each container, and from a range.
func runAs(spec *yaml.Node, others []*yaml.Node, field string) string {
	const own = "65532" // the image's, as the Dockerfile says
	pod := get(spec, "securityContext")
	root := text(pod, "runAsUser") == "0"
	if get(pod, field) != nil {
		if root && field == "runAsUser" {
			return own
		}
		return ""
	}
	var ids []string
	for _, c := range others {
		ids = append(ids, text(get(c, "securityContext"), field))
	}
	if slices.Contains(ids, "") {
		if root {
			return own
		}
		return ""
	}
	ids = append(slices.DeleteFunc(ids, func(id string) bool { return id == "0" }), own)
	return ids[0]
}

// fitResources chooses requests and limits that were not chosen for this pod.
func (o Options) fitResources(together *yaml.Node, others []*yaml.Node) Options {
	pod := func(resource string) (has bool, limit string) {
		limit = text(get(together, "limits"), resource)
		return limit != "" || text(get(together, "requests"), resource) != "", limit
	}
	limit := func(resource string, value *string) {
		_, most := pod(resource)
		if !o.explicit(resource+"-limit") && most != "" && *value != "" && more(*value, most) {
			*value = ""
		}
	}
	if has, _ := pod("cpu"); o.CPULimit == "" && !o.explicit("cpu-limit") && !has && limited(others, "cpu") {
		o.CPULimit = o.CPULimitWhereRequired
	}
	limit("cpu", &o.CPULimit)
	limit("memory", &o.MemoryLimit)
	guaranteed := o.CPULimit != "" && o.MemoryLimit != "" && guaranteed(others)
	request := func(resource string, value *string, limit string) {
		if o.explicit(resource + "-request") {
			return
		}
		if has, _ := pod(resource); has {
			*value = ""
			if limit != "" {
				*value = "0" // else it would be the limit
			}
		} else if guaranteed || limit != "" && *value != "" && more(*value, limit) {
			*value = limit
		}
	}
	request("cpu", &o.CPURequest, o.CPULimit)
	request("memory", &o.MemoryRequest, o.MemoryLimit)
	return o
}

// limited reports whether all containers have a limit.
func limited(containers []*yaml.Node, resource string) bool {
	return !slices.ContainsFunc(containers, func(c *yaml.Node) bool {
		return text(get(get(c, "resources"), "limits"), resource) == ""
	})
}

// guaranteed reports whether a pod of these containers is of the class
// Guaranteed.
func guaranteed(containers []*yaml.Node) bool {
	for _, resource := range []string{"cpu", "memory"} {
		if !limited(containers, resource) {
			return false
		}
		for _, c := range containers {
			limit, request := text(get(get(c, "resources"), "limits"), resource), text(get(get(c, "resources"), "requests"), resource)
			if request != "" && (more(request, limit) || more(limit, request)) {
				return false
			}
		}
	}
	return true
}

// more reports whether a quantity is larger than another. What is none is larger
// than nothing.
func more(a, b string) bool {
	x, y := number(a), number(b)
	return x != nil && y != nil && x.Cmp(y) > 0
}

// number returns what a quantity amounts to, or nil if it is none.
func number(quantity string) *big.Rat {
	if !isQuantity(quantity) {
		return nil
	}
	at := len(strings.TrimRight(quantity, "kKMGTPEinume+-")) // where the unit begins
	if exponent := strings.IndexAny(quantity, "eE"); exponent >= 0 && exponent+1 < len(quantity) {
		at = len(quantity) // math/big reads those
	}
	n, ok := new(big.Rat).SetString(strings.TrimSuffix(quantity[:at], "."))
	if !ok {
		return nil
	}
	unit, ok := units[quantity[at:]]
	if !ok {
		return nil
	}
	return n.Mul(n, unit)
}

// units are what quantities are counted in.
var units = map[string]*big.Rat{
	"": big.NewRat(1, 1), "n": big.NewRat(1, 1e9), "u": big.NewRat(1, 1e6), "m": big.NewRat(1, 1e3),
	"k": big.NewRat(1e3, 1), "M": big.NewRat(1e6, 1), "G": big.NewRat(1e9, 1), "T": big.NewRat(1e12, 1),
	"P": big.NewRat(1e15, 1), "E": big.NewRat(1e18, 1),
	"Ki": big.NewRat(1<<10, 1), "Mi": big.NewRat(1<<20, 1), "Gi": big.NewRat(1<<30, 1), "Ti": big.NewRat(1<<40, 1),
	"Pi": big.NewRat(1<<50, 1), "Ei": big.NewRat(1<<60, 1),
}
