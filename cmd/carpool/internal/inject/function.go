package inject

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A resourceList is how Kustomize and kpt hand manifests to a function, and take
// them back (the KRM Functions Specification, v1):
//
//	kind: ResourceList
//	items: [the manifests]
//	functionConfig: {kind: ConfigMap, data: {options}}
//	results: [{message: …, severity: error}]
//
// Its text is edited as that of any file is, so that an item that is not changed
// stays as it is.
type resourceList struct {
	src   []byte
	root  *yaml.Node
	write func(src []byte, before, after *yaml.Node) ([]byte, error)
}

// readResourceList reads a file, and reports whether it is one of these.
func readResourceList(in []byte) (l resourceList, ok bool) {
	l = resourceList{src: in, write: writeYAML}
	read := readYAML
	if isJSON(in) {
		read, l.write = parseJSON, writeJSON
	}
	root, err := read(in)
	if err != nil || root == nil {
		return l, false
	}
	l.root = root
	group, _, _ := strings.Cut(text(root, "apiVersion"), "/")
	return l, text(root, "kind") == "ResourceList" && group == "config.kubernetes.io"
}

// run is the function. If anything is wrong the items go back as they came, and
// the results say what it is.
func (l resourceList) run(name string, o Options, stdout, stderr io.Writer) int {
	after, results, err := l.changed(name, o)
	code := exitOK
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			results = append(results, result{severity: severityError, message: strings.TrimSpace(line)})
		}
	}
	if slices.ContainsFunc(results, func(r result) bool { return r.severity == severityError }) {
		after, code = clone(l.root), exitFailed
	}
	for _, r := range results {
		fmt.Fprintf(stderr, "carpool %s: %s\n", name, r)
	}
	out := l.src
	if addResults(after, results); !equal(l.root, after) {
		unflow(after)
		if out, err = l.write(l.src, l.root, after); err != nil {
			fmt.Fprintf(stderr, "carpool %s: the list cannot be written: %v\n", name, err)
			return exitFailed
		}
	}
	if _, err := stdout.Write(out); err != nil {
		fmt.Fprintf(stderr, "carpool %s: %v\n", name, err)
		return exitFailed
	}
	return code
}

// changed returns the list with its items changed, and what there is to say of
// them.
func (l *resourceList) changed(name string, o Options) (after *yaml.Node, results []result, err error) {
	if err := checkKeys(l.root); err != nil {
		return nil, nil, err
	}
	if hasAlias(l.root) {
		budget := mostNodes
		root, err := expand(l.root, &budget)
		if err != nil {
			return nil, nil, err
		}
		l.root = root
		defer func() {
			if after != nil {
				after.Line = 0 // the lines of the text are no longer the tree's
			}
		}()
	}
	if name == "inject" {
		if o, err = o.configured(get(l.root, "functionConfig")); err != nil {
			return nil, nil, err
		}
	}
	after = clone(l.root)
	items, err := child(after, "items", yaml.SequenceNode)
	if err != nil || items == nil {
		return after, nil, err
	}
	for _, item := range items.Content {
		for _, object := range objects(item) {
			r := rewriterOf(name, o)
			document{rewriter: &r}.changeObject(object)
			for _, note := range r.notes {
				results = append(results, result{object.root, severityInfo, note})
			}
			for _, err := range r.errs {
				results = append(results, result{object.root, severityError, err.Error()})
			}
		}
	}
	return after, results, nil
}

// How bad a result is.
const (
	severityError = "error"
	severityInfo  = "info"
)

// A result is something to say of an object, or of the whole list if that is nil.
type result struct {
	of                *yaml.Node
	severity, message string
}

func (r result) String() string {
	if r.of == nil {
		return r.message
	}
	name := strings.TrimSpace(text(r.of, "kind") + " " + text(get(r.of, "metadata"), "name"))
	return cmp.Or(name, "an item") + ": " + r.message
}

// node is the result as the specification has it, with the file that the object
// came from, if its annotations say so.
func (r result) node() *yaml.Node {
	n := mapping("message", r.message, "severity", r.severity)
	if r.of == nil {
		return n
	}
	metadata := get(r.of, "metadata")
	apiVersion, kind, name := text(r.of, "apiVersion"), text(r.of, "kind"), text(metadata, "name")
	if apiVersion != "" && kind != "" && name != "" {
		ref := mapping("apiVersion", apiVersion, "kind", kind, "name", name)
		if namespace := text(metadata, "namespace"); namespace != "" {
			set(ref, "namespace", scalar(namespace), "")
		}
		set(n, "resourceRef", ref, "")
	}
	annotations := get(metadata, "annotations")
	annotation := func(name string) string {
		return cmp.Or(text(annotations, "internal.config.kubernetes.io/"+name), text(annotations, "config.kubernetes.io/"+name))
	}
	if path := annotation("path"); path != "" {
		file := mapping("path", path)
		if index, err := strconv.ParseUint(annotation("index"), 10, 32); err == nil {
			set(file, "index", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatUint(index, 10)}, "")
		}
		set(n, "file", file, "")
	}
	return n
}

// addResults puts results behind those that a list has.
func addResults(list *yaml.Node, results []result) {
	if len(results) == 0 {
		return
	}
	all := &yaml.Node{Kind: yaml.SequenceNode}
	if there := get(list, "results"); there != nil && there.Kind == yaml.SequenceNode {
		all.Content = slices.Clone(there.Content)
	}
	for _, r := range results {
		all.Content = append(all.Content, r.node())
	}
	set(list, "results", all, "")
}

// configured returns the options as the data of a ConfigMap have them. Its keys
// are those of a namespace's ConfigMap, and plain and strict.
func (o Options) configured(config *yaml.Node) (Options, error) {
	data, err := child(config, "data", yaml.MappingNode)
	if err != nil || data == nil {
		return o, err
	}
	o.Settings = maps.Clone(o.Settings)
	var errs []error
	for _, e := range entriesOf(data) {
		errs = append(errs, o.configure(e.first.Value, e.value.Value))
	}
	if err := errors.Join(append(errs, o.check())...); err != nil {
		return o, fmt.Errorf("functionConfig: %s", strings.ReplaceAll(err.Error(), "\n", "\nfunctionConfig: "))
	}
	return o, nil
}

// configure sets the option of one key.
func (o *Options) configure(key, value string) error {
	var err error
	switch at := slices.IndexFunc(options, func(opt option) bool { return opt.key() == key }); {
	case at >= 0:
		err = options[at].set(o, value)
	case key == "settings":
		settings, errs := lines(value)
		for _, s := range settings {
			o.Settings[s.name] = s.value
		}
		return errors.Join(errs...)
	case key == "plain":
		o.Plain, err = value == "true", want(value == "true" || value == "false", "true or false", value)
	case key == "strict":
		o.Strict, err = value == "true", want(value == "true" || value == "false", "true or false", value)
	default:
		err = errors.New("there is no such option: carpool inject -h names them")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
