package inject_test

import (
	"strings"
	"testing"
)

// indented returns lines that are n blanks deeper.
func indented(n int, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.Repeat(" ", n) + line)
	}
	return b.String()
}

const podSpec = "spec:\n  containers:\n    - name: a\n      image: a:1\n"

// kinds are objects with pods, by their kinds, and how many.
var kinds = map[string]struct {
	text string
	pods int
}{
	"Rollout":          {"apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec:\n  template:\n" + indented(4, podSpec), 1},
	"DeploymentConfig": {"apiVersion: apps.openshift.io/v1\nkind: DeploymentConfig\nspec:\n  template:\n" + indented(4, podSpec), 1},
	"CloneSet":         {"apiVersion: apps.kruise.io/v1alpha1\nkind: CloneSet\nspec:\n  template:\n" + indented(4, podSpec), 1},
	"old Deployment":   {"apiVersion: extensions/v1beta1\nkind: Deployment\nspec:\n  template:\n" + indented(4, podSpec), 1},
	"PodTemplate":      {"apiVersion: v1\nkind: PodTemplate\ntemplate:\n" + indented(2, podSpec), 1},
	"CronJob":          {"apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n" + indented(8, podSpec), 1},
	"AdvancedCronJob":  {"apiVersion: apps.kruise.io/v1alpha1\nkind: AdvancedCronJob\nspec:\n  template:\n    jobTemplate:\n      spec:\n        template:\n" + indented(10, podSpec), 1},
	"ScaledJob":        {"apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nspec:\n  jobTargetRef:\n    template:\n" + indented(6, podSpec), 1},
	"JobSet": {"apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec:\n  replicatedJobs:\n" +
		strings.Repeat("    - name: j\n      template:\n        spec:\n          template:\n"+indented(12, podSpec), 2), 2},
	"List":           {"apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n" + indented(4, podSpec), 1},
	"ResourceList":   {"apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nitems:\n  - apiVersion: v1\n    kind: Pod\n" + indented(4, podSpec), 1},
	"PodList":        {"apiVersion: v1\nkind: PodList\nitems:\n  - metadata:\n      name: p\n" + indented(4, podSpec), 1},
	"DeploymentList": {"apiVersion: apps/v1\nkind: DeploymentList\nitems:\n  - spec:\n      template:\n" + indented(8, podSpec), 1},
	"RolloutList":    {"apiVersion: argoproj.io/v1alpha1\nkind: RolloutList\nitems:\n  - spec:\n      template:\n" + indented(8, podSpec), 1},
}

func TestPodsAreServedWhateverTheKind(t *testing.T) {
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			got := run(c.text, "inject", "--strict", "-f", "-")
			if got.code != 0 || got.stderr != "" || strings.Count(got.stdout, "- name: HTTP_PROXY\n") != c.pods || strings.Count(got.stdout, "status: injected\n") != c.pods {
				t.Errorf("%+v, want %d pods", got, c.pods)
			}
			again := run(got.stdout, "inject", "-f", "-")
			if items, _, _ := strings.Cut(again.stdout, "results:\n"); items != got.stdout { // a ResourceList has the notes in it
				t.Errorf("twice is not once:\n%s", again.stdout)
			}
			if back := run(got.stdout, "uninject", "-f", "-"); back.stdout != c.text || back.stderr != "" {
				t.Errorf("uninject: %+v", back)
			}
		})
	}
}

// passedOver are documents that stay as they are though they have containers.
var passedOver = map[string]struct{ text, want string }{
	"an unknown place": {"apiVersion: ray.io/v1\nkind: RayCluster\nmetadata: {name: r}\nspec:\n  workerGroupSpecs:\n    - template:\n" + indented(8, podSpec),
		"(RayCluster r): left as it is: it has containers in spec.workerGroupSpecs[0].template.spec, where inject puts nothing"},
	"many places": {"apiVersion: x.example/v1\nkind: Many\nspec:\n  tasks:\n" + strings.Repeat("    - "+strings.TrimLeft(indented(6, podSpec), " "), 5),
		"containers in spec.tasks[0].spec, spec.tasks[1].spec, spec.tasks[2].spec, 2 more places, where"},
	"a container alone": {"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  templates:\n    - name: t\n      container: {image: a}\n",
		"(Workflow): left as it is: it has containers in spec.templates[0], where"},
	"in a list": {"apiVersion: v1\nkind: List\nitems:\n  - apiVersion: ray.io/v1\n    kind: RayService\n    spec: {head: {containers: [{image: a}]}}\n",
		"(RayService): left as it is: it has containers in spec.head, where"},
	"a kind that is misspelt": {"apiVersion: v1\nknd: Pod\nmetadata: {name: p}\n" + podSpec, "(p): left as it is: it has containers in spec, where"},
	"Knative": {"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\nspec:\n  template:\n" + indented(4, podSpec),
		"(Service k): left as it is: Knative refuses native sidecars"},
	"no template": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3}\n",
		"(Deployment d): left as it is: it has no spec.template (a patch for another file?)"},
	"a patch without an image": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    spec:\n      containers:\n        - name: a\n          env: []\n",
		"(Deployment d): left as it is: the container a has no image (a patch for another file?)"},
	"a patch with $patch": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    spec:\n      containers:\n" +
		"        - $patch: replace\n        - name: a\n          image: a:1\n", "(Deployment d): left as it is: it is a patch for another file, by its $patch"},
	"a patch that sets an order": {"apiVersion: v1\nkind: Pod\n" + podSpec + "  $setElementOrder/containers: [{name: a}]\n",
		"(Pod): left as it is: it is a patch for another file, by its $setElementOrder/containers"},
}

