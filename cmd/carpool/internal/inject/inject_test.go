package inject_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
)

// output is what one run of the command leaves.
type output struct {
	code           int
	stdout, stderr string
}

func run(stdin, name string, args ...string) output {
	var stdout, stderr bytes.Buffer
	code := inject.Run(name, args, strings.NewReader(stdin), &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

// aPod is a pod with more in its spec, or in place of it.
func aPod(more ...string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n" + strings.Join(more, "") +
		"spec:\n  containers:\n    - name: a\n      image: a:1\n"
}

func annotated(annotations ...string) string {
	return aPod("  annotations:\n    " + strings.Join(annotations, "\n    ") + "\n")
}

func TestOptionsReachTheSidecar(t *testing.T) {
	cases := map[string]struct {
		args   []string
		has    []string // lines of the result
		hasNot []string
	}{
		"defaults": {nil, []string{
			"image: " + inject.DefaultImage, "imagePullPolicy: IfNotPresent", "restartPolicy: Always",
			`cpu: "20m"`, `memory: "32Mi"`, `memory: "128Mi"`, "- name: HTTP_PROXY", "- name: http_proxy", "- name: NO_PROXY", "- name: no_proxy", `value: ""`,
		}, []string{"HTTPS_PROXY", "JAVA_TOOL_OPTIONS", "NODE_OPTIONS", "CARPOOL_", "volume"}},
		"image":            {[]string{"--image", "registry.example.com/carpool:7", "--pull-policy=Always"}, []string{"image: registry.example.com/carpool:7", "imagePullPolicy: Always"}, nil},
		"resources":        {[]string{"--cpu-request", "1", "--cpu-limit=1500m", "--memory-request", "0.5Gi", "--memory-limit="}, []string{`cpu: "1"`, `cpu: "1500m"`, `memory: "0.5Gi"`}, []string{"128Mi"}},
		"no resources":     {[]string{"--cpu-request=", "--memory-request=", "--memory-limit="}, nil, []string{"resources:"}},
		"settings, sorted": {[]string{"--set", "VIA=true", "--set=CARPOOL_IDLE_TIMEOUT=30s"}, []string{"- name: CARPOOL_IDLE_TIMEOUT", `value: "30s"`, "- name: CARPOOL_VIA", `value: "true"`}, nil},
		"no proxy":         {[]string{"--no-proxy", "a.example.com, .b.example.com"}, []string{`$(KUBERNETES_SERVICE_HOST),a.example.com,.b.example.com"`}, nil},
		"skip":             {[]string{"--skip", "b,a"}, nil, []string{"HTTP_PROXY"}},
		"https":            {[]string{"--https"}, []string{"- name: HTTPS_PROXY", "- name: https_proxy"}, nil},
		"java":             {[]string{"--java", "--no-proxy=.b.example.com"}, []string{"- name: JAVA_TOOL_OPTIONS", `|kubernetes.default.svc|*.b.example.com"`}, nil},
		"java, not":        {[]string{"--java=false"}, nil, []string{"JAVA_TOOL_OPTIONS"}},
		"preload": {[]string{"--preload"}, []string{
			"- name: CARPOOL_PRELOAD_DIR", "value: /carpool", "mountPath: /carpool", `value: "--require=/carpool/preload.js"`, "mountPath: /carpool", "readOnly: true", "emptyDir:",
		}, nil},
		"preload of https": {[]string{"--preload-https"}, []string{
			"- name: CARPOOL_PRELOAD_DIR", `value: "--require=/carpool/preload.js"`, "- name: CARPOOL_PRELOAD_HTTPS", "emptyDir:",
		}, nil},
		"secret": {[]string{"--secret=partner-tls", "--set=CA_FILE=/etc/carpool/secret/ca.crt"}, []string{
			"- name: CARPOOL_CA_FILE", "- name: carpool-secret", "mountPath: /etc/carpool/secret", "readOnly: true", "- name: carpool-secret", "secretName: partner-tls",
		}, []string{"subPath"}},
		"cache": {[]string{"--cache"}, []string{
			"- name: CARPOOL_CACHE_DIR", "value: /cache", "- name: carpool-cache", "mountPath: /cache", "- name: carpool-cache", `sizeLimit: "1Mi"`,
		}, []string{"mountPath: /carpool", "CARPOOL_PRELOAD_DIR"}},
		"plain, with a secret":      {[]string{"--plain", "--secret=1"}, []string{"mountPath: /etc/carpool/secret", `secretName: "1"`}, nil},
		"plain":                     {[]string{"--plain"}, []string{`kubectl.kubernetes.io/default-container: "a"`, "- name: CARPOOL_DRAIN_DELAY", `value: "5s"`}, []string{"initContainers", "restartPolicy"}},
		"plain, with another delay": {[]string{"--plain", "--set=DRAIN_DELAY=9s"}, []string{`value: "9s"`}, []string{`"5s"`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := run(aPod(), "inject", append(c.args, "-f", "-")...)
			overrides := strings.HasSuffix(got.stderr, "_OPTIONS overrides what the image of a may have as ENV: if it has it, write it into env too, where inject extends it\n")
			if got.code != 0 || overrides != strings.Contains(got.stdout, "_OPTIONS") || strings.Count(got.stderr, "\n") > 1 || got.stderr != "" && !overrides {
				t.Fatalf("%+v", got)
			}
			rest := got.stdout
			for _, line := range c.has {
				_, behind, ok := strings.Cut(rest, line+"\n")
				if !ok {
					t.Errorf("no line %q, or out of order, in\n%s", line, got.stdout)
					continue
				}
				if !strings.Contains(name, "default") && !strings.Contains(name, "resources") {
					rest = behind
				}
			}
			for _, s := range c.hasNot {
				if strings.Contains(got.stdout, s) {
					t.Errorf("%q is in\n%s", s, got.stdout)
				}
			}
			if again := run(got.stdout, "inject", append(c.args, "-f", "-")...); again.stdout != got.stdout {
				t.Errorf("twice is not once:\n%s", again.stdout)
			}
			if back := run(got.stdout, "uninject", "-f", "-"); back.stdout != aPod() || back.stderr != "" {
				t.Errorf("uninject: %+v", back)
			}
		})
	}
}

func TestBadUsageIsExplained(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"no file":              {nil, "-f FILE"},
		"two files":            {[]string{"-f", "-", "-f", "b"}, "give one file"},
		"an argument":          {[]string{"-f", "-", "b.yaml"}, `"b.yaml" is no option`},
		"unknown option":       {[]string{"-f", "-", "--colour"}, "-colour"},
		"bad image":            {[]string{"-f", "-", "--image="}, `want an image, not ""`},
		"bad policy":           {[]string{"-f", "-", "--pull-policy=always"}, "want Always, IfNotPresent or Never"},
		"bad quantity":         {[]string{"-f", "-", "--cpu-limit=fast"}, `want a quantity such as 100m, not "fast"`},
		"negative quantity":    {[]string{"-f", "-", "--memory-limit=-1Gi"}, "want a quantity"},
		"bad GODEBUG":          {[]string{"-f", "-", "--godebug=tlsrsakex"}, `want name=value with commas between them, such as tlsrsakex=1, not "tlsrsakex"`},
		"bad choice":           {[]string{"-f", "-", "--https=yes"}, `want true or false, not "yes"`},
		"bad Secret":           {[]string{"-f", "-", "--secret=a/b"}, `want the name of a Secret, such as partner-tls, not "a/b"`},
		"bad setting":          {[]string{"-f", "-", "--set=IDLE_TIMEOUT=soon"}, "CARPOOL_IDLE_TIMEOUT"},
		"unknown setting":      {[]string{"-f", "-", "--set=IDLE_TIMEOUTS=9s"}, "did you mean CARPOOL_IDLE_TIMEOUT?"},
		"no setting":           {[]string{"-f", "-", "--set=VIA"}, `want NAME=VALUE, not "VIA"`},
		"fixed setting":        {[]string{"-f", "-", "--set=LISTEN=:80"}, "CARPOOL_LISTEN is fixed"},
		"settings at odds":     {[]string{"-f", "-", "--plain", "--set=DRAIN_TIMEOUT=3s"}, "CARPOOL_DRAIN_DELAY"},
		"given twice":          {[]string{"-f", "-", "--skip=a", "--skip=b"}, "given twice"},
		"preload of plain":     {[]string{"-f", "-", "--plain", "--preload"}, "preload needs a native sidecar"},
		"its https":            {[]string{"-f", "-", "--plain", "--preload-https"}, "preload needs a native sidecar"},
		"options of uninject":  {[]string{"-f", "-", "--https", "uninject"}, "-https"},
		"uninject has no file": {[]string{"uninject"}, "-f FILE"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			command, args := "inject", c.args
			if n := len(args); n > 0 && args[n-1] == "uninject" {
				command, args = "uninject", args[:n-1]
			}
			got := run(aPod(), command, args...)
			if got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, c.want) || !strings.Contains(got.stderr, "See carpool ") {
				t.Errorf("%+v, want %q", got, c.want)
			}
		})
	}
	if got := run("", "inject", "-h"); got.code != 0 || !strings.HasPrefix(got.stdout, "usage: carpool inject") || got.stderr != "" {
		t.Errorf("-h: %+v", got)
	}
}

