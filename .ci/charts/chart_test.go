package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

// valuesMatrix is what the chart is rendered with in tests that look at all of it.
var valuesMatrix = map[string]string{
	"defaults":   "{}",
	"everything": "podMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}}\nprometheusRule: {enabled: true, labels: {a: b}}\ndashboard: {enabled: true, annotations: {grafana_folder: x}}\nnetworkPolicy: {enabled: true, namespaces: [shop, desk]}",
	"choices":    "https: true\njava: true\npreload: true\ncache: true\nsecret: partner-tls\nskipContainers: [db]\nnoProxy: [a, .b]",
	"image":      "image: {repository: r.example.com/c, digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', pullPolicy: Always}\nimagePullSecrets: [{name: regcred}]",
	"resources":  "resources: {requests: null, limits: null}",
	"settings":   "settings: {IDLE_TIMEOUT: 20s, VIA: true, MAX_CONNS_PER_HOST: 100, CONNECT_PORTS: '443,8443'}",
	"godebug":    "godebug: tlsrsakex=1",
	"ports":      "port: 13128\nadminPort: 19128",
	"user":       "runAsUser: 1000680000",
	"unlimited":  "cpuLimitWhereRequired: ''",
	"missing":    "namespaceSettings: {whenMissing: Deny}",
	"no params":  "namespaceSettings: {enabled: false}",
}

// withFiles adds what the chart's monitoring templates read, if it is not there.
func withFiles(c *chart.Chart) *chart.Chart {
	for name, data := range map[string]string{
		"files/rules.yaml":              "groups:\n  - name: carpool\n    rules:\n      - alert: A\n        expr: up == 0\n        annotations: {summary: 'on {{ $labels.pod }}'}\n",
		"files/dashboards/another.json": "{\n  \"title\": \"{{ pod }}\"\n}\n",
	} {
		if !slices.ContainsFunc(c.Files, func(f *chart.File) bool { return f.Name == name }) {
			c.Files = append(c.Files, &chart.File{Name: name, Data: []byte(data)})
		}
	}
	return c
}

func TestRenderedChart(t *testing.T) {
	for name, text := range valuesMatrix {
		t.Run(name, func(t *testing.T) {
			manifests := mustRender(t, withFiles(load(t, appChart)), values(t, text))
			count := map[string]int{}
			for _, document := range documents(t, installed(manifests)) {
				var head struct {
					Kind     string
					Metadata struct{ Labels map[string]string }
				}
				if err := yaml.Unmarshal(document, &head); err != nil {
					t.Fatal(err)
				}
				count[head.Kind]++
				if head.Metadata.Labels["app.kubernetes.io/name"] != "carpool" {
					t.Errorf("%s has no label that says whose it is", head.Kind)
				}
			}
			want := map[string]int{"MutatingAdmissionPolicy": 2, "MutatingAdmissionPolicyBinding": 6}
			if name == "no params" {
				want["MutatingAdmissionPolicyBinding"] = 4
			}
			if name == "everything" {
				maps.Copy(want, map[string]int{"PodMonitor": 1, "PrometheusRule": 1, "ConfigMap": 1, "NetworkPolicy": 2})
			}
			if !maps.Equal(count, want) {
				t.Errorf("rendered %v, want %v", count, want)
			}
			for _, name := range []string{"carpool", "carpool-limits"} {
				policyNamed(t, manifests, name) // compiles
			}
		})
	}
}

func TestGoldenChart(t *testing.T) {
	c := load(t, appChart)
	c.Metadata.Version, c.Metadata.AppVersion = "9.9.9", "9.9.9" // releases do not change the files
	c.Files = nil
	write := func(dir string, manifests map[string]string) {
		for name, text := range manifests {
			golden(t, "testdata/"+dir+"/"+strings.TrimSuffix(name, ".txt")+".golden", []byte(strings.TrimSpace(text)+"\n"))
		}
	}
	write("chart", mustRender(t, withFiles(c), values(t, valuesMatrix["everything"])))
	write("webhook", mustRender(t, c, values(t, webhookMatrix["webhook"])))
}

