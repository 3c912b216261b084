package injector_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/injector"
)

const settings = `{"options": {"image": "i:1"}, "whenMissing": "Deny", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "host": "` + host + `",
	"configuration": "carpool", "webhooks": ["namespaces.carpoolproxy.github.io", "pods.carpoolproxy.github.io"],
	"namespace": "carpool-system", "secret": "carpool-injector"}`

// output is what a running injector writes to stderr.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// running is an injector beside a cluster.
type running struct {
	listen, admin string
	stop          func()
	done          chan int
	client        *http.Client
}

// start runs an injector, and returns when it is ready.
func start(t *testing.T, c *cluster) *running {
	t.Helper()
	api := httptest.NewTLSServer(c)
	t.Cleanup(api.Close)
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"injector.json": []byte(settings), "token": []byte("t"),
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{"KUBERNETES_SERVICE_HOST=" + at.Hostname(), "KUBERNETES_SERVICE_PORT=" + at.Port()}
	ctx, stop := context.WithCancel(context.Background())
	var said output
	r := &running{stop: stop, done: make(chan int, 1)}
	go func() {
		r.done <- injector.Run(ctx, []string{"--config", filepath.Join(dir, "injector.json"), "--service-account", dir}, environ, io.Discard, &said)
	}()
	t.Cleanup(stop)
	eventually(t, "it is ready", func() bool {
		for line := range strings.Lines(said.String()) {
			var s struct{ Msg, Listen, Admin string }
			if json.Unmarshal([]byte(line), &s) == nil && s.Msg == "serving" {
				r.listen, r.admin = s.Listen, s.Admin
			}
		}
		return r.admin != "" && r.status(t) == http.StatusOK
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.bundleOf(ours[0]))
	r.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host}, ForceAttemptHTTP2: true}}
	return r
}

func (r *running) status(t *testing.T) int {
	t.Helper()
	response, err := http.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// post sends a body for review and returns what comes back.
func (r *running) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	response, err := r.client.Post("https://"+r.listen+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after half a minute: %s", what)
		}
	}
}

func aReview(annotations string) string {
	return `{"request": {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "shop", "object": {"metadata": {"annotations": {` + annotations +
		`}}, "spec": {"containers": [{"name": "app", "image": "a"}]}}}}`
}

func TestReviewsAreAnsweredOverTLS(t *testing.T) {
	c := newCluster()
	c.objects["/api/v1/namespaces/shop/limitranges"] = object{"items": []any{}}
	r := start(t, c)
	for name, want := range map[string]struct {
		path, body string
		code       int
		has        string
	}{
		"a pod":               {"/inject", aReview(""), 200, `"uid":"u","allowed":true,"patchType":"JSONPatch","patch":"`},
		"a pod that is wrong": {"/inject", aReview(`"carpoolproxy.github.io/java": "x", "carpoolproxy.github.io/https": "y"`), 200, `"allowed":false,"status":{"code":422,"reason":"Invalid","message":"`},
		"no settings":         {"/inject/settings", aReview(""), 200, "no ConfigMap carpool: make it, or take the label off"},
		"no pod":              {"/inject", strings.Replace(aReview(""), `"Pod"`, `"Service"`, 1), 400, "no review of a pod"},
		"no review":           {"/inject", "{", 400, "no AdmissionReview"},
		"nothing":             {"/inject", "{}", 400, "no review of a pod"},
		"another path":        {"/mutate", aReview(""), 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if code, text := r.post(t, want.path, want.body); code != want.code || !strings.Contains(text, want.has) {
				t.Errorf("%d %s, want %d with %s", code, text, want.code, want.has)
			}
		})
	}
}

// What a namespace has chosen is not guessed while it cannot be read: the webhook's
// failurePolicy decides.
func TestAReviewFailsWithoutTheNamespacesSettings(t *testing.T) {
	c := newCluster()
	r := start(t, c)
	c.mu.Lock()
	c.down = true
	c.mu.Unlock()
	if code, text := r.post(t, "/inject/settings", aReview("")); code != http.StatusInternalServerError {
		t.Errorf("%d %s", code, text)
	}
	if code, text := r.post(t, "/inject", aReview("")); code != http.StatusOK || !strings.Contains(text, `"patch"`) {
		t.Errorf("a namespace without settings: %d %s", code, text)
	}
	if r.status(t) != http.StatusOK {
		t.Error("it is not ready any more")
	}
}

// Before it ends it says that it is not ready, and serves on: the API server still
// calls it for a moment.
func TestAnInjectorDrainsBeforeItEnds(t *testing.T) {
	t.Parallel()
	r := start(t, newCluster())
	r.stop()
	eventually(t, "it says that it is not ready", func() bool { return r.status(t) == http.StatusServiceUnavailable })
	if code, _ := r.post(t, "/inject", aReview("")); code != http.StatusOK {
		t.Errorf("while it drains: %d", code)
	}
	if code := <-r.done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestABadFileIsRefusedWithAllThatIsWrong(t *testing.T) {
	for text, want := range map[string][]string{
		`{"listen": ":1", "more": 1}`: {`unknown field "more"`, "another version"},
		`{"options": {"image": "", "port": "x"}, "whenMissing": "Maybe"}`: {
			"options: image: want an image", "options: port: want a port", "whenMissing: want Allow or Deny", "listen is missing", "secret or certificates is missing",
		},
	} {
		file := filepath.Join(t.TempDir(), "injector.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		if code := injector.Run(t.Context(), []string{"--config", file}, nil, io.Discard, &said); code != 2 {
			t.Errorf("%s: exit code %d", text, code)
		}
		for _, want := range want {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s: no %q in %s", text, want, fmt.Sprint(said.String()))
			}
		}
	}
}
