package charts_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	coredefaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	quota "k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/utils/clock"
)

// A world is what a namespace asks of its pods.
type world struct {
	limits []string              // LimitRanges
	quota  []corev1.ResourceName // what quotas count
	users  [2]int64              // first and last of the users that OpenShift gives to it, if it is OpenShift
	level  bool                  // Pod Security "restricted"

	name       string          // of the namespace, where it counts
	guaranteed bool            // a Guaranteed pod has to stay so
	refused    func(why error) // nil: the test has failed
}

// worlds, each with a pod that it admits.
var worlds = map[string]struct {
	world
	pod string // annotations and spec
}{
	"nothing asked": {world{}, `{spec: {containers: [{name: app, image: a}]}}`},
	"quota on all": {
		world{quota: []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}},
		`{spec: {containers: [{name: app, image: a, resources: {requests: {cpu: 10m, memory: 10Mi}, limits: {cpu: 1, memory: 1Gi}}}]}}`,
	},
	"quota on all, Guaranteed": {
		world{quota: []corev1.ResourceName{"limits.cpu", "limits.memory", "cpu", "memory"}},
		`{spec: {initContainers: [{name: init, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}], containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]}}`,
	},
	"quota on all, with resources of the pod": {
		world{quota: []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}},
		`{spec: {resources: {requests: {cpu: 1, memory: 64Mi}, limits: {cpu: 1, memory: 64Mi}}, containers: [{name: app, image: a, resources: {requests: {cpu: 1, memory: 64Mi}}}]}}`,
	},
	"resources of the pod, all spent": {
		world{},
		`{spec: {resources: {requests: {cpu: 500m, memory: 1Gi}}, containers: [{name: app, image: a, resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: 1}}}]}}`,
	},
	"default limit below the request, and a quota": {
		world{
			limits: []string{`{type: Container, default: {cpu: 10m, memory: 20Mi}}`},
			quota:  []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"},
		},
		`{spec: {containers: [{name: app, image: a}]}}`,
	},
	"default limit below the request, and none chosen": {
		world{limits: []string{`{type: Container, default: {cpu: 10m}}`}},
		`{metadata: {annotations: {carpoolproxy.github.io/cpu-limit: ""}}, spec: {containers: [{name: app, image: a}]}}`,
	},
	"least": {
		world{limits: []string{`{type: Container, min: {cpu: 200m, memory: 256Mi}}`}},
		`{spec: {containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 200m, memory: 256Mi}}}]}}`,
	},
	"least, without limits": {
		world{limits: []string{`{type: Container, min: {cpu: 50m, memory: 64Mi}}`}},
		`{spec: {containers: [{name: app, image: a}]}}`,
	},
	"most": {
		world{limits: []string{`{type: Container, max: {cpu: 50m, memory: 64Mi}}`}},
		`{spec: {containers: [{name: app, image: a}]}}`,
	},
	"most below the request": {
		world{limits: []string{`{type: Container, max: {cpu: 15m, memory: 24Mi}}`}},
		`{spec: {containers: [{name: app, image: a}]}}`,
	},
	"most below what is chosen": {
		world{limits: []string{`{type: Container, max: {cpu: 500m}}`}},
		`{metadata: {annotations: {carpoolproxy.github.io/cpu-request: "1", carpoolproxy.github.io/cpu-limit: "2"}}, spec: {containers: [{name: app, image: a}]}}`,
	},
	"ratio": {
		world{limits: []string{`{type: Container, maxLimitRequestRatio: {cpu: 3, memory: "1.5"}}`}},
		`{spec: {containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 700m, memory: 900Mi}}}]}}`,
	},
	"ratio of 1": {
		world{limits: []string{`{type: Container, maxLimitRequestRatio: {cpu: 1, memory: 1}}`}},
		`{spec: {containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]}}`,
	},
	"ratio of a default": {
		world{limits: []string{`{type: Container, default: {cpu: 500m, memory: 512Mi}, defaultRequest: {cpu: 100m, memory: 256Mi}, maxLimitRequestRatio: {cpu: 10, memory: 2}}`}},
		`{metadata: {annotations: {carpoolproxy.github.io/cpu-limit: "", carpoolproxy.github.io/memory-limit: ""}}, spec: {containers: [{name: app, image: a}]}}`,
	},
	"two ranges, all of it": {
		world{
			limits: []string{
				`{type: Container, min: {cpu: 25m}, max: {cpu: 2}, default: {cpu: 30m}, defaultRequest: {cpu: 25m}, maxLimitRequestRatio: {cpu: 2}}, {type: Pod, max: {cpu: 8}}`,
				`{type: Container, min: {memory: 100Mi}, max: {memory: 2Gi}, maxLimitRequestRatio: {memory: 1}}`,
			},
			quota: []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"},
		},
		`{spec: {containers: [{name: app, image: a}, {name: b, image: b, resources: {limits: {cpu: 50m}}}]}}`,
	},
	"users of a range": {
		world{users: [2]int64{1000680000, 1000689999}},
		`{spec: {initContainers: [{name: init, image: a}], containers: [{name: app, image: a}]}}`,
	},
	"users of a range, restricted": {
		world{users: [2]int64{1000680000, 1000689999}, level: true},
		`{spec: {securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: app, image: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}`,
	},
	"a pod with a user of a range": {
		world{users: [2]int64{2000, 2999}},
		`{spec: {securityContext: {runAsUser: 2500}, containers: [{name: app, image: a}]}}`,
	},
	"a preload": {
		world{level: true, quota: []corev1.ResourceName{"limits.cpu", "requests.memory"}, limits: []string{`{type: Container, default: {cpu: 100m, memory: 64Mi}}`}},
		`{metadata: {annotations: {carpoolproxy.github.io/preload: "true"}}, spec: {containers: [{name: app, image: a, securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}}]}}`,
	},
}

