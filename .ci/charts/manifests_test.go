package charts_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// helmsOwn are the labels that are not true of what Helm does not install.
var helmsOwn = regexp.MustCompile(`(?m)^ *(app\.kubernetes\.io/managed-by|app\.kubernetes\.io/instance|helm\.sh/chart): .*\n`)

// TestKustomizeFoldersAreTheChart keeps manifests/base and manifests/webhook up to
// date: each is the chart with its own values, but for how sidecars come.
func TestKustomizeFoldersAreTheChart(t *testing.T) {
	for folder, c := range map[string]struct {
		values string
		files  []string
	}{
		"base":    {"injection: policy", []string{"policy.yaml", "bindings.yaml", "limits.yaml"}},
		"webhook": {"injection: webhook", []string{"injector.yaml", "injector-rights.yaml", "webhooks.yaml"}},
	} {
		manifests := installed(mustRender(t, load(t, appChart), values(t, c.values)))
		for _, name := range c.files {
			text := strings.TrimSpace(string(helmsOwn.ReplaceAll([]byte(manifests[name]), nil))) + "\n"
			golden(t, filepath.Join("../../manifests", folder, name), []byte(text))
			delete(manifests, name)
		}
		delete(manifests, "NOTES.txt")
		for name := range manifests {
			t.Errorf("the chart also makes %s by default: put it into manifests/%s", name, folder)
		}
	}
}