func TestFaultsAreToldWithTheirPlace(t *testing.T) {
	const two = "apiVersion: v1\nkind: Service\n---\n" // the fault is in the second document, three lines later
	cases := map[string]struct{ in, want string }{
		"no YAML":           {"a: [1\n", "document 2, line 4: no valid YAML: "},
		"key twice":         {aPod("  name: q\n"), `document 2, line 8: "name" is there twice`},
		"containers":        {"apiVersion: v1\nkind: Pod\nspec:\n  containers: {a: b}\n", "document 2, line 7: containers is not a list"},
		"a container":       {"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - app\n", "document 2, line 8: an item of containers is not a mapping"},
		"env":               {"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: a\n      image: a:1\n      env: {A: b}\n", "document 2, line 10: env is not a list"},
		"spec":              {"apiVersion: apps/v1\nkind: Deployment\nspec: none\n", "document 2, line 6: spec is not a mapping"},
		"annotation":        {annotated(prefix+"https: maybe", "a: b"), "document 2, line 9: " + prefix + `https: want true or false, not "maybe"`},
		"setting":           {annotated("settings." + prefix + "IDLE_TIMEOUT: 5"), "document 2, line 9: CARPOOL_IDLE_TIMEOUT="},
		"volume":            {annotated(prefix+`preload: "true"`) + "  volumes:\n    - name: carpool\n", "document 2, line 15: the pod has a volume of its own named carpool"},
		"too many aliases":  {bomb(), "aliases make the document too large"},
		"merge of a string": {aPod("  labels: {<<: a}\n", "  x: &a 1\n", "  y: *a\n"), "document 2, line 8: only a mapping can be merged"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := run(two+c.in, "inject", "-f", "-")
			if got.code != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "carpool inject: stdin: ") || !strings.Contains(got.stderr, c.want) {
				t.Errorf("%+v, want %q", got, c.want)
			}
		})
	}
}

