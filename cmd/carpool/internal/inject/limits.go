package inject

import (
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Limits are what a LimitRange says of each container of its namespace: quantities
// by the name of the field, such as min, and of the resource. No entry, or "", is
// no bound.
type Limits map[string]map[string]string

// bounds are the limits on one resource.
type bounds struct{ least, most, usual, ratio string }

func (l Limits) of(resource string) bounds {
	return bounds{
		least: l["min"][resource], most: l["max"][resource],
		usual: l["default"][resource], ratio: l["maxLimitRequestRatio"][resource],
	}
}

// need is what a container asks for of one resource; "" is nothing.
type need struct{ request, limit string }

// fit changes what the sidecar of a pod asks for so that a LimitRange admits it, as
// the policy carpool-limits does.
func (l Limits) fit(spec *yaml.Node) {
	sidecar := named(get(spec, initContainers.name), sidecarName)
	if sidecar == nil {
		return
	}
	resources := get(sidecar, "resources")
	fitting, changed := map[string]need{}, false
	for _, r := range []string{"cpu", "memory"} {
		asked := need{text(get(resources, "requests"), r), text(get(resources, "limits"), r)}
		fitting[r] = l.of(r).fit(asked, r)
		changed = changed || fitting[r] != asked
	}
	if !changed {
		return
	}
	all := &yaml.Node{Kind: yaml.MappingNode}
	for _, field := range []string{"requests", "limits"} {
		quantities := &yaml.Node{Kind: yaml.MappingNode}
		for _, r := range resourcesOf(get(resources, field)) {
			value := text(get(resources, field), r)
			if fit, ok := fitting[r]; ok {
				value = map[string]string{"requests": fit.request, "limits": fit.limit}[field]
			}
			if value != "" {
				set(quantities, r, scalar(value), "")
			}
		}
		if len(quantities.Content) > 0 {
			set(all, field, quantities, "")
		}
	}
	set(sidecar, "resources", all, "")
}

// resourcesOf returns the names of those with a quantity, and of those that are
// looked at.
func resourcesOf(quantities *yaml.Node) []string {
	var names []string
	if quantities != nil {
		for _, e := range entriesOf(quantities) {
			names = append(names, e.first.Value)
		}
	}
	for _, r := range []string{"cpu", "memory"} {
		if !slices.Contains(names, r) {
			names = append(names, r)
		}
	}
	return names
}

// fit returns what is asked for within the bounds, and the limit not below the
// request; neither is the one that the container would get for want of its own.
func (b bounds) fit(asked need, resource string) need {
	n := need{b.within(asked.request), b.within(asked.limit)}
	switch {
	case n.request == "":
		return n
	case n.limit != "":
		if more(n.request, n.limit) {
			n.limit = n.request
		}
	case b.usual != "" && more(n.request, b.usual):
		n.limit = n.request
	}
	n.request = b.near(n, resource)
	return n
}

func (b bounds) within(quantity string) string {
	switch {
	case quantity == "":
	case b.most != "" && more(quantity, b.most):
		return b.most
	case b.least != "" && more(b.least, quantity):
		return b.least
	}
	return quantity
}

// near returns a request that is near enough to the limit.
func (b bounds) near(n need, resource string) string {
	limit := n.limit
	if limit == "" {
		limit = b.usual
	}
	if b.ratio == "" || limit == "" {
		return n.request
	}
	least := float(limit) / float(b.ratio)
	switch {
	case least <= float(n.request):
		return n.request
	case resource == "cpu":
		return strconv.FormatInt(int64(least*1000+0.999), 10) + "m"
	}
	return strconv.FormatInt(int64(least+0.999), 10)
}

// float returns what a quantity amounts to, about; 0 if it is none.
func float(quantity string) float64 {
	n := number(quantity)
	if n == nil {
		return 0
	}
	f, _ := n.Float64()
	return f
}
