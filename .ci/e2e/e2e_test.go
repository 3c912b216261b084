package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The image that .ci/e2e/run brings to the node.
const repository, tag = "ghcr.io/carpoolproxy/carpool", "dev"

// story is what the steps share.
type story struct {
	starts   *starts
	directly rollouts // of the upstream, without carpool
}

func TestAnOldServiceOnARealClusterGetsAPoolAndLosesItAgain(t *testing.T) {
	if os.Getenv("CARPOOL_E2E") == "" {
		t.Skip("needs a cluster: .ci/e2e/run says what it wants")
	}
	var s story
	s.starts = watchStarts(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the namespace enforces restricted pod security", s.prepare},
		{"directly, each call is a connection", s.direct},
		{"a rollout of the upstream without carpool", s.upstreamRolloutDirectly},
		{"what the README says, in one paste, injects carpool", s.install},
		{"what a namespace asks of all containers is not in the way", s.asked},
		{"what cannot be is refused with the reason", s.refused},
		{"who opts out is left alone", s.optOut},
		{"carpool starts before the app", s.startOrder},
		{"through carpool, calls share connections", s.pooling},
		{"an idle sidecar is small", s.idle},
		{"a Job completes", s.job},
		{"a CronJob's Job completes", s.cronJob},
		{"a client that knows no proxy shares connections by the preload", s.preload},
		{"a restart of the service loses no request", s.restartService},
		{"a rollout of the upstream is told", s.upstreamRollout},
		{"helm upgrade changes the settings of new pods", s.upgrade},
		{"helm uninstall and a restart leave the service as it was", s.uninstall},
		{"carpool inject and uninject do the same to a manifest", s.command},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps after this one build on it")
		}
	}
}

// prepare makes the namespaces anew.
func (s *story) prepare(t *testing.T) {
	_, _ = command("helm", "--namespace", releaseNamespace, "uninstall", "carpool") // of an earlier run
	kubectl(t, "delete", "namespace", namespace, releaseNamespace, "--ignore-not-found", "--timeout", patience.String())
	kubectl(t, "create", "namespace", namespace)
	kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
	eventually(t, "the namespace has its service account", func() bool {
		_, err := command("kubectl", "--namespace", namespace, "get", "serviceaccount", "default")
		return err == nil
	})
	if out, err := command("kubectl", "--namespace", namespace, "run", "root", "--image", "any", "--dry-run=server"); err == nil {
		t.Fatalf("a pod that may run as root is admitted: %s", out)
	}
}

func (s *story) direct(t *testing.T) {
	for _, name := range []string{"upstream", "service", "load"} {
		apply(t, name)
	}
	seen := duringRequests(t, 300)
	t.Logf("upstream: %v", seen)
	if seen.Connections < seen.Requests*95/100 {
		t.Errorf("%v: the service is not as old as it should be", seen)
	}
}

func (s *story) upstreamRolloutDirectly(t *testing.T) {
	s.directly = rollOutUpstream(t)
	t.Logf("clients, directly: %v", s.directly)
}

// rollouts is what the clients of the service saw while the pods of the
// upstream were replaced.
type rollouts struct {
	graceful calls // pods that serve on for a while
	abrupt   calls // pods that die at once
}

func (r rollouts) String() string {
	return fmt.Sprintf("%v; with pods that die at once: %v", r.graceful, r.abrupt)
}

func rollOutUpstream(t *testing.T) rollouts {
	t.Helper()
	during := func(do func()) calls {
		before := callsOfClients(t)
		do()
		return callsOfClients(t).since(before)
	}
	var r rollouts
	r.graceful = during(func() { restart(t, "upstream") })
	kubectl(t, "set", "env", "deployment/upstream", "DRAIN=0")
	complete(t, "upstream")
	r.abrupt = during(func() {
		kubectl(t, "set", "env", "deployment/upstream", "DRAIN-")
		complete(t, "upstream")
	})
	return r
}