const prefix = "carpoolproxy.github.io/"

// bomb is a pod of nine levels of aliases, each used nine times.
func bomb() string {
	labels := "  x0: &x0 [a]\n"
	for level := range 9 {
		from, to := string(rune('0'+level)), string(rune('1'+level))
		labels += "  x" + to + ": &x" + to + " [" + strings.Repeat("*x"+from+", ", 9) + "*x" + from + "]\n"
	}
	return aPod(labels)
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	in := annotated(prefix+"https: maybe", prefix+"image: ''") + "---\n" + annotated(prefix+"java: perhaps") + "---\n" + aPod()
	got := run(in, "inject", "-f", "-")
	if got.code != 1 || got.stdout != "" || strings.Count(got.stderr, "\n") != 3 || !strings.Contains(got.stderr, "document 1, line 6: ") ||
		!strings.Contains(got.stderr, "document 1, line 7: ") || !strings.Contains(got.stderr, "document 2, line 18: ") {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsLeftAsItIsIsNoted(t *testing.T) {
	pod := aPod()
	cases := map[string]struct{ in, want string }{
		"opted out":    {aPod("  labels:\n    " + prefix + "inject: \"false\"\n"), "opted out by its label"},
		"host network": {pod + "  hostNetwork: true\n", "hostNetwork"},
		"Windows":      {pod + "  os: {name: windows}\n", "Windows"},
		"Windows node": {pod + "  nodeSelector: {kubernetes.io/os: windows}\n", "Windows"},
		"mirror":       {annotated("kubernetes.io/config.mirror: abc"), "mirror pod"},
		"no template":  {"apiVersion: batch/v1\nkind: Job\nmetadata: {name: p}\nspec: {suspend: true}\n", "it has no spec.template"},
		"a patch":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {priority: 1}\n", "it has no containers"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := run("a: b\n---\n"+c.in, "inject", "-f", "-")
			if got.code != 0 || got.stdout != "a: b\n---\n"+c.in || strings.Count(got.stderr, "\n") != 1 ||
				!strings.HasPrefix(got.stderr, "carpool inject: stdin: document 2 (") || !strings.Contains(got.stderr, " p): left as it is: ") ||
				!strings.Contains(got.stderr, c.want) {
				t.Errorf("%+v, want a note with %q", got, c.want)
			}
		})
	}
	t.Run("unknown annotation", func(t *testing.T) {
		got := run(annotated(prefix+"colour: red"), "inject", "-f", "-")
		if got.code != 0 || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, prefix+"colour") {
			t.Errorf("%+v", got)
		}
	})
}

