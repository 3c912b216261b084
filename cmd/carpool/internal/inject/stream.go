package inject

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A rewriter changes the pods in a file.
type rewriter struct {
	change func(p pod) error
	rest   bool // what has containers where no pod is looked for is passed over, and that is told
	strict bool // what is passed over is an error

	notes      []string // what the user should know
	errs       []error
	unrendered bool // told once
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
		lines := bytes.Count(src, []byte("\n"))
		before, err := read(src)
		if err != nil || before != nil {
			d.number++
		}
		if template := unrendered(src, before, err); template != nil {
			err = template
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
		d.line += lines
	}
	return out.Bytes(), errors.Join(r.errs...)
}

// A document is one of a file's.
type document struct {
	*rewriter
	number int // from 1; empty ones do not count; 0: places are not told
	line   int // how many lines are before it
}

// changed returns the tree of a document without aliases, as it was and as it
// is to be; nil if nothing changes.
func (d document) changed(before *yaml.Node) (*yaml.Node, *yaml.Node, error) {
	if !slices.ContainsFunc(objects(before), object.isWorkload) {
		for _, o := range objects(before) {
			d.passRest(o, nil)
		}
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
	for _, o := range objects(after) {
		d.changeObject(o)
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

// changeObject changes the pods of an object.
func (d document) changeObject(o object) {
	if key := patchKey(o.root); key != "" && d.rest {
		d.pass(o.name(), "it is a patch for another file, by its "+key)
		return
	}
	pods, err := o.pods()
	if err != nil {
		d.fail(err)
		return
	}
	if len(pods) == 0 && o.isWorkload() {
		d.pass(o.name(), "it has no "+strings.Join(podsOf[o.kind], ".")+" (a patch for another file?)")
	}
	for _, n := range pods {
		p := pod{root: n, kind: o.kind, note: func(text string) { d.note(o.name(), text) }, pass: func(why string) { d.pass(o.name(), why) }}
		if err := d.change(p); err != nil {
			d.fail(err)
		}
	}
	d.passRest(o, pods)
}

// passRest passes over the containers of an object that are in none of its
// pods.
func (d document) passRest(o object, pods []*yaml.Node) {
	isObject := o.kind != "" || text(o.root, "apiVersion") != "" // one of them can be misspelt
	if !d.rest || !isObject {
		return
	}
	const most = 3
	places := containersIn(o.root, "", pods)
	if more := len(places) - most; more > 0 {
		places = append(places[:most], fmt.Sprintf("%d more places", more))
	}
	if len(places) > 0 {
		d.pass(o.name(), "it has containers in "+strings.Join(places, ", ")+
			", where inject puts nothing (the admission policy serves the pods that are made of it)")
	}
}

// pass tells that something is left as it is though carpool may be meant for it.
func (d document) pass(name, why string) {
	if d.strict {
		d.fail(fmt.Errorf("%s is passed over: %s", cmp.Or(name, "this"), why))
		return
	}
	d.note(name, "left as it is: "+why)
}

func (d document) note(name, text string) {
	if d.number == 0 {
		d.notes = append(d.notes, text)
		return
	}
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
	if errors.Is(err, errUnrendered) {
		if d.unrendered {
			return
		}
		d.unrendered = true
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
	place += ": "
	if d.number == 0 {
		place = ""
	}
	for l := range strings.Lines(text) {
		d.errs = append(d.errs, errors.New(place+strings.TrimSpace(l)))
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
