package inject_test

import (
	"encoding/json"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// Meshes take over probes that are requests or connections, and answer them by a container of their own, which may start
// after the app. So what the app's start waits for, and the pod's readiness, must hang on none of those.
func TestTheStartHangsOnNoProbeThatAMeshTakesOver(t *testing.T) {
	for _, plain := range []bool{false, true} {
		o := inject.Defaults()
		o.Plain = plain
		out, _, err := inject.Inject([]byte(aDeployment), o)
		if err != nil {
			t.Fatal(err)
		}
		type container struct {
			Name                         string
			StartupProbe, ReadinessProbe any
			Lifecycle                    struct{ PostStart map[string]any }
		}
		var deployment struct {
			Spec struct {
				Template struct {
					Spec struct{ InitContainers, Containers []container }
				}
			}
		}
		text, err := json.Marshal(meaning(t, out)[0]) // for encoding/json takes names in any case
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &deployment); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range append(deployment.Spec.Template.Spec.InitContainers, deployment.Spec.Template.Spec.Containers...) {
			if c.Name != "carpool" {
				continue
			}
			found = true
			if c.StartupProbe != nil || c.ReadinessProbe != nil || len(c.Lifecycle.PostStart) != 1 || c.Lifecycle.PostStart["exec"] == nil {
				t.Errorf("plain %v: %+v", plain, c)
			}
		}
		if !found {
			t.Errorf("plain %v: no carpool in\n%s", plain, out)
		}
	}
}
