package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	statusAnnotation = prefix + "status"
	injected         = "injected"

	sidecarName  = "carpool" // of the container and of the volume
	secretVolume = "carpool-secret"
)

// A pod is a Pod or the template of one, as a tree.
type pod struct {
	root *yaml.Node // metadata and spec
	kind string     // of the workload
	note func(string)
	pass func(why string) // tells that it is left as it is, though carpool may be meant for it
}

// list is a list of the pod's spec: its name and, where it is made, what it
// goes in front of.
type list struct{ name, before string }

var (
	initContainers = list{"initContainers", "containers"}
	containers     = list{"containers", ""}
)

// get returns the list, or nil if there is none. Its items are mappings.
func (l list) get(spec *yaml.Node) (*yaml.Node, error) {
	n, err := child(spec, l.name, yaml.SequenceNode)
	if n == nil || err != nil {
		return nil, err
	}
	for _, item := range n.Content {
		if item.Kind != yaml.MappingNode {
			return nil, errorAt(item, "an item of %s is not a mapping: begin it with \"- name: NAME\"", l.name)
		}
	}
	return n, nil
}

// notFor returns why a pod gets no carpool, or "".
func (p pod) notFor(spec *yaml.Node) string {
	metadata := get(p.root, "metadata")
	switch {
	case text(get(metadata, "labels"), prefix+"inject") == "false":
		return "opted out by its label"
	case text(spec, "hostNetwork") == "true":
		return "hostNetwork: it shares the node's network, and so would carpool's port"
	case text(get(spec, "os"), "name") == "windows" || text(get(spec, "nodeSelector"), "kubernetes.io/os") == "windows":
		return "for Windows nodes, and carpool is for Linux"
	case indexOf(get(metadata, "annotations"), "kubernetes.io/config.mirror") >= 0:
		return "a mirror pod: change the static pod's file on the node"
	}
	return ""
}

// inject puts the sidecar and what belongs to it into the pod of a manifest,
// which need not be whole.
func (p pod) inject(o Options) error {
	spec, err := child(p.root, "spec", yaml.MappingNode)
	if err != nil {
		return err
	}
	if reason := p.notFor(spec); reason != "" {
		p.note("left as it is: " + reason)
		return nil
	}
	apps, err := containers.get(spec)
	if err != nil {
		return err
	}
	if apps == nil || len(apps.Content) == 0 {
		p.pass("it has no containers (a patch for another file?)")
		return nil
	}
	if i := slices.IndexFunc(apps.Content, func(c *yaml.Node) bool { return !hasImage(c) }); i >= 0 {
		p.pass(strings.TrimSpace("the container "+text(apps.Content[i], "name")) + " has no image (a patch for another file?)")
		return nil
	}
	if strings.HasPrefix(p.kind, "serving.knative.dev/") {
		p.pass("Knative refuses native sidecars in what it is given (the admission policy serves the pods that it makes)")
		return nil
	}
	return p.add(spec, apps, o, nil)
}

// add puts the sidecar and what belongs to it into the pod. What is there already
// is left as it is. data is the ConfigMap of the pod's namespace, nil is none. The
// error has all that is wrong.
func (p pod) add(spec, apps *yaml.Node, o Options, data map[string]string) error {
	metadata, err := add(p.root, "metadata", yaml.MappingNode, "spec")
	if err != nil {
		return err
	}
	annotations, err := add(metadata, "annotations", yaml.MappingNode, "")
	if err != nil {
		return err
	}
	o, wrong := o.overridden(data, annotations, p.note)
	if text(annotations, statusAnnotation) != injected {
		set(annotations, statusAnnotation, scalar(injected), "")
	}
	there, o, err := p.fitted(spec, apps, o)
	if err := errors.Join(wrong, err); err != nil {
		return err
	}
	return p.injectSpec(spec, apps, there, o)
}

// there is where a container named carpool is that the pod has already; -1: it is
// not in that list.
type there struct{ init, app int }

func (t there) is() bool { return t.init >= 0 || t.app >= 0 }

// fitted returns the options for this pod, and where its sidecar is. The error has
// all that is in the sidecar's way.
func (p pod) fitted(spec, apps *yaml.Node, o Options) (there, Options, error) {
	inits, err := initContainers.get(spec)
	if err != nil {
		return there{}, o, err
	}
	volumes, err := child(spec, "volumes", yaml.SequenceNode)
	if err != nil {
		return there{}, o, err
	}
	at := there{position(inits, sidecarName), position(apps, sidecarName)}
	taken := named(volumes, sidecarName) != nil
	if at.is() {
		// Without the volume there is no script, and Node.js does not start
		// when it is told to load one that is not there.
		o.Preload, o.PreloadHTTPS = o.Preload && taken, o.PreloadHTTPS && taken
		return at, o.listening(spec), nil
	}
	fit, err := o.fit(spec)
	return at, fit, errors.Join(err, o.takenVolumes(volumes))
}

// takenVolumes returns an error for each volume that the sidecar needs and of whose
// name the pod has one. What that holds is not the sidecar's.
func (o Options) takenVolumes(volumes *yaml.Node) error {
	var ours []struct{ Name, When string }
	if err := executeYAML("carpool.volumes", map[string]any{"secret": o.Secret}, &ours); err != nil {
		return err
	}
	var errs []error
	for _, v := range ours {
		if o.chosen(v.When) && named(volumes, v.Name) != nil {
			errs = append(errs, errorAt(volumes, "the pod has a volume of its own named %s: rename it, or do without %s", v.Name, v.When))
		}
	}
	return errors.Join(errs...)
}

