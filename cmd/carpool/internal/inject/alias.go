package inject

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// mostNodes bounds what aliases may blow a document up to.
const mostNodes = 100_000

// hasAlias reports whether a tree uses an anchor anywhere.
func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// expand returns a copy of a tree in which every alias and merge key is written
// out: what stands in two places must be changed in one of them alone.
func expand(n *yaml.Node, budget *int) (*yaml.Node, error) {
	if *budget--; *budget < 0 {
		return nil, errorAt(n, "aliases make the document too large: write out what they stand for")
	}
	if n.Kind == yaml.AliasNode {
		return expand(n.Alias, budget)
	}
	c := *n
	c.Anchor, c.Content = "", nil
	var merged []*yaml.Node
	for i, child := range n.Content {
		child, err := expand(child, budget)
		if err != nil {
			return nil, err
		}
		switch {
		case n.Kind != yaml.MappingNode || !isMerge(n.Content[i&^1]):
			c.Content = append(c.Content, child)
		case i%2 == 1:
			merged = append(merged, child)
		}
	}
	for _, m := range merged {
		if err := mergeInto(&c, m); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func isMerge(key *yaml.Node) bool { return key.ShortTag() == "!!merge" }

// mergeInto adds to a mapping what a merge key gives it: the entries, of one
// mapping or of several, that it has not itself.
func mergeInto(m, from *yaml.Node) error {
	switch from.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(from.Content); i += 2 {
			if indexOf(m, from.Content[i].Value) < 0 {
				m.Content = append(m.Content, from.Content[i], from.Content[i+1])
			}
		}
		return nil
	case yaml.SequenceNode:
		for _, item := range from.Content {
			if item.Kind != yaml.MappingNode {
				return errorAt(item, "only a mapping can be merged: give << an alias of one")
			}
			if err := mergeInto(m, item); err != nil {
				return err
			}
		}
		return nil
	}
	return errorAt(from, "only a mapping can be merged: give << an alias of one")
}