// injectedNow returns the init containers that a pod would be given now.
func injectedNow(t *testing.T) string {
	t.Helper()
	return kubectl(t, "create", "--filename", "manifests/idle.yaml", "--dry-run=server", "--output",
		"jsonpath={.spec.initContainers[*].name}")
}

// install runs the README's commands as somebody does who copies all of them.
func (s *story) install(t *testing.T) {
	said := paste(t, strings.NewReplacer(" shop", " "+namespace, "carpool-system", releaseNamespace,
		" --create-namespace", " --create-namespace --set image.repository="+repository+",image.tag="+tag+",image.pullPolicy=Never",
	).Replace(fiveMinutes(t)))
	t.Logf("%s", said)
	for _, name := range []string{"service", "load", "upstream"} {
		complete(t, name)
	}
	_, table, _ := strings.Cut(said, "CARPOOL\n")
	for _, p := range pods(t, "app=service") {
		if !strings.Contains(table, p.Metadata.Name) {
			t.Errorf("%s is not in the table", p.Metadata.Name)
		}
	}
	for _, p := range pods(t, "app=service") {
		if !p.injected() {
			t.Fatalf("%s: carpool is not its first init container: %+v", p.Metadata.Name, p.Spec.InitContainers)
		}
		if got := p.Metadata.Annotations["carpoolproxy.github.io/status"]; got != "injected" {
			t.Errorf("%s: status annotation %q", p.Metadata.Name, got)
		}
		env := p.Spec.Containers[0].env()
		for _, name := range []string{"HTTP_PROXY", "http_proxy"} {
			if env[name] != "http://127.0.0.1:3128" {
				t.Errorf("%s: %s=%q", p.Metadata.Name, name, env[name])
			}
		}
		if env["NO_PROXY"] == "" || env["NO_PROXY"] != env["no_proxy"] || env["HTTPS_PROXY"] != "" {
			t.Errorf("%s: environment %v", p.Metadata.Name, env)
		}
	}
}

// fiveMinutes returns the commands that the README has for a cluster.
func fiveMinutes(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(readme), "\n### In a cluster, in five minutes\n")
	_, part, _ = strings.Cut(part, "\n```\n")
	commands, _, ok := strings.Cut(part, "\n```\n")
	if !ok || !strings.HasPrefix(commands, "helm install carpool ./charts/carpool ") {
		t.Fatalf("the README has other commands than expected: %s", commands)
	}
	return commands
}

// paste runs commands in the root of the checkout, until one fails.
func paste(t *testing.T, commands string) string {
	t.Helper()
	out, err := command("bash", "-ec", "cd ../..\n"+commands)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *story) optOut(t *testing.T) {
	for _, name := range []string{"load", "upstream"} {
		restart(t, name)
		for _, p := range pods(t, "app="+name) {
			if len(p.Spec.InitContainers) > 0 || p.Spec.Containers[0].env()["HTTP_PROXY"] != "" {
				t.Errorf("%s was injected", p.Metadata.Name)
			}
		}
	}
}

func (s *story) startOrder(t *testing.T) {
	for _, p := range pods(t, "app=service") {
		carpool, app := s.starts.of(t, p, "carpool"), s.starts.of(t, p, "app")
		ready := serving(t, p)
		t.Logf("%s: carpool serves %v after its start, the app starts after %v", p.Metadata.Name,
			ready.Sub(carpool).Round(time.Millisecond), app.Sub(carpool).Round(time.Millisecond))
		if app.Before(ready) {
			t.Errorf("%s: the app started %v before carpool served", p.Metadata.Name, ready.Sub(app))
		}
		// The app calls the upstream at once and only once; see service.js.
		if n := p.status("app").RestartCount + p.status("carpool").RestartCount; n != 0 {
			t.Errorf("%s: %d restarts", p.Metadata.Name, n)
		}
	}
}

