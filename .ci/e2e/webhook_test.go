package e2e

import (
	"os"
	"strings"
	"testing"
	"time"
)

const (
	chart    = "../../charts/carpool"
	injector = "deployment/carpool-injector"
)

// webhookStory is what its steps share: nothing. They build on one another.
type webhookStory struct{ space }

// TestTheWebhookOnARealCluster forces the webhook where the policy may be had, too.
// Where the cluster has the policy, it changes to that in the end.
func TestTheWebhookOnARealCluster(t *testing.T) {
	if os.Getenv("CARPOOL_E2E") == "" {
		t.Skip("needs a cluster: .ci/e2e/run says what it wants")
	}
	s := webhookStory{space(namespace + "-webhook")}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"it is installed, and ready when helm says so", s.install},
		{"labelled namespaces get carpool", s.label},
		{"helm test proves it", s.test},
		{"what cannot be is refused with the reason", s.refused},
		{"a roll of the injector during rolls of the app misses no pod", s.rolls},
		{"what somebody empties comes back", s.emptied},
		{"Ignore: without an injector pods start without carpool", s.ignore},
		{"Fail: without an injector they are refused, and injectors start all the same", s.fail},
		{"an upgrade to the policy misses no pod", s.upgrade},
		{"after an uninstall nothing is locked", s.uninstall},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps after this one build on it")
		}
	}
}

// set installs or upgrades the chart with these values.
func (s webhookStory) set(t *testing.T, values ...string) string {
	t.Helper()
	args := []string{"upgrade", "--install", "carpool", chart, "--create-namespace", "--wait", "--timeout", patience.String()}
	for _, v := range append(values, "image.repository="+repository, "image.tag="+tag, "image.pullPolicy=Never") {
		args = append(args, "--set", v)
	}
	return helm(t, args...)
}

func (s webhookStory) install(t *testing.T) {
	_, _ = command("helm", "--namespace", releaseNamespace, "uninstall", "carpool") // of an earlier run
	s.kubectl(t, "delete", "namespace", string(s.space), releaseNamespace, "--ignore-not-found", "--timeout", patience.String())
	s.kubectl(t, "create", "namespace", string(s.space))
	if said := s.set(t, "injection=webhook"); !strings.Contains(said, "Sidecars come by a webhook: injection: webhook.") {
		t.Errorf("it does not say so:\n%s", said)
	}
}

func (s webhookStory) label(t *testing.T) {
	begin := time.Now()
	s.kubectl(t, "label", "namespace", string(s.space), "carpoolproxy.github.io/inject=enabled")
	s.kubectl(t, "apply", "--filename", "manifests/webhook.yaml")
	s.complete(t, "rolled")
	t.Logf("from label to pods that are ready: %v", time.Since(begin).Round(time.Millisecond))
	s.all(t)
}

// all checks that each pod of the app has carpool.
func (s webhookStory) all(t *testing.T) {
	t.Helper()
	for _, p := range s.pods(t, "app=rolled") {
		if !p.injected() {
			t.Errorf("%s was missed", p.Metadata.Name)
		}
	}
}

func (s webhookStory) test(t *testing.T) {
	helm(t, "test", "carpool", "--timeout", patience.String())
}

// tried returns the init containers that a pod would be given now.
func (s webhookStory) tried(annotations ...string) (string, error) {
	args := []string{"--namespace", string(s.space), "run", "tried", "--image=any", "--dry-run=server", "--output", "jsonpath={.spec.initContainers[*].name}"}
	for _, a := range annotations {
		args = append(args, "--annotations="+a)
	}
	return command("kubectl", args...)
}

