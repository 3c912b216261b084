package config

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Setting describes one variable.
type Setting struct {
	Name           string // with the prefix
	Default        string // as one would write it; "" is empty
	Help           string // a few short sentences
	Agentkeepalive string // the option of Node's agentkeepalive that it takes the place of, or ""
}

// Settings returns every setting, in the order of [Config].
func Settings() []Setting {
	var all []Setting
	for field := range reflect.TypeFor[Config]().Fields() {
		all = append(all, Setting{
			Name:           prefix + field.Tag.Get("envconfig"),
			Default:        field.Tag.Get("default"),
			Help:           field.Tag.Get("help"),
			Agentkeepalive: field.Tag.Get("agentkeepalive"),
		})
	}
	return all
}

// WriteTable writes the settings as a Markdown table.
func WriteTable(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| variable | default | meaning | agentkeepalive |\n|---|---|---|---|\n")
	for _, s := range Settings() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, code(s.Default), s.Help, code(s.Agentkeepalive))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func code(s string) string {
	if s == "" {
		return "–"
	}
	return "`" + s + "`"
}

// WriteEffective writes NAME=value lines in the order of [Config]. A comment marks each value that is not the default.
func (c Config) WriteEffective(w io.Writer) error {
	var b strings.Builder
	for field, value := range reflect.ValueOf(c).Fields() {
		text, def := format(value.Interface()), field.Tag.Get("default")
		fmt.Fprintf(&b, "%s%s=%s", prefix, field.Tag.Get("envconfig"), text)
		if text != def {
			fmt.Fprintf(&b, "  # default %s", cmp.Or(def, "empty"))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// format writes a value as one would write it in a variable: 2m and not 2m0s, 0 and not 0s. What would not be one
// printable line is quoted.
func format(v any) string {
	if d, ok := v.(time.Duration); ok {
		return formatDuration(d)
	}
	s := fmt.Sprint(v)
	if q := strconv.Quote(s); len(q) != len(s)+2 {
		return q
	}
	return s
}

func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
