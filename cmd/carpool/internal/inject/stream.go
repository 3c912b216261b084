package inject

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// podsOf says where a workload of a group and kind has its pod.
var podsOf = map[string][]string{
	"/Pod":                   {},
	"/ReplicationController": {"spec", "template"},
	"apps/Deployment":        {"spec", "template"},
	"apps/StatefulSet":       {"spec", "template"},
	"apps/DaemonSet":         {"spec", "template"},
	"apps/ReplicaSet":        {"spec", "template"},
	"batch/Job":              {"spec", "template"},
	"batch/CronJob":          {"spec", "jobTemplate", "spec", "template"},
}

// A rewriter changes the pods in a file.
type rewriter struct {
	change func(p pod) error
	notes  []string // what the user should know
	errs   []error
}

// rewrite returns the file with its pods changed and all else as it was. The
// error says all that is wrong, one fault a line.
func (r *rewriter) rewrite(in []byte) ([]byte, error) {
	parts, read, write := splitYAML(in), readYAML, writeYAML
	if isJSON(in) {
		parts, read, write = splitJSON(in), parseJSON, writeJSON
	}
	var out bytes.Buffer
	d := document{rewriter: r}
	for _, src := range parts {
		before, err := read(src)
		if err != nil || before != nil {
			d.number++
		}
		if err == nil && before != nil {
			var after *yaml.Node
			if before, after, err = d.changed(before); err == nil && after != nil {
				src, err = write(src, before, after)
			}
		}
		if err != nil {
			d.fail(err)
		}
		out.Write(src)
		d.line += bytes.Count(src, []byte("\n"))
	}
	return out.Bytes(), errors.Join(r.errs...)
}

// A document is one of a file's.
type document struct {
	*rewriter
	number int // from 1; empty ones do not count
	line   int // how many lines are before it
}

// changed returns the tree of a document without aliases, as it was and as it
// is to be; nil if nothing changes.
func (d document) changed(before *yaml.Node) (*yaml.Node, *yaml.Node, error) {
	if len(workloads(before)) == 0 {
		return nil, nil, nil
	}
	if err := checkKeys(before); err != nil {
		return nil, nil, err
	}
	aliases := hasAlias(before)
	if aliases {
		var err error
		budget := mostNodes
		if before, err = expand(before, &budget); err != nil {
			return nil, nil, err
		}
	}
	after := clone(before)
	for _, w := range workloads(after) {
		if err := d.changePod(w); err != nil {
			d.fail(err)
		}
	}
	if equal(before, after) {
		return nil, nil, nil
	}
	if aliases {
		d.note("", "YAML aliases are written out")
		after.Line = 0 // the lines of the text are no longer the tree's
	}
	unflow(after)
	return before, after, nil
}

// A workload is an object with a pod in it.
type workload struct {
	root *yaml.Node
	path []string // to the pod
}

// workloads returns those in a document: it, the items of a List, or none.
func workloads(n *yaml.Node) []workload {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	group, _, ok := strings.Cut(text(n, "apiVersion"), "/")
	if !ok {
		group = "" // of the core group's only the version is written
	}
	kind := group + "/" + text(n, "kind")
	if path, ok := podsOf[kind]; ok {
		return []workload{{n, path}}
	}
	var all []workload
	if items := get(n, "items"); kind == "/List" && items != nil {
		for _, item := range items.Content {
			all = append(all, workloads(item)...)
		}
	}
	return all
}

func (d document) changePod(w workload) error {
	name := strings.TrimSpace(text(w.root, "kind") + " " + text(get(w.root, "metadata"), "name"))
	n := w.root
	for _, key := range w.path {
		next, err := child(n, key, yaml.MappingNode)
		if err != nil {
			return err
		}
		if next == nil {
			d.note(name, "left as it is: it has no "+strings.Join(w.path, ".")+" (a patch for another file?)")
			return nil
		}
		n = next
	}
	return d.change(pod{n, text(w.root, "kind"), func(text string) { d.note(name, text) }})
}

func (d document) note(name, text string) {
	if name != "" {
		name = " (" + name + ")"
	}
	d.notes = append(d.notes, fmt.Sprintf("document %d%s: %s", d.number, name, text))
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// fail keeps an error, with its place in the file.
func (d document) fail(err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range several.Unwrap() {
			d.fail(err)
		}
		return
	}
	line, text := 0, err.Error()
	if at, ok := errors.AsType[*lineError](err); ok {
		line = at.line
	} else if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = "no valid YAML: " + text[len(m[0]):]
		if line > 0 && strings.Contains(text, "did not find expected") {
			line++ // package yaml counts from 0 in what its parser says, from 1 in what its scanner says
		}
	}
	place := fmt.Sprintf("document %d", d.number)
	if line > 0 {
		place += fmt.Sprintf(", line %d", d.line+line)
	}
	for l := range strings.Lines(text) {
		d.errs = append(d.errs, errors.New(place+": "+strings.TrimSpace(l)))
	}
}

// splitYAML splits a file into its documents, each from its marker on; comments
// and directives before the first marker are the first document's.
func splitYAML(in []byte) [][]byte {
	var parts [][]byte
	from, at, empty := 0, 0, true
	for line := range bytes.Lines(in) {
		if isMarker(string(line), "---") && !empty {
			parts = append(parts, in[from:at])
			from = at
		}
		at += len(line)
		bare := bytes.TrimSpace(line)
		empty = empty && (len(bare) == 0 || bare[0] == '#' || bare[0] == '%')
	}
	return append(parts, in[from:])
}

// readYAML reads a document; nil is an empty one.
func readYAML(in []byte) (*yaml.Node, error) {
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(in))
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, cmp.Or(err, errorAt(&more, "something behind the document's end: put a line --- before it"))
	}
	return doc.Content[0], nil
}