func (s webhookStory) refused(t *testing.T) {
	_, err := s.tried("carpoolproxy.github.io/java=maybe", "carpoolproxy.github.io/port=80")
	for _, want := range []string{`/java: want true or false, not "maybe"`, `/port: want a port from 1024 to 65535, not "80"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func (s webhookStory) rolls(t *testing.T) {
	system := space(releaseNamespace)
	for range 2 {
		system.kubectl(t, "rollout", "restart", injector)
		for range 2 {
			s.kubectl(t, "rollout", "restart", "deployment/rolled")
			s.complete(t, "rolled")
			s.all(t)
		}
		system.kubectl(t, "rollout", "status", injector, "--timeout", patience.String())
	}
}

func (s webhookStory) emptied(t *testing.T) {
	bundle := func() string {
		return s.kubectl(t, "get", "mutatingwebhookconfiguration", "carpool", "--output", "jsonpath={.webhooks[*].clientConfig.caBundle}")
	}
	before := bundle()
	space(releaseNamespace).kubectl(t, "patch", "secret", "carpool-injector", "--type", "json", "--patch", `[{"op": "remove", "path": "/data"}]`)
	s.kubectl(t, "patch", "mutatingwebhookconfiguration", "carpool", "--type", "json", "--patch", `[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]`)
	eventually(t, "the bundle is back", func() bool { return bundle() == before })
	s.set(t, "injection=webhook")
	if bundle() != before {
		t.Error("helm upgrade has changed the bundle")
	}
}

// without scales the injector to nothing.
func (s webhookStory) without(t *testing.T) {
	t.Helper()
	system := space(releaseNamespace)
	system.kubectl(t, "scale", injector, "--replicas", "0")
	system.kubectl(t, "wait", "--for=delete", "pod", "--selector", "app.kubernetes.io/name=carpool-injector", "--timeout", patience.String())
}

func (s webhookStory) ignore(t *testing.T) {
	s.without(t)
	if inits, err := s.tried(); err != nil || inits != "" {
		t.Errorf("%q, %v", inits, err)
	}
}

func (s webhookStory) fail(t *testing.T) {
	s.set(t, "injection=webhook", "webhook.failurePolicy=Fail")
	s.without(t)
	if _, err := s.tried(); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("error %v", err)
	}
	system := space(releaseNamespace)
	system.kubectl(t, "label", "namespace", releaseNamespace, "carpoolproxy.github.io/inject=enabled")
	defer system.kubectl(t, "label", "namespace", releaseNamespace, "carpoolproxy.github.io/inject-")
	system.kubectl(t, "scale", injector, "--replicas", "2")
	system.kubectl(t, "rollout", "status", injector, "--timeout", patience.String())
	if inits, err := s.tried(); err != nil || inits != "carpool" {
		t.Errorf("%q, %v", inits, err)
	}
}

func (s webhookStory) upgrade(t *testing.T) {
	if _, err := command("kubectl", "get", "mutatingadmissionpolicies.v1.admissionregistration.k8s.io"); err != nil {
		t.Skip("the cluster has no MutatingAdmissionPolicy")
	}
	stop, done := make(chan struct{}), make(chan [2]int)
	go func() {
		var born, missed int
		for {
			select {
			case <-stop:
				done <- [2]int{born, missed}
				return
			default:
			}
			inits, err := s.tried()
			if born++; err != nil || inits != "carpool" {
				missed++
				t.Logf("pod %d: %q, %v", born, inits, err)
			}
		}
	}()
	s.set(t, "webhook.keep=true")
	s.set(t)
	time.Sleep(2 * time.Second) // what was taken away is not seen at once
	close(stop)
	pods := <-done
	t.Logf("%d pods were born meanwhile, %d without carpool", pods[0], pods[1])
	if pods[1] > 0 || pods[0] == 0 {
		t.Errorf("%d of %d pods were missed", pods[1], pods[0])
	}
	if left := s.kubectl(t, "get", "mutatingwebhookconfiguration", "--output", "name"); strings.Contains(left, "/carpool\n") {
		t.Error("the webhook is still there")
	}
	s.test(t)
}

func (s webhookStory) uninstall(t *testing.T) {
	s.set(t, "injection=webhook", "webhook.failurePolicy=Fail")
	helm(t, "uninstall", "carpool")
	if inits, err := s.tried(); err != nil || inits != "" {
		t.Errorf("%q, %v", inits, err)
	}
}
