package inject

import (
	"bytes"
	"regexp"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An edit puts text in the place of the lines from ≤ line < to, counted from 0.
type edit struct {
	from, to int
	text     string
}

// A patcher finds the edits that make of a document's text what has become of
// its tree, so that a diff shows what was injected and nothing else. It knows
// collections in block style; others it writes anew.
type patcher struct {
	lines []string // with their line breaks
	edits []edit
	style encoding
}

// writeYAML returns the text of a document whose tree was before and is now
// after. Where lines alone cannot be changed all of it is written anew, with
// its comments.
func writeYAML(src []byte, before, after *yaml.Node) ([]byte, error) {
	p := patcher{lines: linesOf(string(src)), style: encodingOf(before)}
	end := len(p.lines)
	if i := slices.IndexFunc(p.lines, func(l string) bool { return isMarker(l, "...") }); i >= 0 {
		end = i
	}
	if p.value(before, after, end) {
		if out := p.apply(); says(out, after) {
			return out, nil
		}
	}
	out, err := p.anew(before.Line-1, end, after)
	if err == nil && !says(out, after) {
		err = errorAt(before, "this YAML cannot be written back: write it in lines, without tags")
	}
	return out, err
}

// anew encodes a tree in the place of the lines from that on which it begins up
// to end; comments before and behind it stay.
func (p *patcher) anew(from, end int, root *yaml.Node) ([]byte, error) {
	root = clone(root)
	for _, n := range []*yaml.Node{root, root.Content[0], root.Content[len(root.Content)-2]} {
		n.FootComment = ""
	}
	root.HeadComment, root.Content[0].HeadComment = "", ""
	text, err := p.style.encode(root)
	if err != nil {
		return nil, err
	}
	if isMarker(p.lines[from], "---") {
		text = append([]byte("---\n"), text...)
	}
	p.edits = []edit{{from, p.contentEnd(from, end, 1), string(text)}}
	return p.apply(), nil
}

// lineBreak is what ends a line in YAML.
var lineBreak = regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]")

// linesOf splits a text into lines as YAML counts them, with their breaks.
func linesOf(text string) []string {
	var lines []string
	for text != "" {
		end := len(text)
		if at := lineBreak.FindStringIndex(text); at != nil {
			end = at[1]
		}
		lines = append(lines, text[:end])
		text = text[end:]
	}
	return lines
}

// says reports whether a text is read as this tree.
func says(text []byte, root *yaml.Node) bool {
	n, err := readYAML(text)
	return err == nil && n != nil && equal(n, root)
}

// value edits the lines of a collection up to the line end. It reports false if
// that does not do; the edits it left behind are then to be dropped.
func (p *patcher) value(before, after *yaml.Node, end int) bool {
	if equal(before, after) {
		return true
	}
	if after.Line == 0 || before.Kind != after.Kind || !isBlock(before) || !isBlock(after) {
		return false
	}
	old := p.entries(before, end)
	at := old[0].from // where a new entry goes
	for _, e := range entriesOf(after) {
		if e.first.Line == 0 {
			text, ok := p.encode(after, e, "")
			if !ok {
				return false
			}
			p.edits = append(p.edits, edit{at, at, text})
			continue
		}
		i := slices.IndexFunc(old, e.is)
		if i < 0 || !p.entry(after, old[i], e) {
			return false
		}
		at = old[i].to
		old[i].kept = true
	}
	for _, e := range old {
		if !e.kept {
			if p.prefix(e, before.Column) != "" {
				return false
			}
			p.edits = append(p.edits, edit{e.from, e.to, ""})
		}
	}
	return true
}

// entry edits the lines of one entry of a collection.
func (p *patcher) entry(parent *yaml.Node, before, after entry) bool {
	n := len(p.edits)
	if p.value(before.value, after.value, before.to) {
		return true
	}
	p.edits = p.edits[:n]
	text, ok := p.encode(parent, after, p.prefix(before, parent.Column))
	p.edits = append(p.edits, edit{before.from, before.to, text})
	return ok
}

// prefix returns what stands before an entry in its line, dashes of the lists
// around it, or "" if it is blank.
func (p *patcher) prefix(e entry, column int) string {
	line := p.lines[e.from]
	if prefix := line[:min(column-1, len(line))]; strings.TrimSpace(prefix) != "" {
		return prefix
	}
	return ""
}

// An entry is one of a collection's, and the lines it takes.
type entry struct {
	first    *yaml.Node // where it begins: the key, or the item
	value    *yaml.Node
	from, to int
	kept     bool
}

// is reports whether two entries were read from the same place.
func (e entry) is(other entry) bool {
	return e.first.Line == other.first.Line && e.first.Column == other.first.Column
}

func entriesOf(n *yaml.Node) []entry {
	var all []entry
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			all = append(all, entry{first: item, value: item})
		}
		return all
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		all = append(all, entry{first: n.Content[i], value: n.Content[i+1]})
	}
	return all
}

