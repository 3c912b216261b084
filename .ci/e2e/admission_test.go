package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tried returns what a pod would be if it were made now. Its one container has
// what is given; annotations and container are YAML in one line.
func tried(t *testing.T, annotations, container string) (pod, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pod.yaml")
	manifest := `apiVersion: v1
kind: Pod
metadata: {name: tried, annotations: ` + annotations + `}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: any
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      ` + container + "\n"
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command("kubectl", "--namespace", namespace, "create", "--filename", file, "--dry-run=server", "--output", "json")
	if err != nil {
		return pod{}, err
	}
	var p pod
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	return p, nil
}

// asked makes the namespace ask for things that the sidecar does not have by
// itself, and takes them back.
func (s *story) asked(t *testing.T) {
	const resources = "resources: {requests: {cpu: 200m, memory: 200Mi}, limits: {cpu: 200m, memory: 200Mi}}"
	kubectl(t, "create", "quota", "all", "--hard", "limits.cpu=100,limits.memory=100Gi,requests.cpu=100,requests.memory=100Gi")
	defer kubectl(t, "delete", "quota", "all")
	eventually(t, "the quota holds", func() bool {
		_, err := tried(t, `{carpoolproxy.github.io/cpu-limit: ""}`, resources)
		return err != nil && strings.Contains(err.Error(), "must specify limits.cpu for: carpool")
	})
	kubectl(t, "apply", "--filename", "manifests/limitrange.yaml")
	defer kubectl(t, "delete", "limitrange", "narrow")
	eventually(t, "the LimitRange holds", func() bool {
		_, err := tried(t, "{}", strings.ReplaceAll(resources, "200m", "1m"))
		return err != nil && strings.Contains(err.Error(), "minimum cpu usage per Container")
	})
	p, err := tried(t, "{}", resources)
	if err != nil {
		t.Fatal(err)
	}
	if !p.injected() {
		t.Fatalf("no carpool in %+v", p)
	}
	got := p.Spec.InitContainers[0].Resources
	if got.Requests["cpu"] != "150m" || got.Limits["cpu"] != "150m" || got.Requests["memory"] != "160Mi" || got.Limits["memory"] != "160Mi" {
		t.Errorf("the sidecar has %+v", got)
	}
}

// refused checks that a pod's author is told what is wrong.
func (s *story) refused(t *testing.T) {
	for want, c := range map[string][2]string{
		`CARPOOL_IDLE_TIMEOUT="30": want a duration`:    {`{settings.carpoolproxy.github.io/IDLE_TIMEOUT: "30"}`, ""},
		`CARPOOL_IDEL_TIMEOUT is unknown`:               {`{settings.carpoolproxy.github.io/IDEL_TIMEOUT: 30s}`, ""},
		`container app has port 3128 of its own, which`: {"{}", "ports: [{containerPort: 3128}]"},
	} {
		if _, err := tried(t, c[0], c[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %s", c, err, want)
		}
	}
	p, err := tried(t, `{carpoolproxy.github.io/port: "13128"}`, "ports: [{containerPort: 3128}]")
	if err != nil || p.Spec.Containers[0].env()["HTTP_PROXY"] != "http://127.0.0.1:13128" {
		t.Errorf("another port: %+v, %v", p, err)
	}
}
