package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Some who choose settings for a carpool that runs elsewhere, a pod's annotations
// among them, cannot be asked back: they are told of each setting what it takes,
// in the words that the admission policy has, too.

// Check says what is wrong with one setting, by its name without the prefix. That
// it goes with the others is not asked. Without such a setting the error is an
// [Unknown].
func Check(name, text string) error {
	name = prefix + name
	known := slices.ContainsFunc(Settings(), func(s Setting) bool { return s.Name == name })
	if !known {
		return Unknown{name, nearest(name, names())}
	}
	if _, err := load(map[string]string{name: text}, alone); err != nil {
		return fmt.Errorf("%s=%s: %s", name, quote(text), Want(strings.TrimPrefix(name, prefix)))
	}
	return nil
}

// CheckTogether says which settings of an environment do not go together. What is
// wrong with one of them alone is not told.
func CheckTogether(environ []string) error {
	_, all := load(ours(environ), func(rule) bool { return true })
	_, each := load(ours(environ), alone)
	if all == nil {
		return nil
	}
	var errs []error
	for line := range strings.SplitSeq(all.Error(), "\n") {
		if each == nil || !slices.Contains(strings.Split(each.Error(), "\n"), line) {
			errs = append(errs, errors.New(line))
		}
	}
	return errors.Join(errs...)
}

// Want is what [Check] says that it wants of a setting, whatever its value: what it
// has for what is no value of any setting, and for what is too little.
func Want(name string) string {
	var all []string
	for _, text := range []string{"?", "0"} {
		_, err := load(map[string]string{prefix + name: text}, alone)
		if err == nil {
			continue
		}
		_, want, _ := strings.Cut(err.Error(), ": want ")
		if !slices.Contains(all, want) {
			all = append(all, want)
		}
	}
	return "want " + strings.Join(all, "; ")
}

// alone reports whether a rule is about one setting.
func alone(r rule) bool { return r.with == "" }

// names returns those of all settings.
func names() []string {
	var all []string
	for _, s := range Settings() {
		all = append(all, s.Name)
	}
	return all
}
