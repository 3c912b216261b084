package inject_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"go.yaml.in/yaml/v3"
)

// listOf is a ResourceList with this document for an item, and what else it is to have.
func listOf(t testing.TB, item []byte, more string) []byte {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(item, &n); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	list := map[string]any{"apiVersion": "config.kubernetes.io/v1", "kind": "ResourceList", "items": []any{n.Content[0]}}
	if err := e.Encode(list); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), more...)
}

// function runs inject, or uninject, as a function.
func function(t testing.TB, in []byte, args ...string) (code int, out map[string]any, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	args = append(args, "-f", "-")
	code = inject.Run(args[0], args[1:], bytes.NewReader(in), &o, &e)
	if err := yaml.Unmarshal(o.Bytes(), &out); err != nil {
		t.Fatalf("%v in\n%s", err, &o)
	}
	return code, out, o.String(), e.String()
}

func TestTheFunctionDoesWhatInjectDoes(t *testing.T) {
	image := strings.Split(sharedOptions().Image, " ")[0]
	for _, name := range sharedPods(t) {
		t.Run(name, func(t *testing.T) {
			in := listOf(t, readFile(t, shared, name+".yaml"), "")
			code, out, stdout, stderr := function(t, in, "inject", "--image", image)
			refusal, err := os.ReadFile(filepath.Join(shared, name+".error.txt"))
			if err == nil {
				if code != 1 || !strings.Contains(stderr, strings.TrimSpace(string(refusal))) || !strings.Contains(stdout, "severity: error") {
					t.Errorf("%d, %s\n%s", code, stdout, stderr)
				}
				delete(out, "results")
				if diff := difference(any(out), meaning(t, in)[0]); diff != "" {
					t.Errorf("the items changed, though there was an error: %s", diff)
				}
				return
			}
			if code != 0 {
				t.Fatalf("%d, %s", code, stderr)
			}
			golden := listOf(t, readFile(t, shared, name+".golden.yaml"), "")
			want, got := typed(t, golden).([]any)[0], typed(t, []byte(stdout)).([]any)[0]
			if diff := difference(got.(map[string]any)["items"], want.(map[string]any)["items"]); diff != "" {
				t.Errorf("not the golden pod: %s\n%s", diff, stdout)
			}
			code, _, back, stderr := function(t, []byte(stdout), "uninject")
			if code != 0 {
				t.Fatal(stderr)
			}
			plain, _, err := inject.Uninject(listOf(t, readFile(t, shared, name+".golden.yaml"), ""), inject.Defaults())
			if err != nil {
				t.Fatal(err)
			}
			if diff := difference(typed(t, []byte(back)).([]any)[0].(map[string]any)["items"], typed(t, plain).([]any)[0].(map[string]any)["items"]); diff != "" {
				t.Errorf("uninject: %s", diff)
			}
		})
	}
}

const aList = `apiVersion: config.kubernetes.io/v1
kind: ResourceList
items:
- apiVersion: v1
  kind: Service # stays as it is
  metadata: {name: web}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web
    namespace: shop
    annotations:
      internal.config.kubernetes.io/path: apps/web.yaml
      internal.config.kubernetes.io/index: '2'
      carpoolproxy.github.io/later: "1"
  spec:
    containers:
    - name: web # mine
      image: web
functionConfig:
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: carpool}
  data:
`

func TestTheFunctionTakesItsOptionsFromAConfigMap(t *testing.T) {
	config := `    image: registry.example.com/carpool:2
    cpuRequest: 10m
    noProxy: intranet.example.com
    java: "true"
    settings: |
      # a comment
      IDLE_TIMEOUT=20s
`
	code, out, stdout, stderr := function(t, []byte(aList+config), "inject", "--image", "overridden:1")
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, s := range []string{"registry.example.com/carpool:2", "10m", ",intranet.example.com", "JAVA_TOOL_OPTIONS", "CARPOOL_IDLE_TIMEOUT",
		"kind: Service # stays as it is", "- name: web # mine"} {
		if !strings.Contains(stdout, s) {
			t.Errorf("no %q in\n%s", s, stdout)
		}
	}
	results, _ := out["results"].([]any)
	if len(results) != 2 { // the other is about Java
		t.Fatalf("%v", results)
	}
	want := map[string]any{
		"message": "there is no annotation carpoolproxy.github.io/later: it changes nothing", "severity": "info",
		"resourceRef": map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "shop"},
		"file":        map[string]any{"path": "apps/web.yaml", "index": 2},
	}
	if diff := difference(results[0], any(want)); diff != "" {
		t.Errorf("results%s", diff)
	}
	if again, _, twice, _ := function(t, []byte(stdout), "inject"); again != 0 || strings.Count(twice, "name: carpool\n") != strings.Count(stdout, "name: carpool\n") {
		t.Errorf("a second time:\n%s", twice)
	}
}