func (s *story) pooling(t *testing.T) {
	seen := duringRequests(t, 1000)
	t.Logf("upstream: %v", seen)
	if seen.Connections > seen.Requests/20 {
		t.Errorf("%v: not pooled", seen)
	}
}

func (s *story) idle(t *testing.T) {
	const limit = 12 << 20
	apply(t, "idle")
	kubectl(t, "wait", "--for=condition=Ready", "pod/idle", "--timeout", patience.String())
	if bytes := s.memory(t, "idle"); bytes > limit {
		t.Errorf("an idle carpool takes more than %d MiB", limit>>20)
	}
	for _, p := range pods(t, "app=service") {
		s.memory(t, p.Metadata.Name)
	}
	kubectl(t, "delete", "pod", "idle")
}

// memory returns the working set of a pod's carpool.
func (s *story) memory(t *testing.T, podName string) int {
	t.Helper()
	const mib = 1 << 20
	bytes := workingSet(t, podName, "carpool")
	t.Logf("%s: working set %.1f MiB, resident with the binary %.1f MiB", podName,
		float64(bytes)/mib, float64(resident(t, podName))/mib)
	return bytes
}

func (s *story) job(t *testing.T) {
	apply(t, "job")
	kubectl(t, "wait", "--for=condition=Complete", "job/batch", "--timeout", patience.String())
	p := pods(t, "batch.kubernetes.io/job-name=batch")[0]
	s.ended(t, p, 200)
	if got := p.Spec.InitContainers[0].env()["CARPOOL_LOG_LEVEL"]; got != "debug" {
		t.Errorf("the pod's annotation gives CARPOOL_LOG_LEVEL=%q", got)
	}
}

func (s *story) cronJob(t *testing.T) {
	apply(t, "cronjob")
	eventually(t, "a Job of the CronJob is complete", func() bool {
		return kubectl(t, "get", "cronjob", "cron", "--output", "jsonpath={.status.lastSuccessfulTime}") != ""
	})
	for _, p := range pods(t, "batch.kubernetes.io/job-name") {
		if p.Status.Phase == "Succeeded" && strings.HasPrefix(p.Metadata.Name, "cron-") {
			s.ended(t, p, 50)
		}
	}
	kubectl(t, "delete", "cronjob", "cron")
}

// preload runs calls of Node.js' own http module. The service goes on calling
// meanwhile, on a few connections.
func (s *story) preload(t *testing.T) {
	before := seenByUpstream(t)
	apply(t, "core")
	kubectl(t, "wait", "--for=condition=Complete", "job/core", "--timeout", patience.String())
	p := pods(t, "batch.kubernetes.io/job-name=core")[0]
	s.ended(t, p, 200)
	seen := seenByUpstream(t).since(before)
	t.Logf("upstream: %v", seen)
	if seen.Connections > 50 {
		t.Errorf("%v: the 200 calls were not pooled", seen)
	}
}

// ended checks that all containers of an injected pod ended well, carpool last,
// and that none of the app's calls failed, of which there were min at least.
func (s *story) ended(t *testing.T, p pod, min int) {
	t.Helper()
	app, carpool := p.status("app").State.Terminated, p.status("carpool").State.Terminated
	if !p.injected() || app == nil || carpool == nil {
		t.Errorf("%s: app ended %v, carpool %v", p.Metadata.Name, app, carpool)
		return
	}
	said := lastWords(t, app)
	t.Logf("%s: %v; carpool ended with %d, %v after the app", p.Metadata.Name, said, carpool.ExitCode,
		carpool.FinishedAt.Sub(app.FinishedAt))
	if said.Failed > 0 || said.Calls < min || app.ExitCode != 0 {
		t.Errorf("%s: the app ended with %d and %v", p.Metadata.Name, app.ExitCode, said)
	}
	if carpool.ExitCode != 0 || carpool.FinishedAt.Before(app.FinishedAt) {
		t.Errorf("%s: carpool ended with %d (%s) at %v, the app at %v", p.Metadata.Name, carpool.ExitCode,
			carpool.Reason, carpool.FinishedAt, app.FinishedAt)
	}
}