// A mutator is what changes pods beside LimitRanger: a policy, or a webhook.
type mutator func(t *testing.T, w world, pod *corev1.Pod) *corev1.Pod

// TestWhatWasAdmittedIsAdmittedWithTheSidecar goes through admission as the API
// server does: LimitRanger, OpenShift's assignment of users and the policies, in
// either order, or the webhook, all of them once more, and then what only says yes or
// no.
func TestWhatWasAdmittedIsAdmittedWithTheSidecar(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "{}"))
	injecting, limiting := byPolicy(newPolicy(t, manifests)), byPolicy(policyNamed(t, manifests, "carpool-limits"))
	called := byWebhook(newWebhook(t, "{}"))
	for name, c := range worlds {
		t.Run(name, func(t *testing.T) {
			c.world.guaranteed = true
			c.world.name = inName.ReplaceAllString(strings.ToLower(name), "-")
			before := c.admit(t, c.pod)
			for by, mutators := range map[string][]mutator{
				"policies": {injecting, limiting}, "policies, the other way round": {limiting, injecting}, "webhook": {called},
			} {
				c.hasSidecar(t, by, before, c.admit(t, c.pod, mutators...))
			}
		})
	}
}

var inName = regexp.MustCompile(`[^a-z0-9]+`)

func (w world) hasSidecar(t *testing.T, by string, before, pod *corev1.Pod) {
	t.Helper()
	if len(pod.Spec.InitContainers) == 0 || pod.Spec.InitContainers[0].Name != "carpool" {
		t.Fatalf("%s: no sidecar", by)
	}
	if was, is := qos.GetPodQOS(before), qos.GetPodQOS(pod); w.guaranteed && was == corev1.PodQOSGuaranteed && is != was {
		t.Errorf("%s: %s became %s: %+v", by, was, is, pod.Spec.InitContainers[0].Resources)
	}
	t.Logf("%s: %+v %+v", by, pod.Spec.InitContainers[0].Resources, pod.Spec.InitContainers[0].SecurityContext.RunAsUser)
}

