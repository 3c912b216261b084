package charts_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	coredefaults "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	podsecurity "k8s.io/pod-security-admission/api"
	podsecuritypolicy "k8s.io/pod-security-admission/policy"
)

// validatePod is the API server's validation of a new pod.
func validatePod(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	for _, err := range invalid(t, pod) {
		t.Errorf("not a valid pod: %v", err)
	}
}

func invalid(t testing.TB, pod *corev1.Pod) (errs []error) {
	t.Helper()
	pod = pod.DeepCopy()
	coredefaults.SetObjectDefaults_Pod(pod)
	var internal core.Pod
	if err := coredefaults.Convert_v1_Pod_To_core_Pod(pod, &internal, nil); err != nil {
		t.Fatal(err)
	}
	for _, err := range corevalidation.ValidatePodCreate(&internal, corevalidation.PodValidationOptions{
		AllowNamespacedSysctlsForHostNetAndHostIPC: true, PodLevelResourcesEnabled: true,
	}) {
		errs = append(errs, err)
	}
	return errs
}

// The sidecar must not be what keeps a pod out of a restricted namespace.
func TestARestrictedPodStaysRestricted(t *testing.T) {
	const restricted = `
      securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}`
	for _, preload := range []string{"true", "false"} {
		pod := decode[corev1.Pod](t, `
metadata: {name: p, namespace: demo, annotations: {carpoolproxy.github.io/preload: "`+preload+`", carpoolproxy.github.io/cache: "`+preload+`", carpoolproxy.github.io/secret: s}}
spec:
  containers:
    - name: app
      image: a`+restricted)
		out, err := goldenPolicy(t).run(t, pod, namespaceWith("enabled", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.pod.Spec.InitContainers) != 1 {
			t.Fatal("no sidecar")
		}
		for _, reason := range podSecurity(t, out.pod) {
			t.Errorf("preload %s: %s", preload, reason)
		}
		out.pod.Spec.InitContainers[0].SecurityContext.SeccompProfile = nil
		if len(podSecurity(t, out.pod)) == 0 {
			t.Error("the check does not look at the sidecar")
		}
	}
}

func podSecurity(t testing.TB, pod *corev1.Pod) (reasons []string) {
	t.Helper()
	evaluator, err := podsecuritypolicy.NewEvaluator(podsecuritypolicy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for _, r := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			reasons = append(reasons, r.ForbiddenReason+": "+r.ForbiddenDetail)
		}
	}
	return reasons
}
