package charts_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/cel-go/cel"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
)

var (
	podKind     = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// A policy is what the API server makes of a MutatingAdmissionPolicy and its
// bindings. It does with them what the server's admission plugin does, in the
// same packages' code; only the way there (informers, dispatch) is left out.
type policy struct {
	name     string
	compiler *plugincel.CompositedCompiler
	matcher  matchconditions.Matcher
	mutation plugincel.MutatingEvaluator
	bindings []admissionregistration.MutatingAdmissionPolicyBinding
}

// newPolicy takes what a chart has rendered: the policy that injects.
func newPolicy(t testing.TB, manifests map[string]string) *policy {
	t.Helper()
	return policyNamed(t, manifests, "carpool")
}

func policyNamed(t testing.TB, manifests map[string]string, name string) *policy {
	t.Helper()
	p := &policy{name: name}
	for _, b := range decodeKind[admissionregistration.MutatingAdmissionPolicyBinding](t, manifests, "MutatingAdmissionPolicyBinding") {
		if b.Spec.PolicyName == name {
			p.bindings = append(p.bindings, b)
		}
	}
	all := decodeKind[admissionregistration.MutatingAdmissionPolicy](t, manifests, "MutatingAdmissionPolicy")
	i := slices.IndexFunc(all, func(p admissionregistration.MutatingAdmissionPolicy) bool { return p.Name == name })
	if i < 0 || len(p.bindings) == 0 {
		t.Fatalf("no policy %s, or no binding of it", name)
	}
	source := all[i]
	var err error
	if p.compiler, err = plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())); err != nil {
		t.Fatal(err)
	}
	options := plugincel.OptionalVariableDeclarations{HasParams: source.Spec.ParamKind != nil, HasAuthorizer: true}
	for _, v := range source.Spec.Variables {
		r := p.compiler.CompileAndStoreVariable(variable(v), options, environment.StoredExpressions)
		if r.Error != nil {
			t.Fatalf("variable %s: %v\n%s", v.Name, r.Error, v.Expression)
		}
	}
	var conditions []plugincel.ExpressionAccessor
	for i := range source.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&source.Spec.MatchConditions[i]))
	}
	p.matcher = matchconditions.NewMatcher(p.compiler.CompileCondition(conditions, options, environment.StoredExpressions),
		source.Spec.FailurePolicy, "policy", "validate", source.Name)
	options.HasPatchTypes = true
	if len(source.Spec.Mutations) != 1 {
		t.Fatalf("%d mutations, want one: pods must not come out half done", len(source.Spec.Mutations))
	}
	p.mutation = p.compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: source.Spec.Mutations[0].JSONPatch.Expression},
		options, environment.StoredExpressions)
	for _, err := range p.mutation.CompilationErrors() {
		t.Fatal(err)
	}
	return p
}

// variable is a policy's variable as the compiler takes it.
type variable admissionregistration.Variable

func (v variable) GetName() string          { return v.Name }
func (v variable) GetExpression() string    { return v.Expression }
func (v variable) ReturnTypes() []*cel.Type { return []*cel.Type{cel.AnyType, cel.DynType} }

// An outcome is a pod after the policy, and what it cost to get there.
type outcome struct {
	pod  *corev1.Pod
	cost int64
}

// run creates a pod in a namespace whose ConfigMap carpool is config, or nil.
func (p *policy) run(t testing.TB, pod *corev1.Pod, namespace *corev1.Namespace, config *corev1.ConfigMap) (outcome, error) {
	t.Helper()
	bound := p.boundTo(t, pod, namespace)
	if len(bound) == 0 {
		return outcome{pod: pod}, nil
	}
	if len(bound) > 1 {
		t.Fatalf("%d bindings hold for one pod: %v", len(bound), bound)
	}
	var params runtime.Object // a nil interface without params, as in the server
	if ref := bound[0].Spec.ParamRef; ref != nil {
		if config == nil {
			if *ref.ParameterNotFoundAction == admissionregistration.DenyAction {
				return outcome{}, fmt.Errorf("no params found for policy binding with `Deny` parameterNotFoundAction")
			}
			return outcome{pod: pod}, nil
		}
		if config.Name != ref.Name {
			t.Fatalf("the binding wants ConfigMap %s, the test has %s", ref.Name, config.Name)
		}
		params = config
	}
	return p.mutate(t, pod, namespace, params)
}

func (p *policy) boundTo(t testing.TB, pod *corev1.Pod, namespace *corev1.Namespace) (bound []admissionregistration.MutatingAdmissionPolicyBinding) {
	t.Helper()
	for _, b := range p.bindings {
		if selects(t, b.Spec.MatchResources.NamespaceSelector, namespace.Labels) && selects(t, b.Spec.MatchResources.ObjectSelector, pod.Labels) {
			bound = append(bound, b)
		}
	}
	return bound
}

func selects(t testing.TB, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(set))
}

func (p *policy) mutate(t testing.TB, pod *corev1.Pod, namespace *corev1.Namespace, params runtime.Object) (outcome, error) {
	t.Helper()
	ctx := p.compiler.CreateContext(t.Context())
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	attributes := admission.NewAttributesRecord(pod, nil, podKind, namespace.Name, pod.Name, podResource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedKind: podKind, VersionedObject: pod}
	match := p.matcher.Match(ctx, versioned, params, nil)
	if match.Error != nil {
		return outcome{}, match.Error
	}
	if !match.Matches {
		return outcome{pod: pod}, nil
	}
	bindings := plugincel.OptionalVariableBindings{VersionedParams: params}
	request := plugincel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(podResource), metav1.GroupVersionKind(podKind))
	_, left, err := p.mutation.ForInput(ctx, versioned, request, bindings, namespace, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return outcome{}, err
	}
	patched, err := patch.NewJSONPatcher(p.mutation).Patch(p.compiler.CreateContext(t.Context()), patch.Request{
		MatchedResource: podResource, VersionedAttributes: versioned, ObjectInterfaces: interfaces,
		OptionalVariables: bindings, Namespace: namespace,
	}, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return outcome{}, err
	}
	return outcome{pod: patched.(*corev1.Pod), cost: celconfig.RuntimeCELCostBudget - left}, nil
}

// namespaceWith makes a namespace with these values of carpool's labels; "" is none.
func namespaceWith(inject, settings string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo", Labels: map[string]string{"kubernetes.io/metadata.name": "demo"}}}
	if inject != "" {
		ns.Labels["carpoolproxy.github.io/inject"] = inject
	}
	if settings != "" {
		ns.Labels["carpoolproxy.github.io/settings"] = settings
	}
	return ns
}