func (p pod) injectSpec(spec, apps *yaml.Node, at there, o Options) error {
	s, err := o.sidecar()
	if err != nil {
		return err
	}
	served := slices.Clone(apps.Content)
	inits := get(spec, initContainers.name)
	if inits != nil && (at.init >= 0 || at.app < 0 && !o.Plain) {
		served = append(served, inits.Content[at.init+1:]...) // those behind it; at.init is -1 if it will be first
	}
	if at.is() {
		p.note("the container " + sidecarName + " that is there stays as it is (to change it, uninject first)")
	} else {
		if err := s.addTo(spec, o.Plain); err != nil {
			return err
		}
		if err := addPullSecrets(spec, o.PullSecrets); err != nil {
			return err
		}
		p.noteScrape(s)
		if o.Plain {
			p.keepDefault(text(served[0], "name"))
		}
	}
	if o.Plain && strings.Contains(p.kind, "Job") {
		p.note("it does not complete before carpool ends: let the app's last step POST to http://127.0.0.1:" + o.AdminPort + "/quitquitquit")
	}
	return p.serve(s, slices.DeleteFunc(served, func(c *yaml.Node) bool {
		return text(c, "name") == sidecarName || slices.Contains(o.Skip, text(c, "name"))
	}))
}

// addPullSecrets appends to the pod's secrets those that it does not have.
func addPullSecrets(spec *yaml.Node, names []string) error {
	for _, name := range names {
		secrets, err := child(spec, "imagePullSecrets", yaml.SequenceNode)
		if err != nil {
			return err
		}
		if named(secrets, name) != nil {
			continue
		}
		if secrets, err = add(spec, "imagePullSecrets", yaml.SequenceNode, ""); err != nil {
			return err
		}
		secrets.Content = append(secrets.Content, mapping("name", name))
	}
	return nil
}

// serve gives containers of the app what makes them use carpool.
func (p pod) serve(s *sidecar, served []*yaml.Node) error {
	p.noteOptions(s, served)
	for _, c := range served {
		p.noteProxy(c, s)
		if err := s.serve(c, p.note); err != nil {
			return err
		}
	}
	return nil
}

// addTo puts the container first, so that it starts first and as a native
// sidecar stops last, and the volumes behind the pod's own.
func (s *sidecar) addTo(spec *yaml.Node, plain bool) error {
	where := initContainers
	if plain {
		where = containers
	}
	list, err := add(spec, where.name, yaml.SequenceNode, where.before)
	if err != nil {
		return err
	}
	list.Content = slices.Insert(list.Content, 0, s.container)
	if len(s.volumes) == 0 {
		return nil
	}
	volumes, err := add(spec, "volumes", yaml.SequenceNode, "")
	if err != nil {
		return err
	}
	volumes.Content = append(volumes.Content, s.volumes...)
	return nil
}

// serve gives a container of the app what makes it use carpool.
func (s *sidecar) serve(container *yaml.Node, note func(string)) error {
	if err := addEnv(container, s.env, note); err != nil {
		return err
	}
	mounts, err := child(container, "volumeMounts", yaml.SequenceNode)
	if err != nil {
		return err
	}
	for _, m := range s.mounts {
		if named(mounts, sidecarName) != nil {
			continue
		}
		if mounts, err = add(container, "volumeMounts", yaml.SequenceNode, ""); err != nil {
			return err
		}
		mounts.Content = append(mounts.Content, clone(m))
	}
	return nil
}

// addEnv adds variables to a container's environment. Both spellings of a name
// are one variable, but for options', and what is there is left alone unless it
// can be extended. The note is what the user should know of that.
func addEnv(container *yaml.Node, vars []variable, note func(string)) error {
	env, err := child(container, "env", yaml.SequenceNode)
	if err != nil {
		return err
	}
	var there []*yaml.Node
	if env != nil {
		there = slices.Clone(env.Content)
	}
	for _, v := range vars {
		if v.With != "" && slices.ContainsFunc(there, v.isOthers(vars)) {
			continue
		}
		if !slices.ContainsFunc(there, v.isThere) {
			if env, err = add(container, "env", yaml.SequenceNode, ""); err != nil {
				return err
			}
			env.Content = append(env.Content, mapping("name", v.Name, "value", v.Value))
			continue
		}
		for _, entry := range there {
			if v.Extend == "" || text(entry, "name") != v.Name {
				continue
			}
			if get(entry, "valueFrom") != nil {
				note(fmt.Sprintf("container %s gets %s from elsewhere: put %s behind it there", text(container, "name"), v.Name, v.Value))
				continue
			}
			v.extend(entry)
		}
	}
	return nil
}

// isOthers returns whether an entry of an environment is the variable that v
// belongs to, with another value than carpool's.
func (v variable) isOthers(vars []variable) func(entry *yaml.Node) bool {
	i := slices.IndexFunc(vars, func(of variable) bool { return of.Name == v.With })
	return func(entry *yaml.Node) bool {
		return strings.EqualFold(text(entry, "name"), v.With) && (i < 0 || text(entry, "value") != vars[i].Value)
	}
}

// isThere reports whether an entry of an environment is this variable.
func (v variable) isThere(entry *yaml.Node) bool {
	name := text(entry, "name")
	return name == v.Name || v.Extend != " " && strings.EqualFold(name, v.Name)
}

// extend puts v's value behind that of an entry, unless it has it already or
// says that no host is for a proxy.
func (v variable) extend(entry *yaml.Node) {
	value := text(entry, "value")
	if value == "*" || strings.Contains(value, v.Value) {
		return
	}
	if value != "" {
		setText(entry, "value", value+v.Extend+v.Value)
		return
	}
	i := indexOf(entry, "value")
	if i >= 0 {
		old := entry.Content[i+1]
		old.LineComment = keepEmpty(old, entry.Content[i].LineComment+" "+old.LineComment)
		entry.Content[i].LineComment = ""
	}
	setText(entry, "value", v.Value)
}
