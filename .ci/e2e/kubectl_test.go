package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// namespace is where the apps are, and releaseNamespace where the chart is
// installed.
const (
	namespace        = "carpool-e2e"
	releaseNamespace = "carpool-e2e-system"
)

// patience is how long anything may take: the machine can be busy with other
// things.
const patience = 3 * time.Minute

// command runs a program and returns what it printed.
func command(name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// A space is a namespace in which kubectl works.
type space string

// kubectl runs kubectl in the namespace of the apps.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return space(namespace).kubectl(t, args...)
}

func (s space) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command("kubectl", append([]string{"--namespace", string(s)}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// helm runs helm in the namespace of the release.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command("helm", append([]string{"--namespace", releaseNamespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// get reads an object, or a list of them, into v.
func get(t *testing.T, v any, args ...string) {
	t.Helper()
	space(namespace).get(t, v, args...)
}

func (s space) get(t *testing.T, v any, args ...string) {
	t.Helper()
	out := s.kubectl(t, append([]string{"get", "--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("kubectl get %v: %v", args, err)
	}
}

// raw asks the API server for a path, and reads the answer into v.
func raw(t *testing.T, v any, path string) {
	t.Helper()
	space(namespace).raw(t, v, path)
}

func (s space) raw(t *testing.T, v any, path string) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.kubectl(t, "get", "--raw", path)), v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// apply creates what a file in manifests describes, and returns when a
// Deployment in it is complete.
func apply(t *testing.T, name string) {
	t.Helper()
	file := "manifests/" + name + ".yaml"
	kubectl(t, "apply", "--filename", file)
	if strings.Contains(kubectl(t, "get", "--filename", file, "--output", "name"), "deployment") {
		complete(t, name)
	}
}

// complete waits until a Deployment has all its pods, and no old ones.
func complete(t *testing.T, name string) {
	t.Helper()
	space(namespace).complete(t, name)
}

func (s space) complete(t *testing.T, name string) {
	t.Helper()
	s.kubectl(t, "rollout", "status", "deployment/"+name, "--timeout", patience.String())
	eventually(t, "the old pods of "+name+" are gone", func() bool {
		return len(s.pods(t, "app="+name)) == s.replicas(t, name)
	})
}

// restart is what one does after a namespace was labelled.
func restart(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "rollout", "restart", "deployment/"+name)
	complete(t, name)
}

func (s space) replicas(t *testing.T, name string) int {
	t.Helper()
	var d struct{ Spec struct{ Replicas int } }
	s.get(t, &d, "deployment", name)
	return d.Spec.Replicas
}

// eventually asks until the answer is yes. It sleeps between questions to
// another machine, not to give something time.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !yes(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A pod is what the tests look at in one.
type pod struct {
	Metadata struct {
		Name              string
		UID               string
		Annotations       map[string]string
		DeletionTimestamp string
	}
	Spec struct {
		InitContainers []container
		Containers     []container
	}
	Status struct {
		Phase                 string
		PodIP                 string
		Conditions            []struct{ Type, Status string }
		InitContainerStatuses []containerStatus
		ContainerStatuses     []containerStatus
	}
}

type container struct {
	Name          string
	Image         string
	RestartPolicy string
	Env           []struct{ Name, Value string }
	Resources     struct{ Requests, Limits map[string]string }
}

type containerStatus struct {
	Name         string
	ContainerID  string
	RestartCount int
	State        struct {
		Running    *struct{ StartedAt time.Time }
		Terminated *termination
	}
}

// A termination is how a container ended. Times are in whole seconds.
type termination struct {
	ExitCode              int
	Reason, Message       string
	StartedAt, FinishedAt time.Time
}

func pods(t *testing.T, selector string) []pod {
	t.Helper()
	return space(namespace).pods(t, selector)
}

func (s space) pods(t *testing.T, selector string) []pod {
	t.Helper()
	var list struct{ Items []pod }
	s.get(t, &list, "pods", "--selector", selector)
	return list.Items
}

// env returns the environment of a container as the API server has it.
func (c container) env() map[string]string {
	m := make(map[string]string)
	for _, e := range c.Env {
		m[e.Name] = e.Value
	}
	return m
}

// status returns the status of a container, of either kind.
func (p pod) status(name string) containerStatus {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Name == name {
			return s
		}
	}
	return containerStatus{}
}

// injected reports whether carpool is the pod's first init container, and
// stays.
func (p pod) injected() bool {
	return len(p.Spec.InitContainers) > 0 && p.Spec.InitContainers[0].Name == "carpool" &&
		p.Spec.InitContainers[0].RestartPolicy == "Always"
}

// ready reports whether Services send requests to the pod.
func (p pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}
