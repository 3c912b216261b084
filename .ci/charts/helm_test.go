package charts_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	chartsDir  = "../../charts"
	appChart   = chartsDir + "/carpool"
	policyKind = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
)

// values is YAML as one gives it to helm with -f.
func values(t testing.TB, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func load(t testing.TB, dir string) *chart.Chart {
	t.Helper()
	c, err := loader.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render does what helm install does before it speaks to a cluster that has
// these APIs besides those that Helm takes for granted. The keys of the answer
// are paths, from the chart's templates folder on.
func render(c *chart.Chart, v map[string]any, apis ...string) (map[string]string, error) {
	return renderAs(chartutil.ReleaseOptions{Revision: 1, IsInstall: true}, c, v, apis...)
}

func renderAs(options chartutil.ReleaseOptions, c *chart.Chart, v map[string]any, apis ...string) (map[string]string, error) {
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.APIVersions = append(slices.Clone(capabilities.APIVersions), apis...)
	if err := chartutil.ProcessDependenciesWithMerge(c, v); err != nil {
		return nil, err
	}
	options.Name, options.Namespace = "carpool", "carpool-system"
	all, err := chartutil.ToRenderValues(c, v, options, capabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	manifests := map[string]string{}
	for path, text := range rendered {
		if _, name, ok := strings.Cut(path, "/templates/"); ok && strings.TrimSpace(text) != "" && !strings.HasPrefix(name, "_") {
			manifests[name] = text
		}
	}
	return manifests, nil
}

func mustRender(t testing.TB, c *chart.Chart, v map[string]any) map[string]string {
	t.Helper()
	manifests, err := render(c, v, "v1/Pod", policyKind)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

// installed are the manifests but for those of helm test.
func installed(manifests map[string]string) map[string]string {
	manifests = maps.Clone(manifests)
	maps.DeleteFunc(manifests, func(name, _ string) bool { return strings.HasPrefix(name, "tests/") })
	return manifests
}

// documents are the YAML documents of all manifests, by the order of their files' names.
func documents(t testing.TB, manifests map[string]string) (all [][]byte) {
	t.Helper()
	var names []string
	for name := range manifests {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		decoder := utilyaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(manifests[name])))
		for {
			buffer := make([]byte, 1<<20)
			n, err := decoder.Read(buffer)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var content any
			if err := yaml.Unmarshal(buffer[:n], &content); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, buffer[:n])
			}
			if content != nil {
				all = append(all, buffer[:n])
			}
		}
	}
	return all
}

// decodeKind decodes, strictly, the documents of one kind; there must be one at least.
func decodeKind[T any](t testing.TB, manifests map[string]string, kind string) (all []T) {
	t.Helper()
	for _, document := range documents(t, manifests) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatal(err)
		}
		if head.Kind != kind {
			continue
		}
		var object T
		if err := yaml.UnmarshalStrict(document, &object); err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, document)
		}
		all = append(all, object)
	}
	if len(all) == 0 {
		t.Fatalf("no %s is rendered", kind)
	}
	return all
}

// golden compares with a file, or writes it.
func golden(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test . -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from (go test . -update writes it anew):\n%s", path, difference(want, got))
	}
}

// difference shows the lines around the first that differs.
func difference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	at := 0
	for at < len(w) && at < len(g) && w[at] == g[at] {
		at++
	}
	part := func(lines []string) string {
		return strings.Join(lines[min(max(at-3, 0), len(lines)):min(at+5, len(lines))], "\n")
	}
	return "--- want\n" + part(w) + "\n--- got\n" + part(g)
}
