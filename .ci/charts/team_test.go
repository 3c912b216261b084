package charts_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const teamChart = "testdata/team"

// teamMatrix is what the team's chart is rendered with.
var teamMatrix = map[string]string{
	"native":  "{}",
	"cache":   "carpool: {cache: true, settings: {WARM: 'orders:8080=4,https://api.example.com=2'}}",
	"tls":     "carpool: {secret: partner-tls, settings: {CLIENT_CERT_FILE: /etc/carpool/secret/tls.crt, CLIENT_KEY_FILE: /etc/carpool/secret/tls.key, CLIENT_CERT_HOSTS: api.partner.example}}",
	"preload": "carpool: {preload: true, java: true, https: true, noProxy: [intranet, .corp], settings: {IDLE_TIMEOUT: 20s, DRAIN_TIMEOUT: 20s}}",
	"ports":   "carpool: {port: 13128, adminPort: 19128, runAsUser: 1000680000, java: true, godebug: tlsrsakex=1}",
	"plain":   "native: false\ncarpool: {settings: {VIA: true}}",
}

func teamDeployment(t *testing.T, text string) appsv1.Deployment {
	t.Helper()
	return decodeKind[appsv1.Deployment](t, mustRender(t, load(t, teamChart), values(t, text)), "Deployment")[0]
}

func TestGoldenTeamChart(t *testing.T) {
	for name, text := range teamMatrix {
		t.Run(name, func(t *testing.T) {
			c := load(t, teamChart)
			for _, dependency := range c.Dependencies() {
				dependency.Metadata.AppVersion = "9.9.9" // releases do not change the files
			}
			manifests := mustRender(t, c, values(t, text))
			golden(t, "testdata/team."+name+".golden", []byte(manifests["deployment.yaml"]))
			pod := &corev1.Pod{Spec: teamDeployment(t, text).Spec.Template.Spec}
			pod.Name, pod.Namespace = "p", "demo"
			validatePod(t, pod)
		})
	}
}

func TestTheLibrarysVolumesGoTogether(t *testing.T) {
	for text, want := range map[string]string{
		"cache: true, preload: true":            "carpool carpool-cache",
		"cache: true, preload: true, secret: s": "carpool carpool-cache carpool-secret",
		"cache: true, secret: s":                "carpool-cache carpool-secret",
		"preload: true, secret: s":              "carpool carpool-secret",
	} {
		var names []string
		for _, v := range teamDeployment(t, "carpool: {"+text+"}").Spec.Template.Spec.Volumes {
			names = append(names, v.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: the pod has %s", text, got)
		}
	}
}

// The library's sidecar is the policy's: one definition, two ways into a pod.
func TestTheLibraryMakesWhatThePolicyMakes(t *testing.T) {
	const text = "{godebug: tlsrsakex=1, port: 13128, adminPort: 19128, runAsUser: 1000680000, preload: true, cache: true, secret: partner-tls, java: true, https: true, noProxy: [intranet, .corp], settings: {IDLE_TIMEOUT: 20s, VIA: true}, image: {tag: test}}"
	byLibrary := teamDeployment(t, "carpool: "+text).Spec.Template.Spec
	pod := &corev1.Pod{Spec: *byLibrary.DeepCopy()}
	pod.Name, pod.Namespace = "p", "demo"
	pod.Spec.InitContainers, pod.Spec.Volumes = nil, nil
	pod.Spec.Containers[0].Env = pod.Spec.Containers[0].Env[:1]
	pod.Spec.Containers[0].VolumeMounts = nil
	out, err := newPolicy(t, mustRender(t, load(t, appChart), values(t, text))).run(t, pod, namespaceWith("enabled", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	want, got := mustYAML(t, out.pod.Spec), mustYAML(t, byLibrary)
	if want != got {
		t.Errorf("the library's pod is not the policy's:\n%s", difference([]byte(want), []byte(got)))
	}
}

func TestAnOrdinaryContainerCannotPreload(t *testing.T) {
	_, err := render(load(t, teamChart), values(t, "native: false\ncarpool: {preload: true}"))
	if err == nil || !strings.Contains(err.Error(), "preload needs a native sidecar") {
		t.Errorf("error %v", err)
	}
}

func TestTheLibraryRefusesWhatIsNoGODEBUG(t *testing.T) {
	for _, text := range []string{"'tlsrsakex: 1'", "tlsrsakex", "1"} {
		_, err := render(load(t, teamChart), values(t, "carpool: {godebug: "+text+"}"))
		if err == nil || !strings.Contains(err.Error(), "godebug: want name=value") {
			t.Errorf("%s: error %v", text, err)
		}
	}
	mustRender(t, load(t, teamChart), values(t, "carpool: {godebug: null}"))
}

func TestTheLibraryRefusesWhatIsNoNameOfASecret(t *testing.T) {
	for _, text := range []string{"Partner", "a/b", "'-a'", strings.Repeat("a", 254)} {
		_, err := render(load(t, teamChart), values(t, "carpool: {secret: "+text+"}"))
		if err == nil || !strings.Contains(err.Error(), "secret: want the name of a Secret") {
			t.Errorf("%s: error %v", text, err)
		}
	}
	mustRender(t, load(t, teamChart), values(t, "carpool: {secret: null}"))
}

func mustYAML(t testing.TB, v any) string {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBothChartsHaveTheSameDefaults(t *testing.T) {
	app, library := load(t, appChart), load(t, chartsDir+"/carpool-lib")
	for key, value := range library.Values {
		a, b := mustYAML(t, app.Values[key]), mustYAML(t, value)
		if a != b {
			t.Errorf("%s: carpool has\n%s\ncarpool-lib has\n%s", key, a, b)
		}
	}
	if app.Metadata.Version != library.Metadata.Version || app.Metadata.AppVersion != library.Metadata.AppVersion {
		t.Error("the charts' versions differ")
	}
	if d := app.Metadata.Dependencies[0]; d.Version != library.Metadata.Version {
		t.Errorf("carpool wants carpool-lib %s, which is %s", d.Version, library.Metadata.Version)
	}
}

func TestAChartThatDoesNotListTheLibraryIsTold(t *testing.T) {
	c := load(t, teamChart)
	for _, dependency := range c.Dependencies() {
		dependency.Metadata.Name = "other"
	}
	c.Metadata.Dependencies = nil
	if _, err := render(c, map[string]any{"native": true}); err == nil || !strings.Contains(err.Error(), "dependencies in Chart.yaml") {
		t.Errorf("error %v", err)
	}
}
