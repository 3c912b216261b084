package observability

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// root is where the module lies that is tested.
var root = filepath.Join("..", "..")

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// family is a metric as carpool exports it.
type family struct {
	*dto.MetricFamily
	labels map[string]bool // of its samples
}

// exported returns what carpool exports once it has carried requests: the
// metrics, by name.
func exported(t *testing.T) map[string]family {
	t.Helper()
	text, err := scrape()
	if err != nil {
		t.Fatal(err)
	}
	injector, err := scrapeInjector()
	if err != nil {
		t.Fatal(err)
	}
	text += injector
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]family{}
	for name, f := range parsed {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			labels["le"] = true
		}
		all[name] = family{f, labels}
	}
	return all
}

// scrape runs carpool for some requests and returns its metrics, once for all
// tests.
var scrape = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "carpool-observability-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "carpool")
	if out, err := exec.Command("go", "build", "-C", root, "-o", bin, "./cmd/carpool").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	proxy, admin := freeAddr(), freeAddr()
	cmd := exec.Command(bin)
	// An upstream that is named in WARM has figures of its own, and so has a next hop that fails; nothing listens there.
	cmd.Env = []string{"CARPOOL_LISTEN=" + proxy, "CARPOOL_ADMIN_LISTEN=" + admin, "CARPOOL_WARM=127.0.0.1:9=1", "CARPOOL_NEXT_PROXY=http://127.0.0.1:9",
		"CARPOOL_LOCAL_PORTS=" + freeAddr()[len("127.0.0.1:"):] + "=http://far.example", "CARPOOL_SPARE_TUNNELS=1"}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	if err := awaitReady(admin); err != nil {
		return "", err
	}
	if err := makeRequests(proxy); err != nil {
		return "", err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // spares come when they come
		text, err := get(http.DefaultClient, "http://"+admin+"/metrics")
		if err != nil || strings.Contains(text, "carpool_spare_tunnels_made_total{") || time.Now().After(deadline) {
			return text, err
		}
	}
})

// scrapeInjector runs carpool's webhook in a cluster of one pod without carpool, and
// returns its metrics, once for all tests.
var scrapeInjector = sync.OnceValues(func() (string, error) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"items": [{"metadata": {"name": "shop", "namespace": "shop", "labels": {"carpoolproxy.github.io/inject": "enabled"}}}]}`)
	}))
	defer api.Close()
	dir, err := os.MkdirTemp("", "carpool-injector-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	admin := freeAddr()
	for name, content := range map[string][]byte{
		"token": []byte("t"), "ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}),
		"injector.json": []byte(`{"whenMissing": "Allow", "listen": "127.0.0.1:0", "admin": "` + admin + `", "host": "h",
			"configuration": "carpool", "webhooks": ["w"], "namespace": "n", "secret": "s", "countMissed": true}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("go", "run", "-C", root, "./cmd/carpool", "injector", "--config", filepath.Join(dir, "injector.json"), "--service-account", dir)
	host, port, _ := net.SplitHostPort(api.Listener.Addr().String())
	cmd.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run and what it runs
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	for deadline := time.Now().Add(4 * patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := get(http.DefaultClient, "http://"+admin+"/metrics")
		if err == nil && strings.Contains(text, "pods_missed") {
			return text, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("the injector tells of no pods: %w\n%s", err, text)
		}
	}
})

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func awaitReady(admin string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := get(http.DefaultClient, "http://"+admin+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// makeRequests lets each kind of figure appear: answers, a connection that is
// reused, one that the upstream closes, and a next hop that cannot be reached.
func makeRequests(proxy string) error {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.WriteString(w, "ok\n")
	}))
	defer upstream.Close()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), DisableKeepAlives: true}
	for _, path := range []string{"/", "/", "/close"} {
		if _, err := get(&http.Client{Transport: transport, Timeout: patience}, upstream.URL+path); err != nil {
			return err
		}
	}
	secure := httptest.NewTLSServer(upstream.Config.Handler)
	defer secure.Close()
	transport.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	for range 3 { // a second tunnel soon after another has a spare opened
		if _, err := get(&http.Client{Transport: transport, Timeout: patience}, secure.URL); err != nil {
			return err
		}
	}
	if _, err := get(&http.Client{Transport: transport, Timeout: patience}, "http://far.example/"); err == nil {
		return errors.New("far.example was reached past the next hop")
	}
	return nil
}

func get(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}