func TestTheFunctionSaysAllThatIsWrong(t *testing.T) {
	for config, want := range map[string][]string{
		"    cpuRequest: much\n    plain: perhaps\n": {"functionConfig: cpuRequest: want a quantity", "functionConfig: plain: want true or false"},
		"    cpu-request: 10m\n":                     {"functionConfig: cpu-request: there is no such option"},
		"    settings: IDLE_TIMEOUT\n":               {"want NAME=VALUE"},
		"    settings: IDLE_TIMEOUT=soon\n":          {"CARPOOL_IDLE_TIMEOUT"},
		"    settings: IDEL_TIMEOUT=20s\n":           {"did you mean"},
		"  - a\n":                                    {"data is not a mapping"},
	} {
		code, out, stdout, stderr := function(t, []byte(aList+config), "inject")
		results, _ := out["results"].([]any)
		if code != 1 || len(results) < len(want) {
			t.Errorf("%s: %d, %s", config, code, stdout)
		}
		for _, s := range want {
			if !strings.Contains(stdout, s) || !strings.Contains(stderr, s) {
				t.Errorf("%s: no %q in\n%s\n%s", config, s, stdout, stderr)
			}
		}
		if strings.Contains(stdout, "restartPolicy") {
			t.Errorf("%s: the items are changed", config)
		}
	}
}

func TestAResourceListOfJSONStaysJSON(t *testing.T) {
	in := `{"apiVersion":"config.kubernetes.io/v1","kind":"ResourceList","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","image":"a"}]}}]}`
	code, _, stdout, stderr := function(t, []byte(in), "inject")
	if code != 0 || !strings.HasPrefix(stdout, `{"apiVersion"`) || !strings.Contains(stdout, `"name":"HTTP_PROXY"`) {
		t.Errorf("%d, %s, %s", code, stdout, stderr)
	}
	if code, _, stdout, _ := function(t, []byte(`{"apiVersion":"config.kubernetes.io/v1","kind":"ResourceList"}`), "inject"); code != 0 || strings.Contains(stdout, "results") {
		t.Errorf("an empty list: %d, %s", code, stdout)
	}
}

// FuzzFunction holds any ResourceList to this: what comes out is one, with an
// error among its results or the items changed, and a bad one changes nothing.
func FuzzFunction(f *testing.F) {
	f.Add([]byte(aList + "    image: a\n"))
	f.Add([]byte(aList + "    settings: IDLE_TIMEOUT\n"))
	f.Add([]byte(`{"apiVersion":"config.kubernetes.io/v1","kind":"ResourceList","items":[{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}]}`))
	f.Add([]byte("apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nitems:\n- &a {kind: Pod, apiVersion: v1, spec: {containers: [{name: a}]}}\n- *a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		before, err := documents(in)
		if err != nil || len(before) != 1 {
			return
		}
		list, _ := before[0].(map[string]any)
		if version, _ := list["apiVersion"].(string); list["kind"] != "ResourceList" || !strings.HasPrefix(version, "config.kubernetes.io/") {
			return
		}
		var stdout, stderr bytes.Buffer
		code := inject.Run("inject", []string{"-f", "-"}, bytes.NewReader(in), &stdout, &stderr)
		if stdout.Len() == 0 && code != 0 {
			return // one that cannot be written back
		}
		after, err := documents(stdout.Bytes())
		if err != nil || len(after) != 1 {
			t.Fatalf("%v in\n%s", err, &stdout)
		}
		if got, _ := after[0].(map[string]any); code != 0 && (!strings.Contains(stdout.String(), "severity") || difference(got["items"], list["items"]) != "") {
			t.Fatalf("%d\n%s", code, &stdout)
		}
	})
}

