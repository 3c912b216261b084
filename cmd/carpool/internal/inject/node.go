package inject

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Trees are those of package yaml, for JSON too. A node that was read has the
// line it stands on; one that is new, or that says something new, has line 0.

// A lineError is what is wrong with a line of a document.
type lineError struct {
	line int // from 1, in the document; 0 is not known
	text string
	err  error // what kind of fault it is, or nil
}

func (e *lineError) Error() string { return e.text }
func (e *lineError) Unwrap() error { return e.err }

func errorAt(n *yaml.Node, format string, args ...any) error {
	return &lineError{line: n.Line, text: fmt.Sprintf(format, args...)}
}

// get returns the value of a key, or nil if m has no such key or it is null.
func get(m *yaml.Node, key string) *yaml.Node {
	if i := indexOf(m, key); i >= 0 && m.Content[i+1].ShortTag() != "!!null" {
		return m.Content[i+1]
	}
	return nil
}

// text returns the value of a key as it is written, or "".
func text(m *yaml.Node, key string) string {
	if v := get(m, key); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

// indexOf returns where in m.Content a key is, or -1. A nil m is empty.
func indexOf(m *yaml.Node, key string) int {
	if m == nil || m.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// child returns the mapping or sequence under a key, nil if there is none, and
// an error if there is something else.
func child(m *yaml.Node, key string, kind yaml.Kind) (*yaml.Node, error) {
	v := get(m, key)
	if v == nil || v.Kind == kind {
		return v, nil
	}
	if kind == yaml.SequenceNode {
		return nil, errorAt(v, "%s is not a list: put \"- \" before each of its items", key)
	}
	return nil, errorAt(v, "%s is not a mapping: write \"NAME: VALUE\" lines under it", key)
}

// add returns the mapping or sequence under a key, to put something into it,
// and makes it if there is none: in front of the key named before, or else at
// the end. One that is there and empty is kept in a comment.
func add(m *yaml.Node, key string, kind yaml.Kind, before string) (*yaml.Node, error) {
	v, err := child(m, key, kind)
	if err != nil || v != nil && (len(v.Content) > 0 || v.Line == 0) {
		return v, err
	}
	if i := indexOf(m, key); i >= 0 && m.Content[i+1].Line > 0 {
		k, old := m.Content[i], m.Content[i+1]
		k.LineComment = keepEmpty(old, k.LineComment+" "+old.LineComment)
		old.LineComment = ""
	}
	if v == nil {
		v = &yaml.Node{Kind: kind}
		set(m, key, v, before)
	}
	return v, nil
}

// set gives a key its value; a new key goes in front of the one named before,
// or else to the end.
func set(m *yaml.Node, key string, value *yaml.Node, before string) {
	if i := indexOf(m, key); i >= 0 {
		m.Content[i+1] = value
		return
	}
	at := indexOf(m, before)
	if at < 0 {
		at = len(m.Content)
	}
	m.Content = slices.Insert(m.Content, at, scalar(key), value)
}

// remove takes a key and its value out.
func remove(m *yaml.Node, key string) {
	if i := indexOf(m, key); i >= 0 {
		m.Content = slices.Delete(m.Content, i, i+2)
	}
}

// removeEmpty takes a key out if nothing is left under it, or gives back what
// was there.
func removeEmpty(m *yaml.Node, key string) {
	if v := get(m, key); v == nil || v.Kind == yaml.ScalarNode || len(v.Content) > 0 {
		return
	}
	if i := indexOf(m, key); !giveBack(m, i, m.Content[i].LineComment) {
		remove(m, key)
	}
}

// named returns the first item of a list whose name is this, or nil.
func named(list *yaml.Node, name string) *yaml.Node {
	if i := position(list, name); i >= 0 {
		return list.Content[i]
	}
	return nil
}

// position returns the index of the first item of a list whose name is this, or
// -1. A nil list is empty.
func position(list *yaml.Node, name string) int {
	if list == nil {
		return -1
	}
	return slices.IndexFunc(list.Content, func(item *yaml.Node) bool { return text(item, "name") == name })
}

// scalar returns a new string.
func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: quotes(s)}
}

// setText gives a key a string, written as the one before it was.
func setText(m *yaml.Node, key, value string) {
	n := scalar(value)
	if old := get(m, key); old != nil {
		n.Style, n.LineComment = old.Style, old.LineComment
	}
	set(m, key, n, "")
}

// mapping returns a new one, of keys and strings in turn.
func mapping(keysAndValues ...string) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range keysAndValues {
		m.Content = append(m.Content, scalar(s))
	}
	return m
}

// clone copies a tree.
func clone(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = clone(child)
	}
	return &c
}

// equal reports whether two trees say the same, in the same order. How they are
// written and commented does not count.
func equal(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.Value == b.Value && a.ShortTag() == b.ShortTag() &&
		slices.EqualFunc(a.Content, b.Content, equal)
}

// sorted returns a copy of a tree with the keys in order, which does not count
// to Kubernetes.
func sorted(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = nil
	for _, e := range entriesOf(n) {
		e.value = sorted(e.value)
		if n.Kind == yaml.SequenceNode {
			c.Content = append(c.Content, e.value)
			continue
		}
		at := 0
		for at < len(c.Content) && c.Content[at].Value < e.first.Value {
			at += 2
		}
		c.Content = slices.Insert(c.Content, at, e.first, e.value)
	}
	return &c
}

// touched reports whether anything in a tree is new.
func touched(n *yaml.Node) bool { return n.Line == 0 || slices.ContainsFunc(n.Content, touched) }

// checkKeys finds what cannot be worked on: keys that occur twice, of which
// readers take the first or the last, and keys that are no scalars.
func checkKeys(n *yaml.Node) error {
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Kind != yaml.ScalarNode && c.Kind != yaml.AliasNode {
				return errorAt(c, "a key that is a list or a mapping: Kubernetes has none, write a name")
			}
			if seen[c.Value] && c.Kind == yaml.ScalarNode {
				return errorAt(c, "%q is there twice: take one out", c.Value)
			}
			seen[c.Value] = true
		}
		if err := checkKeys(c); err != nil {
			return err
		}
	}
	return nil
}
