package config_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

var update = flag.Bool("update", false, "write the settings into the schema of the chart's values anew")

// notInChart are the settings that a chart's user cannot choose: the sidecar's
// probes, the variables of the app's containers and the volumes count on them.
var notInChart = map[string]bool{"LISTEN": true, "ADMIN_LISTEN": true, "PRELOAD_DIR": true}

// TestTheChartsSchemaHoldsTheSettings keeps charts/carpool/values.schema.json
// up to date: what stands in it under definitions.settings follows from the table.
func TestTheChartsSchemaHoldsTheSettings(t *testing.T) {
	const path = "../../../../charts/carpool/values.schema.json"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	schema["definitions"].(map[string]any)["settings"] = settingsSchema(t)
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(text, want.Bytes()) {
		return
	}
	if !*update {
		t.Fatalf("%s does not hold the settings as they are: go test ./cmd/carpool/internal/config -update", path)
	}
	if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func settingsSchema(t *testing.T) map[string]any {
	properties := map[string]any{}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		name := field.Tag.Get("envconfig")
		if notInChart[name] {
			continue
		}
		property := typeSchema(t, field)
		property["description"] = field.Tag.Get("help")
		properties[name] = property
	}
	return map[string]any{
		"type":                 "object",
		"description":          "carpool's settings, without the prefix CARPOOL_.",
		"additionalProperties": false,
		"properties":           properties,
	}
}

// typeSchema says what YAML may hold for a field. Helm's values are YAML, so a
// number and a truth value may come as such or, as with --set-string, as text.
func typeSchema(t *testing.T, field reflect.StructField) map[string]any {
	anyOf := []any{map[string]any{"type": "string", "pattern": pattern(t, field)}}
	number := func(kind string, least, most int) {
		anyOf = append(anyOf, map[string]any{"type": kind, "minimum": least, "maximum": most})
	}
	switch {
	case field.Type == reflect.TypeFor[time.Duration]():
		if !positive(field) {
			anyOf = append(anyOf, map[string]any{"const": 0})
		}
	case field.Type == reflect.TypeFor[config.Bytes]():
		number("integer", int(config.KiB), int(config.MiB))
	case field.Type == reflect.TypeFor[config.Hosts](), field.Type == reflect.TypeFor[config.Warm](), field.Type == reflect.TypeFor[config.LocalPorts](), field.Type == reflect.TypeFor[config.CIDRs](),
		field.Type == reflect.TypeFor[config.NextProxy](), field.Type == reflect.TypeFor[config.NoProxy](): // as text only
	case field.Type.Kind() == reflect.Slice: // of ports
		number("integer", 1, 65535)
	case choices(field) != nil:
		anyOf[0] = map[string]any{"enum": choices(field)}
	case field.Type.Kind() == reflect.Bool:
		anyOf = append(anyOf, map[string]any{"type": "boolean"})
	case field.Type.Kind() == reflect.Int:
		number("integer", 0, math.MaxInt32)
	case field.Type.Kind() == reflect.Float64:
		number("number", 0, 1)
	}
	return map[string]any{"anyOf": append(anyOf, map[string]any{"type": "null"})} // null takes back what another file has set
}

// choices are the words that a field's type decodes, of those in its help.
func choices(field reflect.StructField) (words []any) {
	decoder, ok := reflect.New(field.Type).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return nil
	}
	for word := range strings.FieldsFuncSeq(field.Tag.Get("help"), func(r rune) bool { return strings.ContainsRune(" :,.", r) }) {
		if strings.Trim(word, "0123456789") != "" && decoder.UnmarshalText([]byte(word)) == nil && !slices.Contains(words, any(word)) {
			words = append(words, word)
		}
	}
	return words
}
