package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissiondefaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
	admissionvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
)

// webhookMatrix is what the chart is rendered with where there is a webhook.
var webhookMatrix = map[string]string{
	"webhook":      "injection: webhook\npodMonitor: {enabled: true}\nimagePullSecrets: [{name: regcred}]",
	"fail":         "injection: webhook\nwebhook: {failurePolicy: Fail, timeoutSeconds: 10, replicas: 3, priorityClassName: system-cluster-critical}",
	"no params":    "injection: webhook\nnamespaceSettings: {enabled: false}\nwebhook: {countMissed: false}",
	"cert-manager": "injection: webhook\nwebhook: {certificate: {source: certManager}}",
	"an issuer":    "injection: webhook\nwebhook: {certificate: {source: certManager, issuerRef: {name: ca, kind: ClusterIssuer}}}",
	"provided":     "injection: webhook\nwebhook: {certificate: {source: provided, secret: mine, caBundle: '-----BEGIN'}}",
	"node":         "injection: webhook\nwebhook: {hostNetwork: true, port: 10443, nodeSelector: {a: b}, tolerations: [{operator: Exists}]}",
	"network":      "injection: webhook\nwebhook: {networkPolicy: {enabled: true, from: [{ipBlock: {cidr: 10.0.0.0/8}}]}}",
	"image":        "injection: webhook\nwebhook: {image: {repository: r.example.com/c, tag: '2'}}",
}

const (
	v1Kind     = policyKind
	betaKind   = "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy"
	monitoring = "podMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ndashboard: {enabled: true}\nnetworkPolicy: {enabled: true, namespaces: [shop]}"
)

// renderFor renders for a Kubernetes version and these APIs besides Helm's own.
func renderFor(version string, c *chart.Chart, v map[string]any, apis ...string) (map[string]string, error) {
	old := chartutil.DefaultCapabilities.KubeVersion
	defer func() { chartutil.DefaultCapabilities.KubeVersion = old }()
	chartutil.DefaultCapabilities.KubeVersion = chartutil.KubeVersion{Version: version}
	return render(c, v, apis...)
}

// What cluster, or what version helm template is told, has what; and what comes of it
// is told in the notes and in a comment.
func TestTheChartTakesTheWayThatTheClusterHas(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		apis    []string
		values  string
		want    string // v1, v1beta1, webhook or what the error says
		why     string
	}{
		"a cluster of 1.36":                            {"v1.36.3", []string{"v1/Pod", v1Kind, betaKind}, "{}", "v1", "the cluster has MutatingAdmissionPolicy v1"},
		"a cluster of 1.35":                            {"v1.35.1-eks-1", []string{"v1/Pod"}, "{}", "webhook", "the cluster, v1.35.1-eks-1, has no"},
		"a cluster of 1.34 with the beta":              {"v1.34.0", []string{"v1/Pod", betaKind}, "{}", "v1beta1", "v1beta1, and no v1"},
		"a cluster of 1.36 without the API":            {"v1.36.0", []string{"v1/Pod"}, "{}", "webhook", "has no"},
		"a cluster of 1.29":                            {"v1.29.15", []string{"v1/Pod"}, "{}", "webhook", "the cluster, v1.29.15"},
		"a template for 1.29":                          {"v1.29.0", nil, "{}", "webhook", "rendered for v1.29.0"},
		"a template for 1.33":                          {"v1.33.0", nil, "{}", "webhook", "rendered for v1.33.0"},
		"a template for 1.35":                          {"v1.35.0", nil, "{}", "webhook", "rendered for v1.35.0"},
		"a template for 1.36":                          {"v1.36.0-gke.1", nil, "{}", "v1", "rendered for v1.36.0-gke.1"},
		"a template for 1.34 that is told of the beta": {"v1.34.0", []string{betaKind}, "{}", "v1beta1", "v1beta1, and no v1"},
		"the webhook, where the policy is":             {"v1.36.3", []string{"v1/Pod", v1Kind}, "injection: webhook", "webhook", "injection: webhook"},
		"the policy, where it is":                      {"v1.36.3", []string{"v1/Pod", v1Kind}, "injection: policy", "v1", "injection: policy"},
		"the policy, where it is not":                  {"v1.35.0", []string{"v1/Pod"}, "injection: policy", "injection: policy needs MutatingAdmissionPolicy", ""},
		"the policy, in a template for 1.33":           {"v1.33.0", nil, "injection: policy", "carpool-lib", ""},
		"the policy, in a template for 1.35":           {"v1.35.0", nil, "injection: policy", "v1beta1", "injection: policy"},
	} {
		t.Run(name, func(t *testing.T) {
			manifests, err := renderFor(c.version, withFiles(load(t, appChart)), values(t, c.values+"\n"+monitoring), c.apis...)
			if c.values == "{}" {
				manifests, err = renderFor(c.version, withFiles(load(t, appChart)), values(t, monitoring), c.apis...)
			}
			if c.why == "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			file := map[bool]string{true: "webhooks.yaml", false: "policy.yaml"}[c.want == "webhook"]
			if _, both := manifests["policy.yaml"]; both == (c.want == "webhook") || manifests[file] == "" {
				t.Errorf("rendered %v", slices.Sorted(maps.Keys(manifests)))
			}
			if c.want != "webhook" && !strings.Contains(manifests["policy.yaml"], "apiVersion: admissionregistration.k8s.io/"+c.want+"\n") {
				t.Errorf("not of %s:\n%.300s", c.want, manifests["policy.yaml"])
			}
			if c.want == "webhook" {
				file = "injector.yaml"
			}
			for _, text := range []string{manifests["NOTES.txt"], manifests[file]} {
				if !strings.Contains(text, c.why) {
					t.Errorf("%q is not in\n%.600s", c.why, text)
				}
			}
			for _, file := range []string{"podmonitor.yaml", "prometheusrule.yaml", "dashboard.yaml", "networkpolicy.yaml"} {
				if manifests[file] == "" {
					t.Errorf("no %s", file)
				}
			}
		})
	}
}