func TestAnUnknownSettingIsRefusedWithTheOneThatWasMeant(t *testing.T) {
	got := run(annotated("settings."+prefix+"IDLE_TIMEOUTS: 9s"), "inject", "-f", "-")
	if got.code != 1 || !strings.Contains(got.stderr, "CARPOOL_IDLE_TIMEOUTS") || !strings.Contains(got.stderr, "did you mean CARPOOL_IDLE_TIMEOUT?") {
		t.Errorf("%+v", got)
	}
}

func TestAPlainContainerServesNoInitContainer(t *testing.T) {
	in := aPod() + "  initContainers:\n    - name: i\n      image: i:1\n"
	got := run(in, "inject", "--plain", "-f", "-")
	_, inits, _ := strings.Cut(got.stdout, "initContainers:")
	if got.code != 0 || strings.Contains(inits, "HTTP_PROXY") || strings.Count(got.stdout, "HTTP_PROXY") != 1 {
		t.Errorf("%+v", got)
	}
	if before, _, ok := strings.Cut(got.stdout, "    - name: a\n"); !ok || !strings.Contains(before, "- name: carpool\n") {
		t.Errorf("carpool is not the first container:\n%s", got.stdout)
	}
}

func TestWhatDoesNotGoByItselfIsNoted(t *testing.T) {
	job := "apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      containers:\n        - name: a\n          image: a:1\n"
	if got := run(job, "inject", "--plain", "--admin-port=19128", "-f", "-"); got.code != 0 ||
		!strings.Contains(got.stderr, "(Job): it does not complete") || !strings.Contains(got.stderr, ":19128/quitquitquit") {
		t.Errorf("a Job with an ordinary container: %+v", got)
	}
	native := run(job, "inject", "-f", "-")
	if native.code != 0 || native.stderr != "" {
		t.Errorf("a Job: %+v", native)
	}
	if got := run(native.stdout, "inject", "--image=another:1", "-f", "-"); got.stdout != native.stdout || !strings.Contains(got.stderr, "stays as it is") {
		t.Errorf("another image for a pod that has carpool: %+v", got)
	}
}