// entries returns those of a collection in block style that ends before the
// line end.
func (p *patcher) entries(n *yaml.Node, end int) []entry {
	all := entriesOf(n)
	for i := len(all) - 1; i >= 0; i-- {
		e := &all[i]
		e.from = e.first.Line - 1
		if n.Kind == yaml.SequenceNode {
			e.from = p.dash(e.from, n)
		}
		e.to = p.contentEnd(e.from, end, n.Column)
		end = e.from
	}
	return all
}

// dash returns the line of the dash before an item that begins in line from: an
// item can stand lines below its dash.
func (p *patcher) dash(from int, list *yaml.Node) int {
	for i := from; i >= list.Line-1; i-- {
		if l := p.lines[i]; len(l) >= list.Column && l[list.Column-1] == '-' {
			return i
		}
	}
	return from
}

// contentEnd returns the line behind the content of an entry that begins at a
// column: blank lines and comments that are not indented deeper belong to what
// follows.
func (p *patcher) contentEnd(from, end, column int) int {
	for ; end > from+1; end-- {
		bare := strings.TrimLeft(p.lines[end-1], " ")
		indent := len(p.lines[end-1]) - len(bare)
		if bare = strings.TrimSpace(bare); bare != "" && (bare[0] != '#' || indent >= column) {
			break
		}
	}
	return end
}

// encode returns the lines of an entry of a collection. With a prefix they
// begin with that.
func (p *patcher) encode(parent *yaml.Node, e entry, prefix string) (string, bool) {
	first := *e.first
	first.HeadComment, first.FootComment = "", "" // they are outside of its lines
	whole := &yaml.Node{Kind: parent.Kind, Content: []*yaml.Node{&first}}
	if parent.Kind == yaml.MappingNode {
		whole.Content = append(whole.Content, e.value)
	}
	out, err := p.style.encode(whole)
	if err != nil {
		return "", false
	}
	indent := strings.Repeat(" ", parent.Column-1)
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) != "" {
			line = indent + line
		}
		b.WriteString(line)
	}
	text := b.String()
	if prefix != "" {
		text = prefix + text[len(prefix):]
	}
	return text, true
}

// apply returns the text with all edits made. It ends in a line break only if it
// did so before.
func (p *patcher) apply() []byte {
	sort.SliceStable(p.edits, func(i, j int) bool { return p.edits[i].from < p.edits[j].from })
	crlf := strings.HasSuffix(p.lines[0], "\r\n")
	var b bytes.Buffer
	at := 0
	for _, e := range p.edits {
		b.WriteString(strings.Join(p.lines[at:e.from], ""))
		if b.Len() > 0 && b.Bytes()[b.Len()-1] != '\n' {
			b.WriteByte('\n')
		}
		if crlf {
			e.text = strings.ReplaceAll(e.text, "\n", "\r\n")
		}
		b.WriteString(e.text)
		at = e.to
	}
	b.WriteString(strings.Join(p.lines[at:], ""))
	out := b.Bytes()
	if at == len(p.lines) && !strings.HasSuffix(p.lines[at-1], "\n") {
		out = bytes.TrimSuffix(bytes.TrimSuffix(out, []byte("\n")), []byte("\r"))
	}
	return out
}

// isBlock reports whether a collection is written in lines of its own.
func isBlock(n *yaml.Node) bool {
	return (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && n.Style&yaml.FlowStyle == 0 && len(n.Content) > 0
}

// unflow turns to block style what has something new in it: in a line of its
// own the new can be read.
func unflow(n *yaml.Node) {
	if !touched(n) {
		return
	}
	n.Style &^= yaml.FlowStyle
	for _, c := range n.Content {
		unflow(c)
	}
}

// encoding is how a document is written.
type encoding struct {
	indented bool // lists deeper than the key they are under
}

// encodingOf finds out how a document is written: as its first list is, or else
// as kubectl does.
func encodingOf(n *yaml.Node) encoding {
	e, _ := firstEncoding(n)
	return e
}

func firstEncoding(n *yaml.Node) (e encoding, ok bool) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && c.Kind == yaml.SequenceNode && isBlock(c) {
			return encoding{indented: c.Column > n.Content[i-1].Column}, true
		}
		if e, ok := firstEncoding(c); ok {
			return e, ok
		}
	}
	return encoding{}, false
}

func (e encoding) encode(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if !e.indented {
		enc.CompactSeqIndent()
	}
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	err := enc.Close()
	return b.Bytes(), err
}

// isMarker reports whether a line is a document marker, --- or ..., with or
// without something behind it.
func isMarker(line, marker string) bool {
	rest, ok := strings.CutPrefix(line, marker)
	return ok && (rest == "" || strings.ContainsRune(" \t\r\n", rune(rest[0])))
}

var (
	plain     = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@:-]*[A-Za-z0-9]$`)
	ambiguous = regexp.MustCompile(`(?i)^(yes|no|on|off|true|false|null)$`)
)

// quotes chooses how a string is written: plain only if every reader of YAML,
// whatever its version, takes it for a string.
func quotes(s string) yaml.Style {
	if plain.MatchString(s) && !ambiguous.MatchString(s) {
		return 0
	}
	return yaml.DoubleQuotedStyle
}
