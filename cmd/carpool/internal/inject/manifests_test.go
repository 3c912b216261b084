package inject_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

var update = flag.Bool("update", false, "write the examples in manifests anew")

const manifests = "../../../../manifests"

// TestExamplesAreWhatInjectMakes keeps manifests/examples up to date. One of
// them is written by hand, to explain the sidecar: it must say the same.
func TestExamplesAreWhatInjectMakes(t *testing.T) {
	inputs, err := filepath.Glob(filepath.Join(manifests, "examples/plain/*.yaml"))
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, input := range inputs {
		name := filepath.Base(input)
		t.Run(name, func(t *testing.T) {
			want, _, err := inject.Inject(readFile(t, input), inject.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			example := filepath.Join(manifests, "examples", name)
			if name == "deployment.yaml" {
				got := meaning(t, readFile(t, example))
				if diff := difference(any(got), any(meaning(t, want))); diff != "" {
					t.Errorf("it is not what inject makes: correct it by hand: %s", diff)
				}
				return
			}
			if *update {
				if err := os.WriteFile(example, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := readFile(t, example); !bytes.Equal(got, want) {
				t.Errorf("it is out of date: run go test ./cmd/carpool/internal/inject -update\n%s", want)
			}
		})
	}
}

func TestKustomizeAcceptsTheManifests(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not installed")
	}
	err = filepath.WalkDir(manifests, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "kustomization.yaml" {
			return err
		}
		var stderr bytes.Buffer
		build := exec.Command(kubectl, "kustomize", filepath.Dir(path))
		build.Stderr = &stderr
		out, err := build.Output()
		if err != nil || len(meaning(t, out)) == 0 {
			t.Errorf("%s: %v\n%s%s", path, err, &stderr, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