// program builds carpool, for those that run it.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "carpool")
	if out, err := exec.Command("go", "build", "-o", file, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// write puts files into a folder of the test's own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const aDeployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      containers:
      - name: web # mine
        image: web
`

func TestKustomizeCallsTheFunction(t *testing.T) {
	kustomize, err := exec.LookPath("kustomize")
	if err != nil {
		t.Skip("kustomize is not installed (kubectl's lets no program be called)")
	}
	dir := write(t, map[string]string{
		"web.yaml":           aDeployment,
		"carpool.sh":         "#!/bin/sh\nexec " + program(t) + " inject -f -\n",
		"carpool.yaml":       "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: carpool\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: ./carpool.sh}\ndata:\n  cpuRequest: 7m\n",
		"kustomization.yaml": "resources: [web.yaml]\ntransformers: [carpool.yaml]\n",
	})
	cmd := exec.Command(kustomize, "build", "--enable-alpha-plugins", "--enable-exec", dir)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cpu: 7m") || !strings.Contains(string(out), "HTTP_PROXY") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestKptCallsTheFunction(t *testing.T) {
	kpt, err := exec.LookPath("kpt")
	if err != nil {
		t.Skip("kpt is not installed")
	}
	dir := write(t, map[string]string{"web.yaml": aDeployment})
	out, err := exec.Command(kpt, "fn", "eval", dir, "--truncate-output=false", "--exec", program(t)+" inject -f -", "--", "cpuRequest=7m").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := string(readFile(t, dir, "web.yaml"))
	if !strings.Contains(got, "cpu: \"7m\"") && !strings.Contains(got, "cpu: 7m") || !strings.Contains(got, "HTTP_PROXY") || !strings.Contains(got, "# mine") {
		t.Errorf("%s\n%s", got, out)
	}
	out, err = exec.Command(kpt, "fn", "eval", dir, "--truncate-output=false", "--exec", program(t)+" inject -f -", "--", "cpuRequest=much").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "want a quantity") {
		t.Errorf("a bad option: %v\n%s", err, out)
	}
}

// TestHelmCallsInject has Helm 4 install the plugin and render a chart through it, hooks included.
func TestHelmCallsInject(t *testing.T) {
	plugin := string(readFile(t, manifests, "helm-plugin", "plugin.yaml"))
	if _, version, _ := strings.Cut(inject.DefaultImage, ":"); !strings.Contains(plugin, "\nversion: "+version+"\n") {
		t.Errorf("the plugin is of another version than %s", inject.DefaultImage)
	}
	helm, err := exec.LookPath("helm")
	if err != nil {
		t.Skip("helm is not installed")
	}
	if version, err := exec.Command(helm, "version", "--short").Output(); err != nil || !strings.HasPrefix(string(version), "v4.") {
		t.Skipf("helm is %s (%v): before 4 a post-renderer is any program", version, err)
	}
	folder, err := filepath.Abs(filepath.Join(manifests, "helm-plugin"))
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	env := append(os.Environ(), "PATH="+filepath.Dir(program(t))+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HELM_PLUGINS="+filepath.Join(home, "plugins"), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	chart := write(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: shop\nversion: 0.1.0\n"})
	if err := os.Mkdir(filepath.Join(chart, "templates"), 0o755); err != nil {
		t.Fatal(err)
	}
	hook := strings.Replace(aDeployment, "  name: web", "  name: migrate\n  annotations: {helm.sh/hook: pre-install}", 1)
	for name, text := range map[string]string{"web.yaml": aDeployment, "hook.yaml": hook} {
		if err := os.WriteFile(filepath.Join(chart, "templates", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out []byte
	for _, args := range [][]string{
		{"plugin", "install", folder},
		{"template", "shop", chart, "--post-renderer", "carpool", "--post-renderer-args", "--set", "--post-renderer-args", "IDLE_TIMEOUT=30s"},
	} {
		cmd := exec.Command(helm, args...)
		cmd.Env = env
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Fatalf("helm %s: %v\n%s", args, err, out)
		}
	}
	if n := strings.Count(string(out), "CARPOOL_IDLE_TIMEOUT"); n != 2 {
		t.Errorf("%d pods have carpool, want 2:\n%s", n, out)
	}
}
