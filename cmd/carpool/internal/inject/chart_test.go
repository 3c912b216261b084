package inject_test

import (
	"reflect"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"go.yaml.in/yaml/v3"
)

// TestDefaultsAreTheChartsValues keeps the options' defaults, here and in the
// usage text, to those of both charts.
func TestDefaultsAreTheChartsValues(t *testing.T) {
	for _, chart := range []string{"carpool", "carpool-lib"} {
		var about struct {
			AppVersion string `yaml:"appVersion"`
		}
		var values struct {
			Image struct {
				Repository, Tag, Digest string
				PullPolicy              string `yaml:"pullPolicy"`
			}
			Resources struct {
				Requests, Limits struct{ CPU, Memory string }
			}
			Settings             map[string]string
			NoProxy              []string `yaml:"noProxy"`
			Skip                 []string `yaml:"skipContainers"`
			HTTPS, Java, Preload bool
			Port                 string
			AdminPort            string `yaml:"adminPort"`
			PreloadHTTPS         bool   `yaml:"preloadHttps"`
			GODEBUG              string
			Cache                bool
			Secret               string
			CPULimit             string `yaml:"cpuLimitWhereRequired"`
		}
		for file, into := range map[string]any{"Chart.yaml": &about, "values.yaml": &values} {
			if err := yaml.Unmarshal(readFile(t, "../../../../charts", chart, file), into); err != nil {
				t.Fatal(err)
			}
		}
		image := values.Image.Repository + ":" + about.AppVersion + values.Image.Tag + values.Image.Digest
		want := inject.Options{
			Image: image, PullPolicy: values.Image.PullPolicy,
			CPURequest: values.Resources.Requests.CPU, MemoryRequest: values.Resources.Requests.Memory,
			CPULimit: values.Resources.Limits.CPU, MemoryLimit: values.Resources.Limits.Memory,
			Settings: values.Settings, NoProxy: values.NoProxy, Skip: values.Skip,
			HTTPS: values.HTTPS, Java: values.Java, Preload: values.Preload, PreloadHTTPS: values.PreloadHTTPS, Port: values.Port, AdminPort: values.AdminPort, GODEBUG: values.GODEBUG,
			Cache: values.Cache, Secret: values.Secret,
			CPULimitWhereRequired: values.CPULimit,
		}
		if chart == "carpool-lib" { // it does not see the pod
			want.CPULimitWhereRequired = inject.Defaults().CPULimitWhereRequired
		}
		got := inject.Defaults()
		if len(want.NoProxy) == 0 && len(want.Skip) == 0 {
			want.NoProxy, want.Skip = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the defaults are %+v\n%s has %+v", got, chart, want)
		}
	}
}
