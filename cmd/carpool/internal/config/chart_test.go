package config_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"os"
	"reflect"
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
	null := map[string]any{"type": "null"} // takes a value back that another file has set
	pattern := func(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }
	anyOf := func(schemas ...any) map[string]any { return map[string]any{"anyOf": append(schemas, null)} }
	switch field.Type {
	case reflect.TypeFor[time.Duration]():
		return anyOf(pattern(`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`), map[string]any{"const": 0})
	case reflect.TypeFor[config.Hosts]():
		const host = `\.?[A-Za-z0-9_-][A-Za-z0-9._-]*(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?`
		return anyOf(pattern(`^((` + host + `)( *, *(` + host + `))*)?$`))
	case reflect.TypeFor[config.Bytes]():
		return anyOf(pattern(`^[0-9]+(KiB|MiB|Ki|Mi)?$`), map[string]any{"type": "integer", "minimum": 0})
	}
	switch field.Type.Kind() {
	case reflect.Slice: // of ports
		ports := []any{pattern(`^([0-9]+( *, *[0-9]+)*)?$`), map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}}
		if words := choices(field); words != nil {
			ports = append(ports, map[string]any{"enum": words})
		}
		return anyOf(ports...)
	case reflect.Bool:
		return anyOf(map[string]any{"type": "boolean"}, pattern(`^(true|false)$`))
	case reflect.Int:
		return anyOf(map[string]any{"type": "integer", "minimum": 0}, pattern(`^[0-9]+$`))
	case reflect.Float64:
		return anyOf(map[string]any{"type": "number", "minimum": 0, "maximum": 1}, pattern(`^(0(\.[0-9]+)?|1(\.0+)?)$`))
	}
	if words := choices(field); words != nil {
		return anyOf(map[string]any{"enum": words})
	}
	if field.Type.Kind() != reflect.String {
		t.Fatalf("%s: say here what values of type %s look like", field.Name, field.Type)
	}
	return anyOf(map[string]any{"type": "string"})
}

// choices are the words that a field's type decodes, of those in its help.
func choices(field reflect.StructField) (words []any) {
	decoder, ok := reflect.New(field.Type).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return nil
	}
	for word := range strings.FieldsFuncSeq(field.Tag.Get("help"), func(r rune) bool { return strings.ContainsRune(" :,.", r) }) {
		if strings.Trim(word, "0123456789") != "" && decoder.UnmarshalText([]byte(word)) == nil {
			words = append(words, word)
		}
	}
	return words
}