func byPolicy(p *policy) mutator {
	return func(t *testing.T, w world, pod *corev1.Pod) *corev1.Pod { return w.mutate(t, p, pod) }
}

func byWebhook(h *webhook) mutator {
	return func(t *testing.T, w world, pod *corev1.Pod) *corev1.Pod {
		t.Helper()
		namespace := namespaceWith("enabled", "")
		namespace.Name = w.name // limits are remembered for some seconds
		pod, err := h.run(t, pod, namespace, nil, w.ranges(t)...)
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
}

// notSeen is what the chart's README names of that which the command does not see.
var notSeen = regexp.MustCompile(`(minimum|maximum) (cpu|memory) usage per Container|(cpu|memory) max limit to request ratio per Container|must be less than or equal to (cpu|memory) limit`)

// The command sees the pod alone. What it makes is admitted too, unless a LimitRange is
// in the way: that is refused by its name, and where the namespace has the label the
// chart makes it fit.
func TestWhatTheCommandInjectsIsAdmittedOrRefusedByALimitRange(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "{}"))
	limiting := byPolicy(policyNamed(t, manifests, "carpool-limits"))
	called := byWebhook(newWebhook(t, "{}"))
	for name, c := range worlds {
		t.Run(name, func(t *testing.T) {
			c.world.guaranteed = len(c.limits) == 0 // what comes of LimitRanges is not seen
			c.world.name = "command-" + inName.ReplaceAllString(strings.ToLower(name), "-")
			pod := decode[corev1.Pod](t, c.pod)
			injected := mustYAML(t, must(inManifest(t, pod, "--image", goldenImage)))
			c.hasSidecar(t, "command, and the policy for LimitRanges", c.admit(t, c.pod), c.admit(t, injected, limiting))
			c.hasSidecar(t, "command, and the webhook", c.admit(t, c.pod), c.admit(t, injected, called))
			alone := c.world
			alone.refused = func(why error) {
				if len(c.limits) == 0 || !notSeen.MatchString(why.Error()) {
					t.Errorf("the command alone: %v", why)
				}
			}
			alone.hasSidecar(t, "command alone", c.admit(t, c.pod), alone.admit(t, injected))
		})
	}
}

// admit returns a pod as it is admitted.
func (w world) admit(t *testing.T, text string, mutators ...mutator) *corev1.Pod {
	t.Helper()
	if w.refused == nil {
		w.refused = func(why error) { t.Errorf("with %d mutators: %v", len(mutators), why) }
	}
	pod := decode[corev1.Pod](t, text)
	pod.Name, pod.Namespace = "p", "demo"
	coredefaults.SetObjectDefaults_Pod(pod)
	for range 3 { // one more than the server does: nothing changes any more
		w.limitRanger(t, pod, limitranger.PodMutateLimitFunc)
		w.assignUsers(t, pod)
		for _, change := range mutators {
			pod = change(t, w, pod)
			coredefaults.SetObjectDefaults_Pod(pod)
		}
	}
	w.limitRanger(t, pod, limitranger.PodValidateLimitFunc)
	for _, err := range invalid(t, pod) {
		w.refused(err)
	}
	if err := quota.NewPodEvaluator(nil, clock.RealClock{}).Constraints(w.quota, pod); err != nil {
		w.refused(fmt.Errorf("quota: %w", err))
	}
	if w.level {
		for _, reason := range podSecurity(t, pod) {
			w.refused(fmt.Errorf("pod security: %s", reason))
		}
	}
	return pod
}

// ranges are the LimitRanges as the API server hands them out.
func (w world) ranges(t *testing.T) (all []*corev1.LimitRange) {
	for i, items := range w.limits {
		r := decode[corev1.LimitRange](t, fmt.Sprintf("{metadata: {name: r%d, namespace: demo}, spec: {limits: [%s]}}", i, items))
		coredefaults.SetObjectDefaults_LimitRange(r)
		all = append(all, r)
	}
	return all
}

