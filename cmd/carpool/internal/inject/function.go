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
	var errs []error
	fail := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("functionConfig: %s: %w", key, err))
		}
	}
	o.Settings = maps.Clone(o.Settings)
	for i := 0; i+1 < len(data.Content); i += 2 {
		key, value := data.Content[i].Value, data.Content[i+1].Value
		fail(key, o.configure(key, value))
	}
	unknown, err := o.check()
	if err != nil {
		errs = append(errs, fmt.Errorf("functionConfig: %w", err))
	}
	for _, u := range unknown {
		errs = append(errs, fmt.Errorf("functionConfig: %w", u))
	}
	return o, errors.Join(errs...)
}

// configure sets the option of one key.
func (o *Options) configure(key, value string) error {
	flags := map[string]*bool{"plain": &o.Plain, "strict": &o.Strict}
	if flag := flags[key]; flag != nil {
		*flag = value == "true"
		return want(value == "true" || value == "false", "true or false", value)
	}
	if key == "settings" {
		return o.addSettings(value)
	}
	at := slices.IndexFunc(options, func(opt option) bool { return camelCase(opt.name) == key })
	if at < 0 {
		return errors.New("there is no such option: carpool inject -h names them")
	}
	return options[at].set(o, value)
}

// addSettings reads lines of the form NAME=value. Empty ones do not count, nor
// do those that begin with #.
func (o *Options) addSettings(lines string) error {
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("want lines such as IDLE_TIMEOUT=30s, not %q", line)
		}
		o.Settings[name] = strings.TrimSpace(value)
	}
	return nil
}

// camelCase returns a name such as cpu-request as keys have it: cpuRequest.
func camelCase(name string) string {
	var b strings.Builder
	for i, word := range strings.Split(name, "-") {
		if i > 0 {
			word = strings.ToUpper(word[:1]) + word[1:]
		}
		b.WriteString(word)
	}
	return b.String()
}
