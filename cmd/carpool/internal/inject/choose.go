package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"go.yaml.in/yaml/v3"
)

// Who chooses: the chart's values or the command's flags, then the pod's
// namespace, then the pod. The last one that says something wins, option by
// option and setting by setting.

// key is what the namespace's ConfigMap calls an option: cpu-limit is cpuLimit.
func (opt option) key() string {
	first, rest, _ := strings.Cut(opt.name, "-")
	if rest != "" {
		rest = strings.ToUpper(rest[:1]) + rest[1:]
	}
	return first + rest
}

// Set gives an option a value, by the name that it has behind the prefix of
// annotations. What may follow from the pod, such as a limit on CPU, still does.
func (o *Options) Set(name, value string) error {
	i := slices.IndexFunc(options, func(opt option) bool { return opt.name == name })
	if i < 0 {
		return fmt.Errorf("there is no option %s", name)
	}
	return options[i].set(o, value)
}

// choose gives an option the value that somebody has chosen for a pod.
func (o *Options) choose(opt option, by, value string) error {
	o.by = maps.Clone(o.by)
	if o.by == nil {
		o.by = map[string]string{}
	}
	o.by[opt.name] = by
	if err := opt.set(o, value); err != nil {
		return fmt.Errorf("%s: %w", by, err)
	}
	return nil
}

// explicit reports whether an option was chosen for the pod.
func (o Options) explicit(name string) bool { return o.by[name] != "" }

// A setting is one of carpool's, as somebody has chosen it.
type setting struct {
	name, value string     // the name without CARPOOL_
	at          *yaml.Node // where, or nil
}

// overridden returns the options as the namespace's ConfigMap, data, and a pod's
// annotations have them. Annotations that carpool does not know are told to note:
// they may be of a later version. An unknown setting is an error, as it is to the
// policy: it is most likely another one that is spelled wrong.
func (o Options) overridden(data map[string]string, annotations *yaml.Node, note func(string)) (Options, error) {
	o.Settings = maps.Clone(o.Settings)
	over, errs := lines(data["settings"])
	for _, opt := range options {
		value, ok := data[opt.key()]
		if ok && indexOf(annotations, prefix+opt.name) < 0 {
			errs = append(errs, o.choose(opt, opt.key()+" in ConfigMap carpool", value))
		}
	}
	for _, e := range annotationsOf(annotations) {
		if name, ok := strings.CutPrefix(e.first.Value, settingsPrefix); ok {
			over = append(over, setting{name, e.value.Value, e.value})
			continue
		}
		name, ok := strings.CutPrefix(e.first.Value, prefix)
		if !ok || e.first.Value == statusAnnotation {
			continue
		}
		known := slices.IndexFunc(options, func(opt option) bool { return opt.name == name })
		if known < 0 {
			note("there is no annotation " + e.first.Value + ": it changes nothing")
		} else if err := o.choose(options[known], e.first.Value, e.value.Value); err != nil {
			errs = append(errs, errorAt(e.value, "%v", err))
		}
	}
	for _, s := range over {
		o.Settings[s.name] = s.value
	}
	env, err := o.environ()
	errs = append(errs, err, o.checkSettings(over, note), at(annotations, errors.Join(config.CheckTogether(env), o.checkTogether())))
	return o, errors.Join(errs...)
}

// annotationsOf returns the entries of a pod's annotations, which may be nil.
func annotationsOf(annotations *yaml.Node) []entry {
	if annotations == nil {
		return nil
	}
	return entriesOf(annotations)
}

// lines reads settings as a ConfigMap has them, one a line.
func lines(text string) (settings []setting, errs []error) {
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			errs = append(errs, fmt.Errorf("settings in ConfigMap carpool: want NAME=VALUE, not %q", line))
			continue
		}
		settings = append(settings, setting{name: strings.TrimSpace(name), value: strings.TrimSpace(value)})
	}
	return settings, errs
}

// checkSettings says of each that was chosen for a pod what is wrong with it,
// also where another one has won. A name that was meant is told to note.
func (o Options) checkSettings(over []setting, note func(string)) error {
	var errs []error
	told := map[string]bool{}
	for _, s := range over {
		name := settingPrefix + s.name
		err := config.Check(s.name, s.value)
		if unknown, ok := errors.AsType[config.Unknown](err); ok {
			err = fmt.Errorf("%s is unknown: carpool config --table has all settings", name)
			if unknown.Meant != "" {
				note(name + ": did you mean " + unknown.Meant + "?")
			}
		}
		if slices.Contains(fixed, s.name) {
			err = fixedError(s.name)
		}
		if err != nil && !told[err.Error()] {
			told[err.Error()] = true
			errs = append(errs, at(s.at, err))
		}
	}
	return errors.Join(errs...)
}

// at gives an error its place, if it is known.
func at(n *yaml.Node, err error) error {
	if n == nil || err == nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, errorAt(n, "%s", strings.TrimSuffix(line, "\n")))
	}
	return errors.Join(errs...)
}

// fixed are the settings that the definition, its probes and its proxy
// variables, counts on.
var fixed = []string{"LISTEN", "ADMIN_LISTEN"}

func fixedError(name string) error {
	return fmt.Errorf("%s%s is fixed in a pod, for the app and the probes count on it: leave it out (%[3]sport and /admin-port choose ports)",
		settingPrefix, name, prefix)
}

// checkTogether finds options that do not go together.
func (o Options) checkTogether() error {
	var errs []error
	if o.Plain && o.preloads() {
		errs = append(errs, errors.New("preload needs a native sidecar: Kubernetes does not promise that an ordinary container serves before the app starts, "+
			"and without the script Node.js does not start"))
	}
	if o.Port == o.AdminPort {
		by := o.by["admin-port"]
		if by == "" {
			by = prefix + "admin-port"
		}
		errs = append(errs, fmt.Errorf("%s: want another port than the proxy's, not %q", by, o.Port))
	}
	return errors.Join(errs...)
}

// environ returns the sidecar's environment, less what is fixed in it.
func (o Options) environ() ([]string, error) {
	env, err := o.sidecarEnv()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !slices.Contains(fixed, strings.TrimPrefix(name, settingPrefix)) {
			all = append(all, name+"="+env[name])
		}
	}
	_, bad := strconv.ParseUint(o.Port, 10, 16)
	_, worse := strconv.ParseUint(o.AdminPort, 10, 16)
	if bad == nil && worse == nil && o.Port != o.AdminPort { // or else that is told
		all = append(all, settingPrefix+"LISTEN=127.0.0.1:"+o.Port, settingPrefix+"ADMIN_LISTEN=:"+o.AdminPort)
	}
	return all, nil
}

// check returns what is wrong with the options of the command's flags, whose author
// can be told more of it.
func (o Options) check() error {
	errs := []error{o.checkTogether()}
	for _, name := range fixed {
		if _, ok := o.Settings[name]; ok {
			errs = append(errs, fixedError(name))
		}
	}
	env, err := o.environ()
	if err != nil {
		return err
	}
	_, unknown, err := config.Load(env)
	errs = append(errs, err)
	for _, u := range unknown {
		errs = append(errs, u)
	}
	return errors.Join(errs...)
}
