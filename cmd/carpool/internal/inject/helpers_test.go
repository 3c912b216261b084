package inject_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v3"
)

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// documents reads a stream of JSON or YAML; empty documents do not count.
func documents(text []byte) ([]any, error) {
	j := json.NewDecoder(bytes.NewReader(text))
	if all, err := decodeAll(j.Decode); err == nil {
		return all, nil
	}
	return decodeAll(yaml.NewDecoder(bytes.NewReader(text)).Decode)
}

func decodeAll(decode func(any) error) ([]any, error) {
	var all []any
	for {
		var v any
		if err := decode(&v); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if v = bare(v); v != nil {
			all = append(all, v)
		}
	}
}

// meaning returns what a stream says to Kubernetes, to which a list or an
// object with nothing in it is none.
func meaning(t testing.TB, text []byte) []any {
	t.Helper()
	all, err := documents(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return all
}

// bare takes out what is null or empty.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if v[key] = bare(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case map[any]any: // one with a key that is no string
		for key, value := range v {
			if v[key] = bare(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// difference says where two values differ first, or "".
func difference(got, want any) string {
	if reflect.DeepEqual(got, want) {
		return ""
	}
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			break
		}
		for key := range union(got, want) {
			if d := difference(got[key], want[key]); d != "" {
				return "." + key + d
			}
		}
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			break
		}
		for i := range want {
			if d := difference(got[i], want[i]); d != "" {
				return fmt.Sprintf("[%d]%s", i, d)
			}
		}
	}
	return fmt.Sprintf(": got %v, want %v", got, want)
}

func union(a, b map[string]any) map[string]bool {
	keys := map[string]bool{}
	for key := range a {
		keys[key] = true
	}
	for key := range b {
		keys[key] = true
	}
	return keys
}
