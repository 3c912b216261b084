package inject

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Namespace is what a pod's namespace has to say about its sidecar.
type Namespace struct {
	// Settings is the data of its ConfigMap carpool; nil: none counts.
	Settings map[string]string
	// Limits are those of its LimitRanges, in the order in which they are looked at.
	Limits []Limits
	// Without keeps the sidecar out; one that came with the pod still gets to fit in.
	Without bool
}

// A Refusal is why a pod cannot have the sidecar.
type Refusal struct{ Faults []string }

// Error names all faults in one line, as the admission policy does.
func (r *Refusal) Error() string { return strings.Join(r.Faults, "; ") }

// Pod returns what puts the sidecar into one pod, written as JSON as the API server
// has it: a JSON Patch (RFC 6902), or nil if nothing changes. It does what the
// admission policies of charts/carpool do. If something is wrong that the pod's
// author, or its namespace's, can change, the error is a [*Refusal].
func Pod(in []byte, o Options, of Namespace) (patch []byte, err error) {
	before, err := parseJSON(in)
	if err != nil {
		return nil, fmt.Errorf("the pod is no valid JSON: %w", err)
	}
	after := clone(before)
	p := pod{root: after, kind: "/Pod", note: func(string) {}, pass: func(string) {}}
	spec, err := child(after, "spec", yaml.MappingNode)
	if err != nil || p.notFor(spec) != "" {
		return nil, err
	}
	apps, err := containers.get(spec)
	if err != nil || apps == nil {
		return nil, err
	}
	if !of.Without {
		if err := p.add(spec, apps, o, of.Settings); err != nil {
			return nil, &Refusal{faults(err)}
		}
	}
	for _, l := range of.Limits {
		l.fit(spec)
	}
	return patchOf(before, after)
}

// faults returns the errors that are joined in one, one a line.
func faults(err error) (all []string) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range several.Unwrap() {
			all = append(all, faults(err)...)
		}
		return all
	}
	return strings.Split(err.Error(), "\n")
}

// patchOf returns the JSON Patch that makes one tree of another, or nil if they are
// equal. What is new in the second tree has no line.
func patchOf(before, after *yaml.Node) ([]byte, error) {
	var d differ
	d.value("", before, after)
	if len(d.ops) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	err := appendJSON(&out, &yaml.Node{Kind: yaml.SequenceNode, Content: d.ops}, false)
	return out.Bytes(), err
}

// A differ gathers the operations of a JSON Patch, in the order in which they are
// carried out.
type differ struct{ ops []*yaml.Node }

func (d *differ) op(name, path string, value *yaml.Node) {
	op := mapping("op", name, "path", path)
	if value != nil {
		op.Content = append(op.Content, scalar("value"), value)
	}
	d.ops = append(d.ops, op)
}

func (d *differ) value(path string, before, after *yaml.Node) {
	switch {
	case equal(before, after):
	case before.Kind == yaml.MappingNode && after.Kind == yaml.MappingNode:
		d.mapping(path, before, after)
	case before.Kind == yaml.SequenceNode && after.Kind == yaml.SequenceNode && kept(before, after):
		at := 0
		for i, item := range after.Content {
			where := path + "/" + strconv.Itoa(i)
			if item.Line == 0 {
				d.op("add", where, item)
				continue
			}
			d.value(where, before.Content[at], item)
			at++
		}
	default:
		d.op("replace", path, after)
	}
}

func (d *differ) mapping(path string, before, after *yaml.Node) {
	for _, e := range entriesOf(after) {
		where := path + "/" + pointer.Replace(e.first.Value)
		if i := indexOf(before, e.first.Value); i >= 0 {
			d.value(where, before.Content[i+1], e.value)
		} else {
			d.op("add", where, e.value)
		}
	}
	for _, e := range entriesOf(before) {
		if indexOf(after, e.first.Value) < 0 {
			d.op("remove", path+"/"+pointer.Replace(e.first.Value), nil)
		}
	}
}

// pointer writes a key as JSON Pointer has it (RFC 6901).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// kept reports whether all items of a list are still there, new ones aside.
func kept(before, after *yaml.Node) bool {
	old := 0
	for _, item := range after.Content {
		if item.Line > 0 {
			old++
		}
	}
	return old == len(before.Content)
}