func (s *story) restartService(t *testing.T) {
	ends := watchEnds(t, "app=service")
	old, before := pods(t, "app=service"), callsOfClients(t)
	restart(t, "service")
	seen := callsOfClients(t).since(before)
	t.Logf("clients: %v", seen)
	if seen.Failed > 0 || seen.Calls == 0 {
		t.Errorf("clients of the service: %v", seen)
	}
	for _, p := range old {
		s.ended(t, ends.of(t, p), 1)
	}
}

func (s *story) upstreamRollout(t *testing.T) {
	seen := rollOutUpstream(t)
	t.Logf("clients, through carpool: %v", seen)
	t.Logf("clients, directly:        %v", s.directly)
	if seen.graceful.Failed > s.directly.graceful.Failed {
		t.Errorf("more calls fail than directly")
	}
	spread(t)
}

// spread checks that all pods of the upstream get requests.
func spread(t *testing.T) {
	t.Helper()
	for _, p := range pods(t, "app=upstream") {
		var seen served
		eventually(t, p.Metadata.Name+" gets requests", func() bool {
			raw(t, &seen, proxyPath(p.Metadata.Name, 8081, "seen"))
			return seen.Requests > 0
		})
	}
}

func (s *story) upgrade(t *testing.T) {
	helm(t, "upgrade", "carpool", "../../charts/carpool", "--wait", "--reuse-values", "--set", "settings.IDLE_TIMEOUT=30s")
	before := pods(t, "app=service")
	eventually(t, "a new pod gets the setting", func() bool {
		restart(t, "service")
		for _, p := range pods(t, "app=service") {
			if p.Spec.InitContainers[0].env()["CARPOOL_IDLE_TIMEOUT"] != "30s" {
				return false
			}
		}
		return true
	})
	for _, p := range before {
		if v := p.Spec.InitContainers[0].env()["CARPOOL_IDLE_TIMEOUT"]; v != "" {
			t.Errorf("%s had CARPOOL_IDLE_TIMEOUT=%s before the upgrade", p.Metadata.Name, v)
		}
	}
}

func (s *story) uninstall(t *testing.T) {
	before := callsOfClients(t)
	helm(t, "uninstall", "carpool", "--wait")
	eventually(t, "new pods get no carpool", func() bool {
		return injectedNow(t) == ""
	})
	restart(t, "service")
	for _, p := range pods(t, "app=service") {
		if len(p.Spec.InitContainers) > 0 || p.Spec.Containers[0].env()["HTTP_PROXY"] != "" {
			t.Errorf("%s still has carpool", p.Metadata.Name)
		}
	}
	if seen := duringRequests(t, 100); seen.Connections < seen.Requests*95/100 {
		t.Errorf("%v: still pooled", seen)
	}
	seen := callsOfClients(t).since(before)
	t.Logf("clients: %v", seen)
	if seen.Failed > 0 {
		t.Errorf("clients of the service: %v", seen)
	}
}

// command does without the chart what install and uninstall did.
func (s *story) command(t *testing.T) {
	const manifest = "manifests/service.yaml"
	change := func(args ...string) {
		out, err := command("carpool", append(args, "-f", manifest)...)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "service.yaml")
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "apply", "--filename", file)
		complete(t, "service")
	}
	change("inject", "--image", repository+":"+tag, "--pull-policy", "Never")
	for _, p := range pods(t, "app=service") {
		if !p.injected() {
			t.Errorf("%s: carpool is not its first init container: %+v", p.Metadata.Name, p.Spec.InitContainers)
		}
	}
	if seen := duringRequests(t, 300); seen.Connections > seen.Requests/20 {
		t.Errorf("%v: not pooled", seen)
	}
	change("uninject")
	if seen := duringRequests(t, 100); seen.Connections < seen.Requests*95/100 {
		t.Errorf("%v: still pooled", seen)
	}
}
