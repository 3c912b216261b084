package charts_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	webhookrequest "k8s.io/apiserver/pkg/admission/plugin/webhook/request"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// carpool is the program, built once.
var carpool = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("carpool-charts-%d", os.Getpid()))
	out, err := exec.Command("go", "build", "-C", "../..", "-o", path, "./cmd/carpool").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := carpool(); err == nil {
		_ = os.Remove(path)
	}
	os.Exit(code)
}

// A webhook is `carpool injector` as a process, with the configuration that the chart
// gives it, and an API server that calls it as the real one does: by what the
// MutatingWebhookConfiguration says, over TLS, trusting what is published in it.
type webhook struct {
	client   *http.Client
	address  string // where the Service leads
	admin    string
	hooks    []admissionregistration.MutatingWebhook
	matchers []matchconditions.Matcher
	api      *apiServer
}

// apiServer has what an injector reads and writes. Namespaces have their ConfigMaps
// and LimitRanges in it, each test its own.
type apiServer struct {
	mu      sync.Mutex // guards objects
	objects map[string]map[string]any
	version int
}

func (a *apiServer) put(path string, object any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.putLocked(path, object)
}

func (a *apiServer) putLocked(path string, object any) {
	var tree map[string]any
	if err := json.Unmarshal(must(json.Marshal(object)), &tree); err != nil {
		panic(err)
	}
	a.version++
	if metadata, ok := tree["metadata"].(map[string]any); ok {
		metadata["resourceVersion"] = fmt.Sprint(a.version)
	}
	a.objects[path] = tree
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	object, ok := a.objects[r.URL.Path]
	if r.Header.Get("Authorization") != "Bearer a-token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if !ok && strings.HasSuffix(r.URL.Path, "/limitranges") {
		object, ok = map[string]any{"items": []any{}}, true
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, _ := io.ReadAll(r.Body)
	switch r.Method {
	case http.MethodPut:
		var in map[string]any
		_ = json.Unmarshal(body, &in)
		a.putLocked(r.URL.Path, in)
	case http.MethodPatch:
		patched, err := must(jsonpatch.DecodePatch(body)).Apply(must(json.Marshal(object)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		a.putLocked(r.URL.Path, json.RawMessage(patched))
	}
	if a.objects[r.URL.Path] != nil {
		object = a.objects[r.URL.Path]
	}
	_ = json.NewEncoder(w).Encode(object)
}

const hooksPath = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/carpool"

// newWebhook starts an injector with what the chart makes of these values.
func newWebhook(t testing.TB, text string) *webhook {
	t.Helper()
	v := values(t, text)
	v["injection"] = "webhook"
	manifests := mustRender(t, load(t, appChart), v)
	w := &webhook{api: &apiServer{objects: map[string]map[string]any{}}}
	configuration := decodeKind[admissionregistration.MutatingWebhookConfiguration](t, manifests, "MutatingWebhookConfiguration")[0]
	w.hooks = configuration.Webhooks
	for i := range w.hooks {
		w.matchers = append(w.matchers, matcherOf(t, &w.hooks[i]))
	}
	w.api.put(hooksPath, configuration)
	for _, s := range decodeKind[corev1.Secret](t, manifests, "Secret") {
		w.api.put("/api/v1/namespaces/carpool-system/secrets/"+s.Name, s)
	}
	w.start(t, decodeKind[corev1.ConfigMap](t, manifests, "ConfigMap")[0].Data["injector.json"])
	return w
}

// matcherOf compiles a webhook's conditions as the API server does.
func matcherOf(t testing.TB, hook *admissionregistration.MutatingWebhook) matchconditions.Matcher {
	t.Helper()
	compiler := plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	var conditions []plugincel.ExpressionAccessor
	for i := range hook.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&hook.MatchConditions[i]))
	}
	compiled := compiler.CompileCondition(conditions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions)
	for _, err := range compiled.CompilationErrors() {
		t.Fatal(err)
	}
	return matchconditions.NewMatcher(compiled, hook.FailurePolicy, "webhook", "admit", hook.Name)
}

// start runs the process until the test ends, and waits until it is ready.
func (w *webhook) start(t testing.TB, config string) {
	t.Helper()
	server := httptest.NewTLSServer(w.api)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	var tree map[string]any
	if err := json.Unmarshal([]byte(config), &tree); err != nil {
		t.Fatal(err)
	}
	tree["listen"], tree["admin"], tree["countMissed"] = "127.0.0.1:0", "127.0.0.1:0", false
	for name, content := range map[string][]byte{
		"injector.json": must(json.Marshal(tree)), "token": []byte("a-token\n"),
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := must(url.Parse(server.URL))
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, must(carpool()), "injector", "--config", filepath.Join(dir, "injector.json"), "--service-account", dir)
	command.Env = []string{"KUBERNETES_SERVICE_HOST=" + at.Hostname(), "KUBERNETES_SERVICE_PORT=" + at.Port()}
	log := &journal{lines: make(chan string, 1000)}
	command.Stderr = log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the injector's log:\n%s", log.text())
		}
	})
	w.address, w.admin = log.serving(t)
	w.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.trusted(t), ServerName: "carpool-injector.carpool-system.svc"}, ForceAttemptHTTP2: true}}
}

