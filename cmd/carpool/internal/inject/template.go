package inject

import (
	"bytes"
	"errors"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// errUnrendered is told once of a file, with the first place.
var errUnrendered = errors.New("this is a template: render it first: " +
	"helm template NAME CHART | carpool inject -f - | kubectl apply -f -")

// isHelms finds what a chart's templates have in their strings. Other programs
// have templates of the same language in their arguments, kubectl among them.
var isHelms = regexp.MustCompile(`\{\{-?[ (]*(\$?\.(Values|Release|Chart|Capabilities)\b|include |toYaml )`).MatchString

// unrendered returns an error if a document is one of a chart's templates. Of
// documents that can be read only workloads are looked at: others may hold
// templates that are meant for somebody else.
func unrendered(src []byte, n *yaml.Node, readErr error) error {
	line := 0
	switch {
	case readErr != nil:
		before, _, found := bytes.Cut(src, []byte("{{"))
		if !found {
			return nil
		}
		line = 1 + bytes.Count(before, []byte("\n"))
	case n != nil && slices.ContainsFunc(objects(n), object.isWorkload):
		at := templated(n)
		if at == nil {
			return nil
		}
		line = at.Line
	default:
		return nil
	}
	return &lineError{line: line, text: errUnrendered.Error(), err: errUnrendered}
}

// templated returns the first node of a tree that has something to be rendered
// in it, or nil. Without quotes {{ x }} is read as a mapping with a mapping for
// its key.
func templated(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode && isHelms(n.Value) {
		return n
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.MappingNode {
			return n
		}
		if at := templated(c); at != nil {
			return at
		}
	}
	return nil
}
