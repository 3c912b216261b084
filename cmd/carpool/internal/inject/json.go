package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// isJSON reports whether a file is JSON, one value or several.
func isJSON(in []byte) bool {
	in = bytes.TrimLeft(in, " \t\r\n")
	if len(in) == 0 || in[0] != '{' {
		return false
	}
	for d := json.NewDecoder(bytes.NewReader(in)); ; {
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// splitJSON splits what isJSON accepts into its values, each with the white
// space behind it. (The first has also what is before it.)
func splitJSON(in []byte) [][]byte {
	var parts [][]byte
	d := json.NewDecoder(bytes.NewReader(in))
	for from := 0; ; {
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return parts
		}
		to := int(d.InputOffset())
		to += len(in[to:]) - len(bytes.TrimLeft(in[to:], " \t\r\n"))
		parts = append(parts, in[from:to])
		from = to
	}
}

// parseJSON reads one value.
func parseJSON(in []byte) (*yaml.Node, error) {
	r := jsonReader{Decoder: json.NewDecoder(bytes.NewReader(in)), in: in, line: 1}
	r.UseNumber()
	return r.read()
}

// jsonReader reads a value into a tree.
type jsonReader struct {
	*json.Decoder
	in   []byte
	line int   // of what was read last
	at   int64 // where that ends
}

func (r *jsonReader) read() (*yaml.Node, error) {
	token, err := r.Token()
	if err != nil {
		return nil, err
	}
	r.line += bytes.Count(r.in[r.at:r.InputOffset()], []byte("\n"))
	r.at = r.InputOffset()
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch v := token.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for r.More() {
			child, err := r.read()
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err = r.Token() // the closing bracket
	case string:
		n.Tag, n.Value = "!!str", v
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if !strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!int" // as in YAML
		}
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(v)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, err
}

var firstIndent = regexp.MustCompile(`^\s*[{[]\r?\n([ \t]+)`)

// writeJSON writes a tree in the layout of src.
func writeJSON(src []byte, _, n *yaml.Node) ([]byte, error) {
	escape := bytes.Contains(src, []byte(`\u003c`)) || bytes.Contains(src, []byte(`\u003e`)) || bytes.Contains(src, []byte(`\u0026`))
	var compact, out bytes.Buffer
	if err := appendJSON(&compact, n, escape); err != nil {
		return nil, err
	}
	bare := bytes.TrimSpace(src)
	before, after, _ := bytes.Cut(src, bare)
	out.Write(before)
	if m := firstIndent.FindSubmatch(src); m == nil {
		out.Write(compact.Bytes())
	} else if err := json.Indent(&out, compact.Bytes(), "", string(m[1])); err != nil {
		return nil, err
	}
	out.Write(after)
	return out.Bytes(), nil
}

// appendJSON writes a tree in one line. With escape it writes <, > and & as
// Kubernetes itself does.
func appendJSON(b *bytes.Buffer, n *yaml.Node, escape bool) error {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() != "!!str" {
			b.WriteString(n.Value)
			return nil
		}
		return appendString(b, n.Value, escape)
	case yaml.MappingNode, yaml.SequenceNode:
		brackets := "[]"
		if n.Kind == yaml.MappingNode {
			brackets = "{}"
		}
		b.WriteByte(brackets[0])
		for i, c := range n.Content {
			if i > 0 {
				b.WriteByte(separator(n, i))
			}
			if err := appendJSON(b, c, escape); err != nil {
				return err
			}
		}
		b.WriteByte(brackets[1])
		return nil
	}
	return fmt.Errorf("bug: a node of kind %d in JSON", n.Kind)
}

func separator(n *yaml.Node, i int) byte {
	if n.Kind == yaml.MappingNode && i%2 == 1 {
		return ':'
	}
	return ','
}

func appendString(b *bytes.Buffer, s string, escape bool) error {
	var quoted strings.Builder
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(escape)
	if err := e.Encode(s); err != nil {
		return err
	}
	b.WriteString(strings.TrimSuffix(quoted.String(), "\n"))
	return nil
}
