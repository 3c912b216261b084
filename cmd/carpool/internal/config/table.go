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

// Value is a setting as it is in force.
type Value struct {
	Name    string `json:"name"`    // with the prefix
	Value   string `json:"value"`   // as one would write it; "" is empty
	Default string `json:"default"` // likewise
}

// Changed reports whether v is not the default.
func (v Value) Changed() bool { return v.Value != v.Default }

// Values returns every setting as it is in force, in the order of [Config].
func (c Config) Values() []Value {
	var all []Value
	for field, value := range reflect.ValueOf(c).Fields() {
		all = append(all, Value{prefix + field.Tag.Get("envconfig"), format(value.Interface()), field.Tag.Get("default")})
	}
	return all
}

// WriteEffective writes NAME=value lines in the order of [Config]. A comment marks each value that is not the default.
func (c Config) WriteEffective(w io.Writer) error {
	var b strings.Builder
	for _, v := range c.Values() {
		fmt.Fprintf(&b, "%s=%s", v.Name, v.Value)
		if v.Changed() {
			fmt.Fprintf(&b, "  # default %s", cmp.Or(v.Default, "empty"))
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