// What Helm prints is pasted: commands name their namespace, and what they need
// comes before them.
func TestNotesSayWhatIsSoAfterInstallAndUpgrade(t *testing.T) {
	for name, c := range map[string]struct {
		options chartutil.ReleaseOptions
		has     []string // in this order
		hasNot  string
	}{
		"install": {chartutil.ReleaseOptions{Revision: 1, IsInstall: true}, []string{
			"No pod has it yet", "Pods will pull registry.example.com/c:1", "sleep 5", "label namespace NAMESPACE", "rollout restart", "rollout status",
			"port-forward POD 19128", "http://127.0.0.1:19128/metrics", "helm uninstall carpool --namespace carpool-system", "delete namespace carpool-system",
		}, "keep the sidecar"},
		"upgrade": {chartutil.ReleaseOptions{Revision: 2, IsUpgrade: true}, []string{
			"New pods get carpool 0.1.0, image registry.example.com/c:1", "keep the sidecar they have", "rollout restart", "rollout status", "port-forward", "helm uninstall",
		}, "No pod has it yet"},
	} {
		t.Run(name, func(t *testing.T) {
			manifests, err := renderAs(c.options, load(t, appChart), values(t, "image: {repository: registry.example.com/c, tag: '1'}\nadminPort: 19128"), policyKind)
			if err != nil {
				t.Fatal(err)
			}
			notes := manifests["NOTES.txt"]
			rest := notes
			for _, want := range c.has {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("no %q, or not in its place, in\n%s", want, notes)
				}
				rest = after
			}
			if strings.Contains(notes, c.hasNot) {
				t.Errorf("%q in\n%s", c.hasNot, notes)
			}
			for line := range strings.Lines(notes) {
				if strings.HasPrefix(line, "  kubectl ") && !strings.Contains(line, "NAMESPACE") && !strings.Contains(line, "carpool-system") {
					t.Errorf("in which namespace? %s", line)
				}
			}
		})
	}
}

func TestLint(t *testing.T) {
	for _, dir := range []string{appChart, chartsDir + "/carpool-lib", "testdata/team"} {
		for name, text := range valuesMatrix {
			v := values(t, text)
			if dir != appChart {
				v = map[string]any{}
			}
			linter := lint.AllWithKubeVersion(dir, v, "demo", &chartutil.KubeVersion{Version: "v1.36.0", Major: "1", Minor: "36"})
			for _, m := range linter.Messages {
				if m.Severity > support.InfoSev {
					t.Errorf("%s, values %s: %v", dir, name, m)
				}
			}
		}
	}
}