func TestKubectlGoesOnTakingTheApp(t *testing.T) {
	own := annotated("kubectl.kubernetes.io/default-container: b")
	got := run(own, "inject", "--plain", "-f", "-")
	if got.code != 0 || strings.Count(got.stdout, "default-container") != 1 {
		t.Errorf("one of the author's own: %+v", got)
	}
	if back := run(got.stdout, "uninject", "-f", "-"); back.stdout != own {
		t.Errorf("uninject: %+v", back)
	}
	// As the API server has it, with sorted keys, beside a native sidecar.
	native := run(aPod(), "inject", "-f", "-")
	later := strings.Replace(native.stdout, "status: injected\n", "status: injected\n    kubectl.kubernetes.io/default-container: a\n", 1)
	if back := run(later, "uninject", "-f", "-"); !strings.Contains(back.stdout, "default-container: a") {
		t.Errorf("uninject takes the author's: %+v", back)
	}
}

func TestWhatCarpoolMeansToOtherProgramsIsNoted(t *testing.T) {
	const scrape = `prometheus.io/scrape: "true"`
	withOptions := func(value string) string {
		return aPod() + "      env: [{name: NODE_OPTIONS, value: '" + value + "'}]\n"
	}
	cases := map[string]struct {
		in   string
		args []string
		want string // "" is no note
	}{
		"scraped on any port":       {annotated(scrape), nil, "scrape every port that a container declares, carpool's 9128 too"},
		"scraped on the app's port": {annotated(scrape, `prometheus.io/port: "8080"`), nil, ""},
		"not scraped":               {annotated(`prometheus.io/scrape: "false"`), nil, ""},
		"an image's options":        {aPod() + "    - name: b\n      image: b:1\n", []string{"--preload"}, "NODE_OPTIONS overrides what the image of a, b may have"},
		"the container's options":   {withOptions("--max-old-space-size=64"), []string{"--preload"}, ""},
		"a script of its own":       {withOptions("-r dd-trace/init"), []string{"--preload"}, "container a: NODE_OPTIONS has two --require now"},
		"a proxy of its own":        {aPod() + "      env: [{name: http_proxy, value: 'http://corp:3128'}]\n", nil, "take http_proxy out there, and set CARPOOL_NEXT_PROXY=http://corp:3128 and, if it takes a password, CARPOOL_NEXT_PROXY_AUTH_FILE=FILE for carpool"},
		"a proxy with a password":   {aPod() + "      env: [{name: HTTP_PROXY, value: 'http://u:p@ss@corp:3128'}]\n", nil, "CARPOOL_NEXT_PROXY=http://corp:3128 and, for its user and password, CARPOOL_NEXT_PROXY_AUTH_FILE"},
		"a proxy from elsewhere":    {aPod() + "      env: [{name: HTTP_PROXY, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n", nil, "CARPOOL_NEXT_PROXY=URL and"},
		"no proxy, by its own word": {aPod() + "      env: [{name: HTTP_PROXY, value: ''}]\n", nil, ""},
		"a script, without preload": {withOptions("--require=./x.js"), nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := run(c.in, "inject", append(c.args, "-f", "-")...)
			if got.code != 0 || (got.stderr == "") != (c.want == "") || !strings.Contains(got.stderr, c.want) || strings.Count(got.stderr, "\n") > 1 {
				t.Errorf("code %d, notes %q, want %q", got.code, got.stderr, c.want)
			}
			if back := run(got.stdout, "uninject", "-f", "-"); difference(any(meaning(t, []byte(back.stdout))), any(meaning(t, []byte(c.in)))) != "" {
				t.Errorf("uninject: %+v", back)
			}
		})
	}
}

