package charts_test

import (
	"path/filepath"
	"regexp"
	"testing"
)

// helmsOwn are the labels that are not true of what Helm does not install.
var helmsOwn = regexp.MustCompile(`(?m)^ *(app\.kubernetes\.io/managed-by|app\.kubernetes\.io/instance|helm\.sh/chart): .*\n`)

// TestKustomizeBaseIsTheChart keeps manifests/base up to date: it is the chart
// with its own values.
func TestKustomizeBaseIsTheChart(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "{}"))
	for _, name := range []string{"policy.yaml", "bindings.yaml", "limits.yaml"} {
		golden(t, filepath.Join("../../manifests/base", name), helmsOwn.ReplaceAll([]byte(manifests[name]), nil))
		delete(manifests, name)
	}
	delete(manifests, "NOTES.txt")
	for name := range manifests {
		t.Errorf("the chart also makes %s by default: put it into manifests/base", name)
	}
}
