package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/validator"
)

// The oldest and the newest Kubernetes that carpool is for. Between them, what
// the charts use has changed in one way only: native sidecars came in 1.29, the
// policy's API in 1.36. So the versions between need not be fetched.
const (
	oldest = "v1.29.15"
	newest = "v1.36.3"
)

// swagger returns the API's description from the source of a Kubernetes release.
func swagger(t testing.TB, version string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go mod download: %v", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return []byte(readFile(t, filepath.Join(module.Dir, "api/openapi-spec/swagger.json")))
}

// conformer makes a validator for a version's manifests. The definitions become
// one file of JSON schemas, strict ones, with a small file for each kind.
func conformer(t testing.TB, version string) validator.Validator {
	t.Helper()
	var api struct {
		Definitions map[string]map[string]any
	}
	if err := json.Unmarshal(swagger(t, version), &api); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, content any) {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		// What refers to a definition refers to the file of them all.
		b = bytes.ReplaceAll(b, []byte(`"#/definitions/`), []byte(`"definitions.json#/definitions/`))
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, definition := range api.Definitions {
		if definition["properties"] != nil {
			definition["additionalProperties"] = false
		}
		switch name {
		case "io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity":
			api.Definitions[name] = map[string]any{"type": []string{"string", "number"}}
		}
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			kind := k.(map[string]any)
			group, _, _ := strings.Cut(kind["group"].(string), ".")
			file := strings.ToLower(kind["kind"].(string) + "-" + strings.TrimPrefix(group+"-", "-") + kind["version"].(string) + ".json")
			write(file, map[string]any{"$ref": "#/definitions/" + name})
		}
	}
	write("definitions.json", map[string]any{"definitions": api.Definitions})
	v, err := validator.New([]string{dir + "/{{.ResourceKind}}{{.KindSuffix}}.json"}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// conforms returns why a manifest does not conform, or nil.
func conforms(v validator.Validator, manifest []byte) error {
	var problems []error
	for _, r := range v.Validate("manifest.yaml", io.NopCloser(bytes.NewReader(manifest))) {
		if r.Status != validator.Valid {
			problems = append(problems, errors.Join(r.Err, errors.New(string(manifest))))
		}
	}
	return errors.Join(problems...)
}

func TestTheAppChartConformsToTheNewestKubernetes(t *testing.T) {
	v := conformer(t, newest)
	for name, text := range valuesMatrix {
		for _, document := range documents(t, mustRender(t, withFiles(load(t, appChart)), values(t, text))) {
			if strings.Contains(string(document), "monitoring.coreos.com/") {
				continue // kinds that are not Kubernetes' own
			}
			if err := conforms(v, document); err != nil {
				t.Errorf("values %s: %v", name, err)
			}
		}
	}
	if err := conforms(v, []byte("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, imag: b}]}\n")); err == nil {
		t.Error("the check takes a field that does not exist")
	}
}

func TestTheWebhookConformsToTheOldestKubernetesAndTheNewest(t *testing.T) {
	for _, version := range []string{oldest, newest} {
		v := conformer(t, version)
		for name, text := range webhookMatrix {
			for _, document := range documents(t, mustRender(t, load(t, appChart), values(t, text))) {
				if strings.Contains(string(document), "monitoring.coreos.com/") || strings.Contains(string(document), "apiVersion: cert-manager.io/") {
					continue // kinds that are not Kubernetes' own
				}
				if err := conforms(v, document); err != nil {
					t.Errorf("%s, values %s: %v", version, name, err)
				}
			}
		}
	}
}

func TestTheLibraryConformsToTheOldestKubernetesAndTheNewest(t *testing.T) {
	for _, version := range []string{oldest, newest} {
		v := conformer(t, version)
		for name, text := range teamMatrix {
			for _, document := range documents(t, mustRender(t, load(t, teamChart), values(t, text))) {
				if err := conforms(v, document); err != nil {
					t.Errorf("%s, values %s: %v", version, name, err)
				}
			}
		}
		for _, path := range must(filepath.Glob(chartsDir + "/testdata/pods/*.golden.yaml")) {
			if version == oldest && strings.HasPrefix(filepath.Base(path), "together") {
				continue // resources of pods came later
			}
			if err := conforms(v, []byte(readFile(t, path))); err != nil {
				t.Errorf("%s, %s: %v", version, path, err)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