func TestGRPCIsLeftToItsOwnConnections(t *testing.T) {
	if env := envOf(t, run(aPod(), "inject", "-f", "-").stdout); env["grpc_proxy"] != "" || env["http_proxy"] == "" {
		t.Errorf("%v", env)
	}
	for _, own := range []string{`{name: grpc_proxy, value: "http://corp:1"}`, `{name: grpc_proxy, value: ""}`, `{name: http_proxy, value: "http://corp:1"}`} {
		in := aPod() + "      env:\n        - " + own + "\n"
		out := run(in, "inject", "-f", "-")
		if strings.Count(out.stdout, "name: grpc_proxy") != strings.Count(in, "name: grpc_proxy") {
			t.Errorf("%s: %+v", own, out)
		}
		if back := run(out.stdout, "uninject", "-f", "-"); back.stdout != in {
			t.Errorf("%s: uninject: %+v", own, back)
		}
	}
}

func TestUninjectLeavesWhatTheAuthorWrote(t *testing.T) {
	own := map[string]string{
		"by hand, never injected": aPod() + "      env:\n        - {name: HTTP_PROXY, value: \"http://127.0.0.1:3128\"}\n" +
			"  initContainers:\n    - {name: carpool, image: mine, ports: [{name: carpool-admin, containerPort: 9128}]}\n",
		"one spelling":          aPod() + "      env:\n        - {name: HTTP_PROXY, value: \"http://127.0.0.1:3128\"}\n",
		"another value":         aPod() + "      env:\n        - {name: HTTP_PROXY, value: \"http://corp:1\"}\n        - {name: http_proxy, value: \"http://corp:1\"}\n",
		"own list":              aPod() + "      env:\n        - {name: NO_PROXY, value: localhost}\n        - {name: no_proxy, value: localhost}\n",
		"own options":           aPod() + "      env:\n        - name: NODE_OPTIONS\n          value: --require=/carpool/preload.js --more\n",
		"own sidecar":           aPod() + "  initContainers:\n    - name: carpool\n      image: mine\n      restartPolicy: Always\n",
		"own volume":            aPod() + "      volumeMounts:\n        - name: carpool\n          mountPath: /data\n  volumes:\n    - name: carpool\n      emptyDir: {}\n",
		"annotation of its own": annotated(prefix + `java: "false"`),
	}
	for name, in := range own {
		t.Run(name, func(t *testing.T) {
			if got := run(in, "uninject", "-f", "-"); got.code != 0 || got.stdout != in {
				t.Errorf("uninject changes it: %+v", got)
			}
			out := run(in, "inject", "-f", "-")
			if out.code != 0 || out.stdout == in {
				t.Fatalf("inject: %+v", out)
			}
			if strings.HasPrefix(name, "by hand") {
				return // like inject's own, to the name of the port
			}
			back := run(out.stdout, "uninject", "-f", "-")
			if diff := difference(any(meaning(t, []byte(back.stdout))), any(meaning(t, []byte(in)))); diff != "" {
				t.Errorf("%s\n%s", diff, back.stdout)
			}
		})
	}
}

func TestFilesAreReadAndFaultsOfReadingTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(file, []byte(aPod()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run("", "inject", "-f", file); got.code != 0 || !strings.Contains(got.stdout, "HTTP_PROXY") {
		t.Errorf("%+v", got)
	}
	if got := run("", "inject", "-f", file+".not"); got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, file+".not") {
		t.Errorf("no such file: %+v", got)
	}
	var stderr bytes.Buffer
	if code := inject.Run("inject", []string{"-f", file}, nil, brokenPipe{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("a pipe that breaks: code %d, %s", code, &stderr)
	}
}

// brokenPipe is an output nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
