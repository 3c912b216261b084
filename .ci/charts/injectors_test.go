package charts_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	coredefaults "k8s.io/kubernetes/pkg/apis/core/v1"
)

// goldenImage is that of charts/testdata/values.yaml.
const goldenImage = "ghcr.io/carpoolproxy/carpool:test"

// TestTheWebhookDoesToTheGoldenPodsWhatThePolicyDoes: see charts/testdata/README.md.
// `carpool inject` is held to the files by its own tests, and to the policy below.
func TestTheWebhookDoesToTheGoldenPodsWhatThePolicyDoes(t *testing.T) {
	w := newWebhook(t, readFile(t, chartsDir+"/testdata/values.yaml"))
	for _, path := range must(filepath.Glob(chartsDir + "/testdata/pods/*.yaml")) {
		base := strings.TrimSuffix(path, ".yaml")
		if strings.HasSuffix(base, ".golden") || strings.HasSuffix(base, ".configmap") {
			continue
		}
		t.Run(filepath.Base(base), func(t *testing.T) {
			namespace := namespaceWith("enabled", "")
			namespace.Name = filepath.Base(base)
			var config *corev1.ConfigMap
			if text, err := os.ReadFile(base + ".configmap.yaml"); err == nil {
				name := namespace.Name
				namespace, config = namespaceWith("enabled", "namespace"), decode[corev1.ConfigMap](t, string(text))
				namespace.Name = name
			}
			pod := decode[corev1.Pod](t, readFile(t, path))
			out, err := w.run(t, pod, namespace, config)
			if want, e := os.ReadFile(base + ".error.txt"); e == nil {
				if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(string(want))) {
					t.Errorf("error %v\nwant in it %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(normal(t, out)), readFile(t, base+".golden.yaml"); got != want {
				t.Errorf("not the golden pod:\n%s", difference([]byte(want), []byte(got)))
			}
			again, err := w.run(t, out, namespace, config)
			if err != nil || string(normal(t, again)) != string(normal(t, out)) {
				t.Errorf("going through the webhook once more changes the pod: %v", err)
			}
		})
	}
}

// TestAnyPodComesOutTheSameByPolicyWebhookAndCommand makes up pods, with what a
// namespace says of them, and sends them through all three. They agree on the pod to
// the byte, or on all that is wrong with it.
func TestAnyPodComesOutTheSameByPolicyWebhookAndCommand(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, readFile(t, chartsDir+"/testdata/values.yaml")))
	injecting, limiting := newPolicy(t, manifests), policyNamed(t, manifests, "carpool-limits")
	w := newWebhook(t, readFile(t, chartsDir+"/testdata/values.yaml"))
	tally := map[string]int{}
	for seed := range uint64(600) {
		c := makeUp(t, rand.New(rand.NewPCG(seed, 12)))
		c.namespace.Name = fmt.Sprint("made-up-", seed)
		c.pod.Namespace = c.namespace.Name
		want, wantErr := c.byPolicies(t, injecting, limiting)
		check := func(by string, got *corev1.Pod, err error) {
			if a, b := faults(err), faults(wantErr); !slices.Equal(a, b) {
				t.Errorf("seed %d: %s says\n%q\nthe policy\n%q", seed, by, a, b)
			} else if err == nil && string(normal(t, got)) != string(normal(t, want)) {
				t.Errorf("seed %d: %s makes another pod than the policy:\n%s", seed, by, difference(normal(t, want), normal(t, got)))
			}
		}
		got, err := w.run(t, c.pod, c.namespace, c.config, c.ranges...)
		check("the webhook", got, err)
		if c.config == nil && len(c.ranges) == 0 && len(c.pod.Spec.Containers) > 0 {
			got, err := inManifest(t, c.pod, "--image", goldenImage)
			check("the command", got, err)
			tally["command"]++
		}
		switch {
		case wantErr != nil:
			tally["refused"]++
		case len(want.Spec.InitContainers) > len(c.pod.Spec.InitContainers):
			tally["injected"]++
		default:
			tally["not injected"]++
		}
		if t.Failed() {
			break
		}
	}
	t.Log(tally)
	for _, what := range []string{"command", "refused", "injected", "not injected"} {
		if tally[what] < 50 {
			t.Errorf("%d pods of 600 were %s: these pods prove little", tally[what], what)
		}
	}
}

// A case is a pod and where it is created.
type madeUp struct {
	pod       *corev1.Pod
	namespace *corev1.Namespace
	config    *corev1.ConfigMap
	ranges    []*corev1.LimitRange
}

