package clients

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// stopTimeout is how long an idle carpool may take to exit on SIGTERM.
const stopTimeout = 10 * time.Second

// scratch holds what all tests share; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "carpool-clients-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		scratch = dir
		return m.Run()
	}())
}

// carpoolBinary is CARPOOL_BIN, or carpool built from the module this folder
// lies in.
var carpoolBinary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("CARPOOL_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(scratch, "carpool")
	root := filepath.Join("..", "..")
	out, err := runProgram(installTimeout, os.Environ(), "go", "build", "-C", root, "-o", bin, "./cmd/carpool")
	if err != nil {
		return "", fmt.Errorf("go build ./cmd/carpool: %w\n%s", err, out)
	}
	return bin, nil
})

// A carpool is a running proxy.
type carpool struct {
	*process
	port, admin int
}

// startCarpool returns once the proxy is ready, which has further settings
// (NAME=VALUE). When the test ends, the proxy
// has to exit with status 0 on SIGTERM.
func startCarpool(t *testing.T, settings ...string) *carpool {
	t.Helper()
	bin, err := carpoolBinary()
	need(t, err)
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	port, admin := freePort(t), freePort(t)
	p := startProcess(t, append([]string{
		"CARPOOL_LISTEN=" + address(port),
		"CARPOOL_ADMIN_LISTEN=" + address(admin),
		"CARPOOL_CA_FILE=" + files.ca,
	}, settings...), bin)
	if err := p.await(func() error { return isReady(admin) }); err != nil {
		t.Fatalf("carpool: %v", err)
	}
	t.Cleanup(func() {
		if err := p.stop(stopTimeout); err != nil {
			t.Errorf("carpool on SIGTERM: %v", err)
		}
	})
	return &carpool{process: p, port: port, admin: admin}
}

// accepted returns how many client connections the proxy has accepted.
func (c *carpool) accepted() (int, error) {
	n, err := c.sum("carpool_client_connections_accepted_total")
	return int(n), err
}

// sum adds up the samples of a metric, whatever their labels.
func (c *carpool) sum(metric string) (float64, error) {
	response, err := http.Get("http://" + address(c.admin) + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.Index(line, "} "); at >= 0 {
			name, value = line[:at], strings.TrimSpace(line[at+2:])
		}
		if name, _, _ = strings.Cut(name, "{"); name != metric {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", metric)
	}
	return sum, nil
}

func isReady(admin int) error {
	response, err := http.Get("http://" + address(admin) + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", response.Status)
	}
	return nil
}