func TestContainersThatArePassedOverAreNoted(t *testing.T) {
	for name, c := range passedOver {
		t.Run(name, func(t *testing.T) {
			in := "a: b\n---\n" + c.text
			got := run(in, "inject", "-f", "-")
			if got.code != 0 || got.stdout != in || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, "stdin: document 2 ") || !strings.Contains(got.stderr, c.want) {
				t.Errorf("%+v, want a note %q", got, c.want)
			}
			_, why, _ := strings.Cut(c.want, "left as it is: ")
			strict := run(in, "inject", "--strict", "-f", "-")
			if strict.code != 1 || strict.stdout != "" || !strings.Contains(strict.stderr, "is passed over: "+why) && !strings.Contains(strict.stderr, why) {
				t.Errorf("strict: %+v", strict)
			}
			if back := run(in, "uninject", "-f", "-"); back.code != 0 || back.stdout != in {
				t.Errorf("uninject: %+v", back)
			}
		})
	}
}

func TestStrictTakesWhatCarpoolIsNotFor(t *testing.T) {
	in := aPod("  labels:\n    "+prefix+"inject: \"false\"\n") + "---\n" + aPod() + "  hostNetwork: true\n---\nkind: ConfigMap\napiVersion: v1\ndata: {containers: \"{{ .Values.x }}\"}\n"
	if got := run(in, "inject", "--strict", "-f", "-"); got.code != 0 || got.stdout != in || strings.Count(got.stderr, "\n") != 2 {
		t.Errorf("%+v", got)
	}
}

func TestTemplatesAreToBeRenderedFirst(t *testing.T) {
	pipe := "this is a template: render it first: helm template NAME CHART | carpool inject -f - | kubectl apply -f -\n"
	cases := map[string]struct{ in, place string }{
		"no YAML":      {"{{- if .Values.on }}\n" + aPod() + "{{- end }}\n", "document 1, line 1: "},
		"a value":      {strings.Replace(aPod(), "name: p", "name: {{ .Release.Name }}", 1), "document 1, line 4: "},
		"in quotes":    {strings.Replace(aPod(), "image: a:1", `image: "{{ .Values.image }}"`, 1), "document 1, line 8: "},
		"an include":   {strings.Replace(aPod(), "image: a:1", `image: '{{ include "image" . }}'`, 1), "document 1, line 8: "},
		"a root":       {"a: b\n---\n" + strings.Replace(aPod(), "image: a:1", `image: "{{ $.Values.image | quote }}"`, 1), "document 2, line 10: "},
		"another kind": {aPod() + "---\na: {{ b }}: c\n", "document 2, line 10: "},
		"several":      {"{{ x }}: [\n---\n{{ x }}: [\n", "document 1, line 1: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := run(c.in, "inject", "-f", "-"); got.code != 1 || got.stdout != "" || got.stderr != "carpool inject: stdin: "+c.place+pipe {
				t.Errorf("%+v, want %q", got, c.place+pipe)
			}
		})
	}
	t.Run("what an app has of its own", func(t *testing.T) {
		in := strings.Replace(aPod(), "image: a:1", "image: a:1\n      args: ['--format={{.Name}}', '{{inputs.x}}', '{{ .Value }}', '{{range .items}}{{if .x}}{{.x}}{{end}}{{end}}'] # {{ .Values.x }}", 1)
		if got := run(in, "inject", "-f", "-"); got.code != 0 || got.stderr != "" {
			t.Errorf("%+v", got)
		}
	})
}