// trusted waits until the injector is ready and returns what is published then.
func (w *webhook) trusted(t testing.TB) *x509.CertPool {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + w.admin + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the injector does not get ready: %v", err)
		}
	}
	w.api.mu.Lock()
	text := must(json.Marshal(w.api.objects[hooksPath]))
	w.api.mu.Unlock()
	pool := x509.NewCertPool()
	for _, hook := range decode[admissionregistration.MutatingWebhookConfiguration](t, string(text)).Webhooks {
		if !pool.AppendCertsFromPEM(hook.ClientConfig.CABundle) {
			t.Fatalf("nothing is published for %s", hook.Name)
		}
	}
	return pool
}

// journal gathers what a process writes to stderr.
type journal struct {
	mu    sync.Mutex // guards all
	all   bytes.Buffer
	lines chan string
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	j.all.Write(b)
	j.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		select {
		case j.lines <- line:
		default:
		}
	}
	return len(b), nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.String()
}

func (j *journal) serving(t testing.TB) (listen, admin string) {
	t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		select {
		case line := <-j.lines:
			var said struct{ Msg, Listen, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				return said.Listen, said.Admin
			}
		case <-deadline:
			t.Fatalf("the injector does not serve:\n%s", j.text())
		}
	}
}

// run creates a pod in a namespace with this ConfigMap, or nil, and these LimitRanges.
func (w *webhook) run(t testing.TB, pod *corev1.Pod, namespace *corev1.Namespace, config *corev1.ConfigMap, ranges ...*corev1.LimitRange) (*corev1.Pod, error) {
	t.Helper()
	path := "/api/v1/namespaces/" + namespace.Name
	if config != nil {
		w.api.put(path+"/configmaps/carpool", config)
	}
	if len(ranges) > 0 {
		w.api.put(path+"/limitranges", map[string]any{"items": ranges})
	}
	called := 0
	for i, hook := range w.hooks {
		if !selects(t, hook.NamespaceSelector, namespace.Labels) || !selects(t, hook.ObjectSelector, pod.Labels) {
			continue
		}
		if called++; called > 1 {
			t.Fatalf("two webhooks hold for one pod")
		}
		attributes := admission.NewAttributesRecord(pod, nil, podKind, namespace.Name, pod.Name, podResource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
		match := w.matchers[i].Match(t.Context(), &admission.VersionedAttributes{Attributes: attributes, VersionedKind: podKind, VersionedObject: pod}, nil, nil)
		if match.Error != nil {
			return nil, match.Error
		}
		if !match.Matches {
			continue
		}
		var err error
		if pod, err = w.review(t, *hook.ClientConfig.Service.Path, pod, namespace.Name); err != nil {
			return nil, err
		}
	}
	return pod, nil
}

// review asks for one pod. The answer is checked, and carried out, by the API server's
// own code.
func (w *webhook) review(t testing.TB, path string, pod *corev1.Pod, namespace string) (*corev1.Pod, error) {
	t.Helper()
	typed := pod.DeepCopy()
	typed.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	object := must(json.Marshal(typed))
	in := &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "7", Kind: metav1.GroupVersionKind(podKind), Resource: metav1.GroupVersionResource(podResource), Name: pod.Name, Namespace: namespace,
			Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object},
		},
	}
	response, err := w.client.Post("https://"+w.address+path, "application/json", bytes.NewReader(must(json.Marshal(in))))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := must(io.ReadAll(response.Body))
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", response.Status, body)
	}
	out := decode[admissionv1.AdmissionReview](t, string(body))
	verified, err := webhookrequest.VerifyAdmissionResponse("7", true, out)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	if !verified.Allowed {
		return nil, errors.New(verified.Result.Message)
	}
	if len(verified.Patch) == 0 {
		return pod, nil
	}
	patched, err := must(jsonpatch.DecodePatch(verified.Patch)).Apply(object)
	if err != nil {
		t.Fatalf("%v\n%s", err, verified.Patch)
	}
	result := decode[corev1.Pod](t, string(patched))
	result.TypeMeta = pod.TypeMeta
	return result, nil
}

// inManifest puts carpool into a pod by the command, with these options.
func inManifest(t testing.TB, pod *corev1.Pod, options ...string) (*corev1.Pod, error) {
	t.Helper()
	typed := pod.DeepCopy()
	typed.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	command := exec.CommandContext(t.Context(), must(carpool()), append([]string{"inject", "-f", "-"}, options...)...)
	command.Stdin = bytes.NewReader(must(yaml.Marshal(typed)))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, stderr.String())
	}
	result := decode[corev1.Pod](t, string(out))
	result.TypeMeta = pod.TypeMeta
	return result, nil
}

// faults returns what is wrong with a pod, in order, as one of the injectors says it;
// nil if nothing is.
func faults(err error) (all []string) {
	if err == nil {
		return nil
	}
	text := err.Error()
	if _, why, ok := strings.Cut(text, "no such key: "); ok { // the policy's
		text = why
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if _, fault, ok := strings.Cut(line, "carpool inject: stdin: document 1"); ok { // the command's
			if line = afterLine.ReplaceAllString(fault, ""); strings.HasPrefix(line, " (") {
				continue // a note
			}
		} else if strings.HasPrefix(line, "exit status") {
			continue
		}
		all = append(all, strings.Split(line, "; ")...)
	}
	slices.Sort(all)
	return all
}

var afterLine = regexp.MustCompile(`^(, line [0-9]+)?: `)