func TestBadValuesAreRejected(t *testing.T) {
	bad := map[string][]string{ // by what the message must name
		"tagg":                       {"image: {tagg: x}"},
		"pullPolicy":                 {"image: {pullPolicy: always}"},
		"digest":                     {"image: {digest: abc}"},
		"injection":                  {"injection: true", "injection: none"},
		"webhook.port":               {"injection: webhook\nwebhook: {hostNetwork: true}"},
		"failurePolicy":              {"webhook: {failurePolicy: Never}"},
		"source":                     {"webhook: {certificate: {source: mine}}"},
		"caBundle":                   {"injection: webhook\nwebhook: {certificate: {source: provided, secret: s}}"},
		"webhook.certificate.secret": {"injection: webhook\nwebhook: {certificate: {source: provided, caBundle: c}}"},
		"https":                      {"https: 'yes'"},
		"noProxy":                    {"noProxy: 'a,b'", "noProxy: ['a,b']"},
		"skipContainers":             {"skipContainers: [Db]"},
		"cpu":                        {"resources: {requests: {cpu: fast}}"},
		"whenMissing":                {"namespaceSettings: {whenMissing: Ignore}"},
		"IDLE_TIMEOUT":               {"settings: {IDLE_TIMEOUT: 30}", "settings: {IDLE_TIMEOUT: 1d}", "settings: {IDLE_TIMEOUT: '5'}"},
		"VIA":                        {"settings: {VIA: maybe}"},
		"LOG_LEVEL":                  {"settings: {LOG_LEVEL: verbose}"},
		"MAX_CONNS_PER":              {"settings: {MAX_CONNS_PER_HOST: -1}", "settings: {MAX_CONNS_PER_HOST: 1.5}", "settings: {MAX_CONNS_PER_HOST: '-1'}"},
		"MAX_CONN_AGE_J":             {"settings: {MAX_CONN_AGE_JITTER: 2}"},
		"IDLE_TIME":                  {"settings: {IDLE_TIME: 30s}"},
		"MAX_HEADER_BYTES":           {"settings: {MAX_HEADER_BYTES: 5MiB}", "settings: {MAX_HEADER_BYTES: 100}", "settings: {MAX_HEADER_BYTES: 2000000}"},
		"DIAL_TIMEOUT":               {"settings: {DIAL_TIMEOUT: 0}", "settings: {DIAL_TIMEOUT: 0s}"},
		"CONNECT_PORTS":              {"settings: {CONNECT_PORTS: '443,70000'}", "settings: {CONNECT_PORTS: 0}"},
		"port":                       {"port: 80", "port: '3128'", "port: 70000"},
		"adminPort":                  {"adminPort: 0"},
		"godebug":                    {"godebug: 'tlsrsakex: 1'", "godebug: tlsrsakex", "godebug: 'a=1, b=2'"},
		"secret":                     {"secret: Partner", "secret: a/b", "secret: 1", "secret: " + strings.Repeat("a", 254)},
		"cache":                      {"cache: 'yes'"},
		"runAsUser":                  {"runAsUser: 0", "runAsUser: '65532'"},
		"cpuLimitWhere":              {"cpuLimitWhereRequired: much", "cpuLimitWhereRequired: 0"},
		"LISTEN":                     {"settings: {LISTEN: ':3128'}", "settings: {ADMIN_LISTEN: ':9128'}"},
		"CARPOOL_VIA":                {"settings: {CARPOOL_VIA: true}"},
		"imagePullSecrets":           {"imagePullSecrets: [regcred]"},
		"interval":                   {"podMonitor: {interval: 30}"},
		"any":                        {"podMonitor: {namespaceSelector: {any: 'yes'}}"},
		"namespaces":                 {"networkPolicy: {enabled: true}"},
		"enabled":                    {"dashboard: {enabled: 1}"},
	}
	for want, texts := range bad {
		for _, text := range texts {
			_, err := render(load(t, appChart), values(t, text))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s\nwant an error that names %s, got %v", text, want, err)
			}
		}
	}
}

func TestGoodValuesAreTaken(t *testing.T) {
	for _, text := range []string{
		"settings: {IDLE_TIMEOUT: 1m30s, DIAL_TIMEOUT: 500ms, MAX_CONN_AGE: '0', RESPONSE_HEADER_TIMEOUT: 0}",
		"settings: {VIA: 'true', RETRY_IDEMPOTENCY_KEY: false, MAX_CONNS_PER_HOST: '100', MAX_HEADER_BYTES: 128KiB}",
		"settings: {MAX_HEADER_BYTES: 65536, CONNECT_PORTS: 443, CA_FILE: /etc/ca.pem, MAX_CONN_AGE_JITTER: 0}",
		"settings: {LOG_LEVEL: debug, LOG_FORMAT: console, ACCESS_LOG: 'off'}",
		"resources: {requests: {cpu: 0.5, memory: 100000000}}",
		"settings: {MAX_HEADER_BYTES: 1MiB, DIAL_TIMEOUT: '', VIA: ''}",
		"{port: 1024, adminPort: 65535, cpuLimitWhereRequired: 0.5}",
		"cpuLimitWhereRequired: null",
		"godebug: null",
		"secret: next.proxy-1",
		"secret: ''",
		"godebug: ''",
		"global: {anything: 1}",
	} {
		if _, err := render(load(t, appChart), values(t, text)); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// make charts-docs writes the README from the values; this finds out without
// helm-docs that it was forgotten.
func TestTheREADMENamesEveryValue(t *testing.T) {
	readme := readFile(t, appChart+"/README.md")
	var check func(prefix string, v map[string]any)
	check = func(prefix string, v map[string]any) {
		for key, value := range v {
			if inner, ok := value.(map[string]any); ok && len(inner) > 0 && key != "labels" && key != "namespaceSelector" {
				check(prefix+key+".", inner)
			} else if !strings.Contains(readme, "| "+prefix+key) {
				t.Errorf("README.md does not name %s%s: make charts-docs", prefix, key)
			}
		}
	}
	check("", values(t, readFile(t, appChart+"/values.yaml")))
}