func (w world) mutate(t *testing.T, p *policy, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	if p.name == "carpool" {
		return must(p.run(t, pod, namespaceWith("enabled", ""), nil)).pod
	}
	if bound := p.boundTo(t, pod, namespaceWith("enabled", "")); len(bound) != 1 {
		t.Fatalf("%d bindings of %s hold", len(bound), p.name)
	}
	for _, r := range w.ranges(t) {
		pod = must(p.mutate(t, pod, namespaceWith("enabled", ""), r)).pod
	}
	return pod
}

// limitRanger does what the admission plugin of that name does.
func (w world) limitRanger(t *testing.T, pod *corev1.Pod, do func(*corev1.LimitRange, *core.Pod) error) {
	t.Helper()
	var internal core.Pod
	if err := coredefaults.Convert_v1_Pod_To_core_Pod(pod, &internal, nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.ranges(t) {
		if err := do(r, &internal); err != nil {
			w.refused(fmt.Errorf("LimitRange: %w", err))
		}
	}
	if err := coredefaults.Convert_core_Pod_To_v1_Pod(&internal, pod, nil); err != nil {
		t.Fatal(err)
	}
}

// assignUsers does what OpenShift does under its constraint restricted-v2: who
// says nothing gets the first user of the range, who says another is refused.
func (w world) assignUsers(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if w.users[0] == 0 {
		return
	}
	check := func(user *int64) bool {
		if user != nil && (*user < w.users[0] || *user > w.users[1]) {
			w.refused(fmt.Errorf("user %d is not of %v", *user, w.users))
		}
		return user != nil
	}
	ofPod := pod.Spec.SecurityContext != nil && check(pod.Spec.SecurityContext.RunAsUser)
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			if !check(c.SecurityContext.RunAsUser) && !ofPod {
				c.SecurityContext.RunAsUser = &w.users[0]
			}
		}
	}
}

// A pod in a namespace without carpool, or with one that has no LimitRange in
// its way, is not changed by the policy for them.
func TestLimitsThatFitAreLeftAlone(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "{}"))
	limiting := policyNamed(t, manifests, "carpool-limits")
	w := world{limits: []string{`{type: Container, max: {cpu: 2, memory: 2Gi}}, {type: PersistentVolumeClaim, min: {storage: 1Gi}}`}}
	for _, text := range []string{
		`{spec: {containers: [{name: app, image: a}]}}`,
		`{spec: {initContainers: [{name: init, image: a}], containers: [{name: carpool, image: a}]}}`,
		`{spec: {initContainers: [{name: init, image: a}, {name: carpool, image: a, resources: {requests: {cpu: 20m, ephemeral-storage: 1Gi}}}], containers: [{name: app, image: a}]}}`,
	} {
		pod := decode[corev1.Pod](t, text)
		pod.Name, pod.Namespace = "p", "demo"
		if got := w.mutate(t, limiting, pod.DeepCopy()); mustYAML(t, got) != mustYAML(t, pod) {
			t.Errorf("%s\nbecame\n%s", text, mustYAML(t, got))
		}
	}
	pod := decode[corev1.Pod](t, `{metadata: {name: p, namespace: demo}, spec: {initContainers: [{name: init, image: a}, {name: carpool, image: a, resources: {requests: {cpu: 4, ephemeral-storage: 1Gi}}}], containers: [{name: app, image: a}]}}`)
	got := w.mutate(t, limiting, pod).Spec.InitContainers
	if i := slices.IndexFunc(got, func(c corev1.Container) bool { return c.Name == "carpool" }); i != 1 || got[1].Resources.Requests.Cpu().String() != "2" ||
		got[1].Resources.Requests.StorageEphemeral().String() != "1Gi" || len(got[0].Resources.Requests) != 0 {
		t.Errorf("became %+v", got)
	}
}
