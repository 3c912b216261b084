package inject_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// shared is where the pods are that the admission policy is held to as well.
const shared = "../../../../charts/testdata/pods"

// sharedOptions are what charts/testdata/values.yaml says.
func sharedOptions() inject.Options {
	o := inject.Defaults()
	repository, _, _ := strings.Cut(o.Image, ":")
	o.Image = repository + ":test"
	return o
}

// sharedPods returns the names of the shared cases. Those with a ConfigMap are
// for the cluster, where there is one.
func sharedPods(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no pods in %s: %v", shared, err)
	}
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		_, err := os.Stat(filepath.Join(shared, name+".configmap.yaml"))
		if !strings.Contains(name, ".") && errors.Is(err, fs.ErrNotExist) {
			names = append(names, name)
		}
	}
	return names
}

func TestInjectDoesWhatTheAdmissionPolicyDoes(t *testing.T) {
	for _, name := range sharedPods(t) {
		t.Run(name, func(t *testing.T) {
			in := readFile(t, shared, name+".yaml")
			out, _, err := inject.Inject(in, sharedOptions())
			if refusal, failed := os.ReadFile(filepath.Join(shared, name+".error.txt")); failed == nil {
				if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(string(refusal))) {
					t.Errorf("error %v, want one with %q", err, refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			golden := readFile(t, shared, name+".golden.yaml")
			if diff := difference(typed(t, out), typed(t, golden)); diff != "" {
				t.Errorf("not the golden pod: %s\n%s", diff, out)
			}
			again, _, err := inject.Inject(golden, sharedOptions())
			if err != nil || string(again) != string(golden) {
				t.Errorf("the golden pod is changed once more (%v):\n%s", err, again)
			}
		})
	}
}

// typed returns what a file says when it has gone through Kubernetes' types, as
// the golden pods have: they do not write these where they are false or empty.
func typed(t testing.TB, text []byte) any {
	t.Helper()
	all := any(meaning(t, text))
	each(all, func(m map[string]any) {
		if m["hostNetwork"] == false {
			delete(m, "hostNetwork")
		}
		if m["value"] == "" {
			delete(m, "value")
		}
	})
	return all
}

// each calls f for all objects in a value.
func each(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, value := range v {
			each(value, f)
		}
	case []any:
		for _, item := range v {
			each(item, f)
		}
	}
}

// came names the shared pods that came with some of what inject puts in: they
// are held to what uninject makes of them at once.
var came = map[string]bool{"late-container": true, "late-container-preload": true}

// withoutEmpty takes out variables that have a name and nothing else: extended
// by inject, they cannot be told from one that was not there.
func withoutEmpty(v any) any {
	each(v, func(container map[string]any) {
		if env, ok := container["env"].([]any); ok {
			container["env"] = slices.DeleteFunc(env, func(item any) bool {
				entry, _ := item.(map[string]any)
				return len(entry) == 1 && entry["name"] == "NODE_OPTIONS"
			})
		}
	})
	return bare(v)
}

func TestUninjectTakesOutWhatInjectPutIn(t *testing.T) {
	for _, name := range sharedPods(t) {
		t.Run(name, func(t *testing.T) {
			in := readFile(t, shared, name+".yaml")
			out, _, err := inject.Inject(in, sharedOptions())
			if err != nil {
				t.Skip("refused")
			}
			back, _, err := inject.Uninject(out, inject.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			before := in
			if came[name] {
				if before, _, err = inject.Uninject(in, inject.Defaults()); err != nil {
					t.Fatal(err)
				}
			}
			want := withoutEmpty(any(meaning(t, before)))
			if diff := difference(any(meaning(t, back)), want); diff != "" {
				t.Errorf("not the pod that it was: %s\n%s", diff, back)
			}
			// What the golden files have is taken out, too, whoever wrote it.
			golden, err := os.ReadFile(filepath.Join(shared, name+".golden.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			fromGolden, _, err := inject.Uninject(golden, inject.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			if diff := difference(typed(t, fromGolden), typed(t, back)); diff != "" {
				t.Errorf("the golden pod leaves something else behind: %s\n%s", diff, fromGolden)
			}
		})
	}
}
