package charts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"sigs.k8s.io/yaml"
)

// costLimit bounds what the policy may cost for a pod of 10 containers with
// 100 variables each, in CEL's units. The API server stops an expression at
// 1,000,000.
const costLimit = 150_000

// goldenPolicy is the policy with the values of charts/testdata/values.yaml.
func goldenPolicy(t testing.TB) *policy {
	t.Helper()
	return newPolicy(t, mustRender(t, load(t, appChart), values(t, readFile(t, chartsDir+"/testdata/values.yaml"))))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func decode[T any](t testing.TB, text string) *T {
	t.Helper()
	object := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// normal is a pod as charts/testdata/README.md says that golden files are.
func normal(t testing.TB, pod *corev1.Pod) []byte {
	t.Helper()
	b, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	tree["apiVersion"], tree["kind"] = "v1", "Pod"
	delete(tree, "status")
	delete(tree["metadata"].(map[string]any), "creationTimestamp")
	spec := tree["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			c := c.(map[string]any)
			if resources, ok := c["resources"].(map[string]any); ok && len(resources) == 0 {
				delete(c, "resources")
			}
		}
	}
	if b, err = yaml.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenPods(t *testing.T) {
	p := goldenPolicy(t)
	paths, err := filepath.Glob(chartsDir + "/testdata/pods/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no pods: %v", err)
	}
	for _, path := range paths {
		base := strings.TrimSuffix(path, ".yaml")
		if strings.HasSuffix(base, ".golden") || strings.HasSuffix(base, ".configmap") {
			continue
		}
		t.Run(filepath.Base(base), func(t *testing.T) {
			namespace := namespaceWith("enabled", "")
			var config *corev1.ConfigMap
			if text, err := os.ReadFile(base + ".configmap.yaml"); err == nil {
				namespace, config = namespaceWith("enabled", "namespace"), decode[corev1.ConfigMap](t, string(text))
			}
			pod := decode[corev1.Pod](t, readFile(t, path))
			first, err := p.run(t, pod, namespace, config)
			if want, e := os.ReadFile(base + ".error.txt"); e == nil {
				if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(string(want))) {
					t.Errorf("error %v\nwant in it %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".golden.yaml", normal(t, first.pod))
			validatePod(t, first.pod)
			t.Logf("cost %d", first.cost)
			second, err := p.run(t, first.pod, namespace, config)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(normal(t, second.pod), normal(t, first.pod)) {
				t.Errorf("going through the policy once more changes the pod:\n%s", difference(normal(t, first.pod), normal(t, second.pod)))
			}
		})
	}
}

// A refused pod's author reads the message in the events of the ReplicaSet.
func TestARefusalNamesAllThatIsWrongAtItsEnd(t *testing.T) {
	pod := decode[corev1.Pod](t, readFile(t, chartsDir+"/testdata/pods/plain.yaml"))
	pod.Annotations = map[string]string{
		"carpoolproxy.github.io/java":         "maybe",
		"carpoolproxy.github.io/memory-limit": "much",
		"carpoolproxy.github.io/pull-policy":  "never",
	}
	_, err := goldenPolicy(t).run(t, pod, namespaceWith("enabled", ""), nil)
	if err == nil {
		t.Fatal("the pod is taken")
	}
	want := `carpoolproxy.github.io/java: want true or false, not "maybe"; ` +
		`carpoolproxy.github.io/memory-limit: want a quantity such as 128Mi, not "much"; ` +
		`carpoolproxy.github.io/pull-policy: want Always, IfNotPresent or Never, not "never"`
	if !strings.HasSuffix(err.Error(), want) || len(err.Error()) > len(want)+600 {
		t.Errorf("the message is\n%s\nwant at its end\n%s", err, want)
	}
}

// Labels of namespace and pod decide which binding holds; run fails if two do.
func TestLabelsDecideWhoGetsCarpool(t *testing.T) {
	p := goldenPolicy(t)
	config := decode[corev1.ConfigMap](t, "metadata: {name: carpool}\ndata: {image: 'its:own'}")
	for _, inject := range []string{"", "enabled", "disabled", "Enabled"} {
		for _, settings := range []string{"", "namespace", "other"} {
			for _, label := range []string{"", "true", "false", "yes"} {
				pod := decode[corev1.Pod](t, readFile(t, chartsDir+"/testdata/pods/plain.yaml"))
				if label != "" {
					pod.Labels["carpoolproxy.github.io/inject"] = label
				}
				out, err := p.run(t, pod, namespaceWith(inject, settings), config)
				if err != nil {
					t.Fatal(err)
				}
				image := ""
				if len(out.pod.Spec.InitContainers) == 1 {
					image = out.pod.Spec.InitContainers[0].Image
				}
				want := ""
				if inject == "enabled" && label != "false" || inject != "enabled" && inject != "disabled" && label == "true" {
					want = "ghcr.io/carpoolproxy/carpool:test"
					if settings == "namespace" {
						want = "its:own"
					}
				}
				if image != want {
					t.Errorf("namespace inject=%q settings=%q, pod inject=%q: sidecar %q, want %q", inject, settings, label, image, want)
				}
			}
		}
	}
}

func TestAMissingConfigMapLeavesPodsAsTheyWereOrRefusesThem(t *testing.T) {
	pod := decode[corev1.Pod](t, readFile(t, chartsDir+"/testdata/pods/plain.yaml"))
	out, err := goldenPolicy(t).run(t, pod, namespaceWith("enabled", "namespace"), nil)
	if err != nil || len(out.pod.Spec.InitContainers) != 0 {
		t.Errorf("Allow: error %v, pod %v", err, out.pod)
	}
	deny := newPolicy(t, mustRender(t, load(t, appChart), values(t, "namespaceSettings: {whenMissing: Deny}")))
	if _, err = deny.run(t, pod, namespaceWith("enabled", "namespace"), nil); err == nil {
		t.Error("Deny: the pod is taken")
	}
	if out, err = deny.run(t, pod, namespaceWith("enabled", ""), nil); err != nil || len(out.pod.Spec.InitContainers) != 1 {
		t.Errorf("Deny, in a namespace without settings of its own: error %v, pod %v", err, out.pod)
	}
}

func TestNamespacesCanBeDeniedSettingsOfTheirOwn(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "namespaceSettings: {enabled: false}"))
	if strings.Contains(manifests["policy.yaml"], "paramKind") {
		t.Error("the policy still makes the API server watch ConfigMaps")
	}
	pod := decode[corev1.Pod](t, readFile(t, chartsDir+"/testdata/pods/plain.yaml"))
	out, err := newPolicy(t, manifests).run(t, pod, namespaceWith("enabled", "namespace"), nil)
	if err != nil || len(out.pod.Spec.InitContainers) != 1 {
		t.Errorf("error %v, pod %v", err, out.pod)
	}
}

func TestTheChartsValuesAreTheDefaults(t *testing.T) {
	p := newPolicy(t, mustRender(t, load(t, appChart), values(t, `
image: {repository: registry.example.com/c, digest: "sha256:abc", tag: "1", pullPolicy: Never}
imagePullSecrets: [{name: team}, {name: ours}]
resources: {requests: {cpu: 1, memory: 64Mi, ephemeral-storage: 1Gi}, limits: {memory: null}}
settings: {MAX_CONNS_PER_HOST: 1000000, VIA: true, MAX_CONN_AGE_JITTER: 0.25, IDLE_TIMEOUT: 20s, CA_FILE: '/cel:a"b\c$(X)<>', DIAL_TIMEOUT: null}
noProxy: [intranet, .corp]
https: true
java: true
preload: true
cache: true
secret: partner-tls
skipContainers: [db]
runAsUser: 1000680000
port: 13128
adminPort: 19128
godebug: tlsrsakex=1
cpuLimitWhereRequired: ""
`)))
	pod := decode[corev1.Pod](t, `
metadata: {name: p, namespace: demo, annotations: {settings.carpoolproxy.github.io/VIA: "false"}}
spec: {imagePullSecrets: [{name: team}], containers: [{name: app, image: a}, {name: db, image: d}]}`)
	out, err := p.run(t, pod, namespaceWith("enabled", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	validatePod(t, out.pod)
	golden(t, "testdata/values.golden.yaml", normal(t, out.pod))
}

func TestTheCostIsBounded(t *testing.T) {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace = "big", "demo"
	pod.Annotations = map[string]string{"carpoolproxy.github.io/java": "true", "carpoolproxy.github.io/preload": "true", "carpoolproxy.github.io/https": "true",
		"carpoolproxy.github.io/cache": "true", "carpoolproxy.github.io/secret": "partner-tls"}
	for i := range 10 {
		c := corev1.Container{Name: fmt.Sprint("c", i), Image: "a:1"}
		for j := range 100 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", j), Value: strings.Repeat("x", 50)})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	p := goldenPolicy(t)
	for round := 1; round <= 2; round++ {
		out, err := p.run(t, pod, namespaceWith("enabled", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: cost %d", round, out.cost)
		if out.cost > costLimit {
			t.Errorf("round %d: cost %d, more than %d", round, out.cost, costLimit)
		}
		pod = out.pod
	}
}

// A sidecar without limits of its own makes a Guaranteed pod Burstable.
func TestAPodStaysGuaranteedIfTheSidecarIsToo(t *testing.T) {
	out, err := goldenPolicy(t).run(t, decode[corev1.Pod](t, readFile(t, chartsDir+"/testdata/pods/guaranteed.yaml")), namespaceWith("enabled", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if class := qos.GetPodQOS(out.pod); class != corev1.PodQOSGuaranteed {
		t.Errorf("with equal requests and limits it is %s", class)
	}
	delete(out.pod.Spec.InitContainers[0].Resources.Limits, corev1.ResourceCPU)
	if class := qos.GetPodQOS(out.pod); class != corev1.PodQOSBurstable {
		t.Errorf("without a limit on CPU it is %s: then the README need not tell of it", class)
	}
	if q := out.pod.Spec.InitContainers[0].Resources.Requests.Memory(); q.Cmp(resource.MustParse("128Mi")) != 0 {
		t.Errorf("memory request %s", q)
	}
}