// The change from one to the other can overlap.
func TestTheWebhookCanBeKeptBesideThePolicy(t *testing.T) {
	manifests := mustRender(t, load(t, appChart), values(t, "webhook: {keep: true}"))
	if manifests["policy.yaml"] == "" || manifests["webhooks.yaml"] == "" || manifests["injector.yaml"] == "" {
		t.Errorf("rendered %v", slices.Sorted(maps.Keys(manifests)))
	}
}

// The same text is a policy of v1beta1.
func TestTheBetaPolicyIsTheSame(t *testing.T) {
	c := load(t, appChart)
	beta := must(renderFor("v1.34.0", c, values(t, "{}"), "v1/Pod", betaKind))
	v1 := mustRender(t, c, values(t, "{}"))
	for _, name := range []string{"policy.yaml", "limits.yaml", "bindings.yaml"} {
		_, a, _ := strings.Cut(strings.ReplaceAll(beta[name], "admissionregistration.k8s.io/v1beta1", "admissionregistration.k8s.io/v1"), "apiVersion")
		_, b, _ := strings.Cut(v1[name], "apiVersion")
		if a != b {
			t.Errorf("%s differs", name)
		}
	}
}

func TestTheAPIServerTakesTheWebhooks(t *testing.T) {
	for name, text := range webhookMatrix {
		manifests := mustRender(t, load(t, appChart), values(t, text))
		for _, c := range decodeKind[admissionregistrationv1.MutatingWebhookConfiguration](t, manifests, "MutatingWebhookConfiguration") {
			admissiondefaults.SetObjectDefaults_MutatingWebhookConfiguration(&c)
			var internal admissionregistration.MutatingWebhookConfiguration
			if err := admissiondefaults.Convert_v1_MutatingWebhookConfiguration_To_admissionregistration_MutatingWebhookConfiguration(&c, &internal, nil); err != nil {
				t.Fatal(err)
			}
			for _, err := range admissionvalidation.ValidateMutatingWebhookConfiguration(&internal) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The injector's own pods keep to what a cluster may ask of them, and no webhook of
// carpool's is asked about them: with failurePolicy Fail they could never start else.
func TestInjectorsAreRestrictedAndNotTheirOwnBusiness(t *testing.T) {
	for name, text := range webhookMatrix {
		manifests := mustRender(t, load(t, appChart), values(t, text))
		template := decodeKind[appsv1.Deployment](t, manifests, "Deployment")[0].Spec.Template
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Name, pod.Namespace = "p", "carpool-system"
		validatePod(t, pod)
		if reasons := podSecurity(t, pod); len(reasons) > 0 && !pod.Spec.HostNetwork {
			t.Errorf("%s: pod security: %v", name, reasons)
		}
		for _, hook := range decodeKind[admissionregistrationv1.MutatingWebhookConfiguration](t, manifests, "MutatingWebhookConfiguration")[0].Webhooks {
			for _, labels := range []map[string]string{{}, {"carpoolproxy.github.io/inject": "enabled"}} {
				if selects(t, hook.NamespaceSelector, labels) && selects(t, hook.ObjectSelector, pod.Labels) {
					t.Errorf("%s: %s is called for the injector's own pods", name, hook.Name)
				}
			}
			system := map[string]string{"carpoolproxy.github.io/inject": "enabled", "kubernetes.io/metadata.name": "kube-system"}
			if *hook.FailurePolicy == admissionregistrationv1.Fail && selects(t, hook.NamespaceSelector, system) {
				t.Errorf("%s: %s is called for kube-system", name, hook.Name)
			}
		}
	}
}

// What an injector may do is what it does: nothing else, and nothing without a name
// where a name is known.
func TestTheInjectorsRightsAreFew(t *testing.T) {
	for name, want := range map[string][]string{
		"webhook": {
			"configmaps carpool get", "limitranges  list", "mutatingwebhookconfigurations carpool get,patch", "namespaces,pods  list", "secrets carpool-injector get,update",
		},
		"no params":    {"limitranges  list", "mutatingwebhookconfigurations carpool get,patch", "secrets carpool-injector get,update"},
		"cert-manager": {"configmaps carpool get", "limitranges  list", "mutatingwebhookconfigurations carpool get", "namespaces,pods  list"},
	} {
		manifests := mustRender(t, load(t, appChart), values(t, webhookMatrix[name]))
		rules := decodeKind[rbacv1.ClusterRole](t, manifests, "ClusterRole")[0].Rules
		if name != "cert-manager" {
			rules = append(rules, decodeKind[rbacv1.Role](t, manifests, "Role")[0].Rules...)
		}
		var got []string
		for _, r := range rules {
			got = append(got, strings.Join(r.Resources, ",")+" "+strings.Join(r.ResourceNames, ",")+" "+strings.Join(r.Verbs, ","))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
