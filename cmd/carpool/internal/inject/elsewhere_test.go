package inject_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"github.com/carpoolproxy/carpool/proxy/policy"
	"go.yaml.in/yaml/v3"
)

const elsewhere = manifests + "/elsewhere/"

// What the examples for other places than Kubernetes have in common, whatever their form.
var (
	elsewhereImage   = regexp.MustCompile(`ghcr\.io/carpoolproxy/carpool:[^"\s]*`)
	elsewhereNoProxy = regexp.MustCompile(`(?:localhost,127\.0\.0\.1)[^"\s]*`)
	elsewhereSetting = regexp.MustCompile(`CARPOOL_[A-Z_]+(?:=|: "?|", *"value": "|",\s*"value": ")([^"\s]+)`)
)

// TestExamplesForOtherPlacesAreUpToDate holds them to the image, the exemptions and the settings that there are.
func TestExamplesForOtherPlacesAreUpToDate(t *testing.T) {
	exempt := "localhost,127.0.0.1,::1," + policy.Exemptions().NoProxy()
	for file, want := range map[string]struct{ images, lists, settings int }{
		"compose.yaml":                        {1, 1, 1},
		"ecs-task-definition.json":            {1, 2, 1},
		"shop.nomad.hcl":                      {2, 2, 0},
		"systemd/carpool.service":             {0, 0, 3},
		"systemd/shop.service.d/carpool.conf": {0, 2, 0},
	} {
		text := string(readFile(t, elsewhere, file))
		images, lists := elsewhereImage.FindAllString(text, -1), elsewhereNoProxy.FindAllString(text, -1)
		if len(images) != want.images || len(lists) != want.lists {
			t.Errorf("%s: %d images and %d lists, want %+v", file, len(images), len(lists), want)
		}
		for _, image := range images {
			if image != inject.DefaultImage {
				t.Errorf("%s: %s, want %s", file, image, inject.DefaultImage)
			}
		}
		for _, list := range lists {
			if list != exempt {
				t.Errorf("%s: NO_PROXY is\n%s, want\n%s", file, list, exempt)
			}
		}
		var environ []string
		for _, m := range elsewhereSetting.FindAllStringSubmatch(text, -1) {
			name, _, _ := strings.Cut(strings.FieldsFunc(m[0], func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') })[0], "=")
			environ = append(environ, name+"="+m[1])
		}
		if _, unknown, err := config.Load(environ); err != nil || len(unknown) > 0 || len(environ) != want.settings {
			t.Errorf("%s: %v: %v, %v, want %d settings", file, environ, unknown, err, want.settings)
		}
	}
}

func TestTheExamplesOfComposeAndECSAreRead(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			NetworkMode string `yaml:"network_mode"`
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal(readFile(t, elsewhere, "compose.yaml"), &compose); err != nil {
		t.Fatal(err)
	}
	if s := compose.Services; s["app"].NetworkMode != "service:carpool" || strings.Join(s["carpool"].Healthcheck.Test, " ") != "CMD /usr/local/bin/carpool ready" {
		t.Errorf("%+v", s)
	}
	var task struct {
		ContainerDefinitions []struct {
			HealthCheck struct{ Command []string }
		}
	}
	if err := json.Unmarshal(readFile(t, elsewhere, "ecs-task-definition.json"), &task); err != nil {
		t.Fatal(err)
	}
	if c := task.ContainerDefinitions; len(c) != 2 || strings.Join(c[0].HealthCheck.Command, " ") != "CMD /usr/local/bin/carpool ready" {
		t.Errorf("%+v", c)
	}
}

func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	// The program itself need not be installed here.
	unit := strings.ReplaceAll(string(readFile(t, elsewhere, "systemd/carpool.service")), "/usr/local/bin/carpool", "/bin/true")
	file := filepath.Join(t.TempDir(), "carpool.service")
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", file).CombinedOutput(); err != nil || strings.Contains(string(out), "carpool.service") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	// 2.0 of 10: what is left is the network.
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", file).CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}
