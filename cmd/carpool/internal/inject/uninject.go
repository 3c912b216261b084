package inject

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// uninject takes out of the pod what inject put in. It goes by what inject
// leaves, not by the options, which it does not know:
//
//   - the status annotation, without which nothing is touched, and that of
//     kubectl's default container right behind it
//   - the container named carpool, if it has the definition's port by its name
//   - the volumes that the definition has, and the mounts, if they are as it has them
//   - a variable in both spellings, one behind the other, with carpool's value,
//     and behind such a pair the variable that carpool sets to nothing
//   - carpool's part of a variable that was extended
//
// The author's own sidecar, named alike, has no such port. What is no pod as
// Kubernetes knows it is left alone.
func (p pod) uninject(o Options) error {
	spec, metadata := get(p.root, "spec"), get(p.root, "metadata")
	annotations := get(metadata, "annotations")
	if text(annotations, statusAnnotation) != injected {
		return nil
	}
	o = o.everything().listening(spec)
	o.Secret = text(get(named(get(spec, "volumes"), secretVolume), "secret"), "secretName")
	s, err := o.sidecar()
	if err != nil {
		return err
	}
	p.forgetDefault(s)
	remove(annotations, statusAnnotation)
	removeEmpty(metadata, "annotations")
	removeEmpty(p.root, "metadata")
	for _, l := range []list{initContainers, containers} {
		removeItems(spec, l.name, s.isOurs)
		if list := get(spec, l.name); list != nil {
			for _, c := range list.Content {
				s.leave(c)
			}
		}
	}
	removeItems(spec, "volumes", func(v *yaml.Node) bool { return like(v, s.volumes) })
	return nil
}

// everything returns options that make the definition show all that it has.
func (o Options) everything() Options {
	o.HTTPS, o.Java, o.Preload, o.PreloadHTTPS, o.Plain = true, true, true, true, false
	o.Cache = true
	o.NoProxy = nil
	return o
}

// isOurs reports whether a container is the definition's, of this version of
// carpool or another.
func (s *sidecar) isOurs(container *yaml.Node) bool {
	port := get(s.container, "ports").Content[0]
	return text(container, "name") == sidecarName && named(get(container, "ports"), text(port, "name")) != nil
}

// leave takes out of a container of the app what serve put in.
func (s *sidecar) leave(container *yaml.Node) {
	removeItems(container, "volumeMounts", func(m *yaml.Node) bool { return like(m, s.mounts) })
	env := get(container, "env")
	if env == nil || env.Kind != yaml.SequenceNode {
		return
	}
	var kept []*yaml.Node
	behind := false // a pair of ours
	for i := 0; i < len(env.Content); i++ {
		switch entry := env.Content[i]; {
		case s.isPair(env.Content[i:]):
			behind = true
			i++
		case behind && s.isBlank(entry), s.isOwn(entry):
		case !s.unextend(entry):
			behind = false
			kept = append(kept, entry)
		}
	}
	if len(kept) < len(env.Content) {
		env.Content = kept
		removeEmpty(container, "env")
	}
}

// isPair reports whether entries begin with both spellings of a variable of
// ours, with our value. A list can have got more behind it.
func (s *sidecar) isPair(entries []*yaml.Node) bool {
	for i := 0; i+1 < len(s.env) && len(entries) > 1; i++ {
		a, b := s.env[i], s.env[i+1]
		value := text(entries[0], "value")
		if a.Extend != " " && strings.EqualFold(a.Name, b.Name) &&
			text(entries[0], "name") == a.Name && text(entries[1], "name") == b.Name && text(entries[1], "value") == value &&
			(value == a.Value || strings.HasPrefix(value, a.Value+",")) {
			return true
		}
	}
	return false
}

// isBlank reports whether an entry is a variable that we set to nothing.
func (s *sidecar) isBlank(entry *yaml.Node) bool {
	return text(entry, "value") == "" && get(entry, "valueFrom") == nil &&
		slices.ContainsFunc(s.env, func(v variable) bool { return v.Value == "" && v.Name == text(entry, "name") })
}

// isOwn reports whether an entry is a variable with our value that has a meaning to
// carpool alone.
func (s *sidecar) isOwn(entry *yaml.Node) bool {
	name := text(entry, "name")
	return strings.HasPrefix(name, settingPrefix) &&
		slices.ContainsFunc(s.env, func(v variable) bool { return v.Name == name && v.Value == text(entry, "value") })
}

// unextend takes our part out of a variable that is extended. It reports true
// if nothing is left of it.
func (s *sidecar) unextend(entry *yaml.Node) bool {
	for _, v := range s.env {
		if v.Extend == "" || text(entry, "name") != v.Name {
			continue
		}
		value := text(entry, "value")
		at := strings.LastIndex(value, v.Value)
		if at < 0 || !v.isTail(value[at+len(v.Value):]) {
			continue
		}
		i := indexOf(entry, "value")
		switch {
		case at > 0:
		case giveBack(entry, i, entry.Content[i+1].LineComment):
			continue
		case v.Extend == ",": // of the list both spellings are put in: this one was there, and empty
			setText(entry, "value", "")
			continue
		default:
			return true
		}
		if own, ok := strings.CutSuffix(value[:at], v.Extend); ok {
			setText(entry, "value", own)
		}
	}
	return false
}

// isTail reports whether this can stand behind our value: the user's entries,
// behind a list of hosts.
func (v variable) isTail(s string) bool {
	return s == "" || v.Extend == "," && s[0] == ',' || v.Extend == " " && s[0] == '|' && !strings.Contains(s, " ")
}

// removeItems takes items out of the list under a key, and the key with the
// last of them.
func removeItems(m *yaml.Node, key string, which func(*yaml.Node) bool) {
	list := get(m, key)
	if list == nil || list.Kind != yaml.SequenceNode || !slices.ContainsFunc(list.Content, which) {
		return
	}
	list.Content = slices.DeleteFunc(list.Content, which)
	removeEmpty(m, key)
}

// like reports whether a node says the same as one of the definition's.
func like(n *yaml.Node, ours []*yaml.Node) bool {
	return slices.ContainsFunc(ours, func(o *yaml.Node) bool { return equal(sorted(n), sorted(o)) })
}