// byPolicies does what the API server does: both policies, and then both once more.
func (c madeUp) byPolicies(t *testing.T, injecting, limiting *policy) (*corev1.Pod, error) {
	pod := c.pod
	for range 2 {
		out, err := injecting.run(t, pod, c.namespace, c.config)
		if err != nil {
			return nil, err
		}
		pod = out.pod
		if len(limiting.boundTo(t, pod, c.namespace)) == 0 {
			continue
		}
		for _, r := range c.ranges {
			pod = must(limiting.mutate(t, pod, c.namespace, r)).pod
		}
	}
	return pod, nil
}

// makeUp returns a pod, and what there is in its namespace.
func makeUp(t *testing.T, r *rand.Rand) madeUp {
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	rare := func(text string) string {
		if r.IntN(8) == 0 {
			return text
		}
		return ""
	}
	seldom := func(text string) string { // one of two dozen that can spoil a pod
		if r.IntN(2) == 0 {
			return ""
		}
		return rare(text)
	}
	list := func(items ...string) string {
		return strings.Join(slices.DeleteFunc(items, func(s string) bool { return s == "" }), ", ")
	}
	quantity := func(of ...string) string { return one(append(of, "", "", "")...) }
	container := func(name string) string {
		resources := func(kind string) string {
			cpu, memory := quantity("100m", "1", "0.5", "20m"), quantity("64Mi", "1Gi", "128Mi", "1e8")
			if cpu != "" {
				cpu = "cpu: " + cpu
			}
			if memory != "" {
				memory = "memory: " + memory
			}
			return kind + ": {" + list(cpu, memory) + "}"
		}
		env := list(
			rare("{name: HTTP_PROXY, value: "+one("'http://other:1'", "'http://127.0.0.1:3128'", "''")+"}"), rare("{name: http_proxy, value: 'http://127.0.0.1:3128'}"),
			rare("{name: NO_PROXY, value: "+one("'*'", "mine", "''", "'localhost,mine'")+"}"), rare("{name: no_proxy, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}"),
			rare("{name: NODE_OPTIONS, value: "+one("'--a'", "''", "'--require=/carpool/preload.js'")+"}"), rare("{name: Http_Proxy, value: x}"),
			rare("{name: JAVA_TOOL_OPTIONS, value: -Xmx1g}"), rare("{name: HTTPS_PROXY, value: ''}"), rare("{name: grpc_proxy, value: x}"), rare("{name: A, value: '1'}"))
		return "{name: " + name + ", image: " + one("a", "'b:1'") + ", " + list(
			rare("ports: [{containerPort: "+one("3128", "9128", "80", "13128")+one("", ", protocol: UDP", ", protocol: TCP")+"}]"),
			"env: ["+env+"]", rare("volumeMounts: [{name: "+one("carpool", "data")+", mountPath: /x}]"),
			one("", "", "securityContext: {"+list(rare("runAsUser: "+one("0", "1000", "2000")), rare("runAsGroup: 3000"), "runAsNonRoot: true")+"}"),
			one("", "resources: {"+resources("limits")+", "+resources("requests")+"}")) + "}"
	}
	inits := list(rare(container("init")), rare("{name: carpool, image: c, restartPolicy: Always, "+
		list("env: ["+rare("{name: CARPOOL_LISTEN, value: '127.0.0.1:4000'}")+"]", one("", "resources: {requests: {cpu: 4, memory: 10Mi, ephemeral-storage: 1Gi}}"))+"}"), rare(container("late")))
	containers := list(container("app"), rare(container("b")), rare(container("skipped")))
	choice := func(values ...string) string { return "'" + one(values...) + "'" }
	annotations := list(
		seldom("carpoolproxy.github.io/java: "+choice("true", "false", "maybe")), seldom("carpoolproxy.github.io/preload: "+choice("true", "true", "yes")),
		seldom("carpoolproxy.github.io/https: "+choice("true", "")), seldom("carpoolproxy.github.io/port: "+choice("13128", "9128", "80", "http")),
		seldom("carpoolproxy.github.io/admin-port: "+choice("19128", "3128", "0")), seldom("carpoolproxy.github.io/cpu-limit: "+choice("", "200m", "fast")),
		seldom("carpoolproxy.github.io/cpu-request: "+choice("", "50m", "1")), seldom("carpoolproxy.github.io/memory-limit: "+choice("", "64Mi", "1Gi", "much")),
		seldom("carpoolproxy.github.io/image: "+choice("x:1", "")), seldom("carpoolproxy.github.io/pull-policy: "+choice("Always", "always")),
		seldom("carpoolproxy.github.io/skip-containers: "+choice("skipped, b", "")), seldom("carpoolproxy.github.io/no-proxy: "+choice("a, .b.example.com,fd00::1", "a b", "[::1]")),
		seldom("carpoolproxy.github.io/godebug: "+choice("tlsrsakex=1", "x")), seldom("carpoolproxy.github.io/secret: "+choice("partner-tls", "a.b", "A", "")), seldom("carpoolproxy.github.io/cache: "+choice("true", "true", "1")), seldom("carpoolproxy.github.io/unknown: a"), seldom("carpoolproxy.github.io/status: injected"),
		seldom("settings.carpoolproxy.github.io/IDLE_TIMEOUT: "+choice("30s", "30", "")), seldom("settings.carpoolproxy.github.io/DRAIN_DELAY: "+choice("5s", "30s")),
		seldom("settings.carpoolproxy.github.io/VIAS: "+choice("true", "")), seldom("settings.carpoolproxy.github.io/LISTEN: "+choice(":1")),
		seldom("settings.carpoolproxy.github.io/PRELOAD_DIR: "+choice("/p", "p")))
	spec := list(
		"containers: ["+containers+"]", "initContainers: ["+inits+"]", rare("volumes: [{name: "+one("carpool", "data", "carpool-secret", "carpool-cache")+", emptyDir: {}}]"),
		rare("hostNetwork: true"), rare("os: {name: "+one("windows", "linux")+"}"), rare("nodeSelector: {kubernetes.io/os: "+one("windows", "linux")+"}"),
		rare("securityContext: {"+list(rare("runAsUser: "+one("0", "1000")), rare("runAsGroup: 1"))+"}"), rare("imagePullSecrets: [{name: mine}]"),
		rare("resources: {limits: {cpu: "+one("50m", "2")+", memory: 256Mi}}"), rare("resources: {requests: {cpu: 1}}"))
	if strings.Count(spec, "resources: {limits: {cpu: ")+strings.Count(spec, "resources: {requests: {cpu: 1}}") > 0 && strings.Count(spec, ", resources: {requests: {cpu: 1}}") > 0 {
		spec = strings.Replace(spec, ", resources: {requests: {cpu: 1}}", "", 1) // one of the two
	}
	c := madeUp{namespace: namespaceWith("enabled", "")}
	c.pod = decode[corev1.Pod](t, "{metadata: {name: p, annotations: {"+annotations+"}, labels: {"+rare("carpoolproxy.github.io/inject: 'true'")+"}}, spec: {"+spec+"}}")
	if r.IntN(3) == 0 {
		c.namespace = namespaceWith("enabled", "namespace")
		c.config = decode[corev1.ConfigMap](t, "{metadata: {name: carpool}, data: {"+list(
			rare("java: "+choice("true", "1")), rare("cpuLimit: "+choice("300m", "x")), rare("memoryRequest: "+choice("64Mi", "")), rare("adminPort: "+choice("19128", "3128", "x")),
			rare("noProxy: "+choice("intra", "a b")), rare("skipContainers: app"), rare("pullPolicy: "+choice("Never", "no")), rare("other: x"), rare("preload: 'true'"), rare("secret: "+choice("team", "b/c")), rare("cache: 'true'"), rare("image: 'its:own'"),
			rare("settings: \"# mine\\nVIA = true\\n\\nIDLE_TIMEOUT="+one("20s", "x")+"\\n"+one("", "BAD", "NO_SUCH=1", "DRAIN_DELAY=26s", "DRAIN_TIMEOUT=40s")+"\""))+"}}")
	}
	for i := range r.IntN(3) {
		if r.IntN(2) == 0 {
			continue
		}
		bounds := func(kind string, cpu, memory []string) string {
			return rare(kind + ": {" + list("cpu: "+one(cpu...), rare("memory: "+one(memory...))) + "}")
		}
		range1 := decode[corev1.LimitRange](t, fmt.Sprintf("{metadata: {name: r%d}, spec: {limits: [{%s}, {type: Pod, max: {cpu: 8}}]}}", i, list("type: Container",
			bounds("min", []string{"10m", "50m"}, []string{"10Mi", "100Mi"}), bounds("max", []string{"1", "15m", "0.3"}, []string{"64Mi", "1Gi"}),
			bounds("default", []string{"5m", "500m"}, []string{"16Mi", "1Gi"}), bounds("maxLimitRequestRatio", []string{"1", "3", "7"}, []string{"1.5", "1"}))))
		coredefaults.SetObjectDefaults_LimitRange(range1)
		c.ranges = append(c.ranges, range1)
	}
	return c
}
