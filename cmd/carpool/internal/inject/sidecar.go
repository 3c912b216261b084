package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/carpoolproxy/carpool/charts"
	"go.yaml.in/yaml/v3"
)

// settingPrefix begins the names of carpool's variables.
const settingPrefix = "CARPOOL_"

// definition is the parsed templates of the sidecar.
var definition = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"toJson": func(v any) (string, error) {
		out, err := json.Marshal(v)
		return string(out), err
	}}).Parse(charts.Sidecar))
})

// execute runs one of the definition's templates.
func execute(name string, data any) (string, error) {
	var b strings.Builder
	err := definition().ExecuteTemplate(&b, name, data)
	return b.String(), err
}

// executeYAML runs one of the definition's templates and reads the result.
func executeYAML(name string, data, into any) error {
	out, err := execute(name, data)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("bug: template %s: %w", name, err)
	}
	return nil
}

// A sidecar is what the definition says with some options. Its trees are new.
type sidecar struct {
	container *yaml.Node
	volumes   []*yaml.Node
	mounts    []*yaml.Node // of the app's containers
	env       []variable   // of the app's containers
}

// A variable is one that containers get in their environment.
type variable struct {
	Name   string
	Value  string
	When   string // the choice that it depends on, or ""
	With   string // the variable that it belongs to, or ""
	Extend string // what joins it to one that is there; "" leaves that alone
}

// A mount is one of the sidecar's, as its container has it.
type mount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath" yaml:"mountPath"`
	ReadOnly  bool   `json:"readOnly,omitempty" yaml:"readOnly"`
	When      string `json:"-"` // the choice that it depends on
}

// chosen reports whether a choice was made that something of the definition depends
// on; "" is none.
func (o Options) chosen(when string) bool {
	switch when {
	case "":
		return true
	case "https":
		return o.HTTPS
	case "java":
		return o.Java
	case "preload":
		return o.preloads()
	case "preloadHttps":
		return o.PreloadHTTPS
	case "cache":
		return o.Cache
	case "secret":
		return o.Secret != ""
	case "plain":
		return o.Plain
	case "port":
		return o.Port != usualPort
	case "adminPort":
		return o.AdminPort != usualAdminPort
	case "godebug":
		return o.GODEBUG != ""
	}
	return false
}

// sidecarEnv returns the environment of the sidecar, by name: the options'
// settings and, for those not among them, what the definition has.
func (o Options) sidecarEnv() (map[string]string, error) {
	var vars []variable
	if err := executeYAML("carpool.sidecarEnv", map[string]any{"port": o.Port, "adminPort": o.AdminPort, "godebug": o.GODEBUG}, &vars); err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, v := range vars {
		if o.chosen(v.When) {
			env[v.Name] = v.Value
		}
	}
	for name, value := range o.Settings {
		env[settingPrefix+name] = value
	}
	return env, nil
}

// data is what the templates take.
func (o Options) data() (map[string]any, error) {
	values, err := o.sidecarEnv()
	if err != nil {
		return nil, err
	}
	noProxy, err := execute("carpool.noProxy", nil)
	if err != nil {
		return nil, err
	}
	env := []map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, map[string]string{"name": name, "value": values[name]})
	}
	var mounts []mount
	if err := executeYAML("carpool.sidecarMounts", nil, &mounts); err != nil {
		return nil, err
	}
	nonProxyHosts := ""
	for _, entry := range o.NoProxy {
		noProxy += "," + entry
		switch {
		case strings.HasPrefix(entry, "."):
			entry = "*" + entry
		case strings.Count(entry, ":") > 1:
			entry = "[" + entry + "]"
		}
		nonProxyHosts += "|" + entry
	}
	return map[string]any{
		"image": o.Image, "pullPolicy": o.PullPolicy, "env": env, "resources": o.resources(),
		"native": !o.Plain, "secret": o.Secret, "noProxy": noProxy, "nonProxyHosts": nonProxyHosts,
		"port": o.Port, "adminPort": o.AdminPort, "user": o.user, "group": o.group,
		"mounts": slices.DeleteFunc(mounts, func(m mount) bool { return !o.chosen(m.When) }),
	}, nil
}

func (o Options) resources() map[string]map[string]string {
	all := map[string]map[string]string{}
	put := func(kind, resource, value string) {
		if value == "" {
			return
		}
		if all[kind] == nil {
			all[kind] = map[string]string{}
		}
		all[kind][resource] = value
	}
	for name, quantity := range o.OtherRequests {
		put("requests", name, quantity)
	}
	for name, quantity := range o.OtherLimits {
		put("limits", name, quantity)
	}
	put("requests", "cpu", o.CPURequest)
	put("requests", "memory", o.MemoryRequest)
	put("limits", "cpu", o.CPULimit)
	put("limits", "memory", o.MemoryLimit)
	return all
}

// sidecar renders the definition.
func (o Options) sidecar() (*sidecar, error) {
	data, err := o.data()
	if err != nil {
		return nil, err
	}
	var (
		s         sidecar
		container yaml.Node
		volumes   []yaml.Node
		mounts    []yaml.Node
	)
	for name, into := range map[string]any{
		"carpool.container": &container, "carpool.volumes": &volumes, "carpool.mounts": &mounts, "carpool.appEnv": &s.env,
	} {
		if err := executeYAML(name, data, into); err != nil {
			return nil, err
		}
	}
	s.container = fresh(container.Content[0])
	s.volumes, s.mounts = o.chosenOf(volumes), o.chosenOf(mounts)
	s.env = slices.DeleteFunc(s.env, func(v variable) bool { return !o.chosen(v.When) })
	return &s, nil
}

// chosenOf returns, made new, those of a list of the definition whose choice was made.
func (o Options) chosenOf(items []yaml.Node) []*yaml.Node {
	var chosen []*yaml.Node
	for i := range items {
		if n := fresh(&items[i]); o.chosen(text(n, "when")) {
			remove(n, "when")
			chosen = append(chosen, n)
		}
	}
	return chosen
}

// fresh makes new what a template wrote: in block style, without quotes that
// are not needed, without comments and without what is empty.
func fresh(n *yaml.Node) *yaml.Node {
	c := &yaml.Node{Kind: n.Kind, Tag: n.ShortTag(), Value: n.Value}
	if c.Tag == "!!str" {
		c.Style = quotes(c.Value)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && isEmpty(n.Content[i|1]) {
			continue
		}
		c.Content = append(c.Content, fresh(child))
	}
	return c
}

// isEmpty reports whether a collection has nothing in it.
func isEmpty(n *yaml.Node) bool {
	return (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && len(n.Content) == 0
}
