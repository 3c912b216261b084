package injector_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/injector"
)

// lists answers the lists that a counter asks for, a page at a time.
type lists map[string][]string // pages by path and label selector, joined by a blank

func (l lists) Metadata(_ context.Context, path string, into any) error {
	u, err := url.Parse(path)
	if err != nil {
		return err
	}
	q := u.Query()
	pages := l[u.Path+" "+q.Get("labelSelector")]
	at := len(q.Get("continue"))
	if at >= len(pages) {
		return nil
	}
	list := `{"items": [` + pages[at] + `]`
	if at+1 < len(pages) {
		list += `, "metadata": {"continue": "` + strings.Repeat("x", at+1) + `"}`
	}
	return json.Unmarshal([]byte(list+"}"), into)
}

func TestPodsThatShouldHaveCarpoolAndDoNotAreCounted(t *testing.T) {
	const label = "carpoolproxy.github.io/inject"
	pod := func(namespace, annotations string) string {
		return `{"metadata": {"namespace": "` + namespace + `", "annotations": {` + annotations + `}}}`
	}
	namespace := func(name, inject string) string {
		return `{"metadata": {"name": "` + name + `", "labels": {"` + label + `": "` + inject + `"}}}`
	}
	has := `"carpoolproxy.github.io/status": "injected"`
	got, err := injector.Count(t.Context(), lists{
		"/api/v1/namespaces " + label + " in (enabled,disabled)": {namespace("shop", "enabled"), namespace("desk", "disabled") + "," + namespace("well", "enabled")},
		"/api/v1/namespaces/shop/pods " + label + " != false":    {pod("shop", "") + "," + pod("shop", has), pod("shop", `"a": "b"`), pod("shop", `"kubernetes.io/config.mirror": "x"`)},
		"/api/v1/namespaces/well/pods " + label + " != false":    {pod("well", has)},
		"/api/v1/pods " + label + " = true":                      {pod("shop", "") + "," + pod("desk", "") + "," + pod("other", "") + "," + pod("other", has)},
	})
	if want := map[string]int{"shop": 2, "other": 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("counted %v, %v; want %v", got, err, want)
	}
}
