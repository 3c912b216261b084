package inject

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// was begins the comment that keeps what stood where inject has put something
// and nothing was, such as "env: # was: []": uninject writes it back. JSON has
// no comments, so there the key goes.
const was = "# was:"

// keepEmpty returns the comment for an empty value that is replaced. The comment
// that it had, if any, is kept in it.
func keepEmpty(value *yaml.Node, comment string) string {
	text := value.Value
	switch {
	case value.Kind == yaml.SequenceNode:
		text = "[]"
	case value.Kind == yaml.MappingNode:
		text = "{}"
	case value.Style&yaml.SingleQuotedStyle != 0:
		text = "''"
	case value.ShortTag() == "!!str":
		text = `""`
	}
	kept := was
	for _, s := range []string{text, strings.TrimSpace(comment)} {
		if s != "" {
			kept += " " + s
		}
	}
	return kept
}

// giveBack puts the value that a comment of keepEmpty keeps under the key at i
// of a mapping, with the comment that it had. It reports false if this is no
// such comment.
func giveBack(m *yaml.Node, i int, comment string) bool {
	text, ok := strings.CutPrefix(comment, was)
	var doc yaml.Node
	if !ok || yaml.Unmarshal([]byte("key:"+text+"\n"), &doc) != nil || len(doc.Content) == 0 {
		return false
	}
	old := doc.Content[0]
	if old.Kind != yaml.MappingNode || len(old.Content) != 2 || len(old.Content[1].Content) > 0 {
		return false // written by somebody else
	}
	key := *m.Content[i]
	key.LineComment = old.Content[0].LineComment
	m.Content[i], m.Content[i+1] = &key, old.Content[1]
	return true
}
