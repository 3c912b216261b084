package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

const (
	// pooledCalls are made where carpool can share upstream connections.
	pooledCalls = 300
	// tunnelledCalls are made where the client asks for a tunnel, so that
	// there is nothing to share and only the answers to check.
	tunnelledCalls = 30
	// connectionLimit is what all pooledCalls, the upload and the download of
	// a client stay below. One connection would do; some more are not a fault.
	connectionLimit = 10
)

// A target is an upstream and the URL scheme by which it is called.
type target struct {
	name, scheme string
	start        func(*testing.T) upstream
}

var targets = []target{
	{"http to nginx", "http", func(t *testing.T) upstream { return startNginx(t, "") }},
	{"http to node", "http", startNode},
	{"https to nginx", "https", func(t *testing.T) upstream {
		files, err := makeTLSFiles()
		if err != nil {
			t.Fatal(err)
		}
		return startNginx(t, files.server)
	}},
}

func TestEveryClientGetsRightAnswersOverFewConnections(t *testing.T) {
	for _, c := range matrix() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.available())
			proxy := startCarpool(t)
			for _, target := range targets {
				t.Run(target.name, func(t *testing.T) { c.check(t, proxy, target) })
			}
		})
	}
}

// check runs a client against a fresh upstream and looks at what that saw.
func (c client) check(t *testing.T, proxy *carpool, target target) {
	up := target.start(t)
	pooled := target.scheme == "http" || c.absoluteHTTPS
	calls := pooledCalls
	if !pooled {
		calls = tunnelledCalls
		c.checkNeedsProxy(t, target, up)
	}
	if err := c.run(proxy.port, target.scheme, up.port, calls); err != nil {
		t.Error(err)
	}
	saw, err := up.stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests arrived over %d connections", saw.Requests, saw.Connections)
	if want := calls + 2; saw.Requests != want { // the calls, the upload, the download
		t.Errorf("%d requests arrived, want %d", saw.Requests, want)
	}
	if len(saw.Uploads) != 1 || saw.Uploads[0] != sha256Hex(upload) {
		t.Errorf("uploads arrived with SHA-256 %q, want one with %s", saw.Uploads, sha256Hex(upload))
	}
	if limit := connectionLimit + c.direct; pooled && saw.Connections >= limit {
		t.Errorf("%d upstream connections for %d requests, want fewer than %d",
			saw.Connections, saw.Requests, limit)
	}
}

// checkNeedsProxy holds that the client fails where the proxy should be and is
// not. Only then do right answers tell that they came through carpool; where
// connections are shared, their number tells.
func (c client) checkNeedsProxy(t *testing.T, target target, up upstream) {
	if err := c.run(freePort(t), target.scheme, up.port, 1); err == nil {
		t.Error("the client does without the proxy it was told to use")
	}
}

func TestConcurrentClientsShareConnectionsWithoutMixingAnswers(t *testing.T) {
	var together []client
	for _, c := range matrix() {
		switch c.name {
		case "node10 request", "node24 axios-latest", "python urllib", "curl":
			need(t, c.available())
			together = append(together, c)
		}
	}
	proxy := startCarpool(t)
	up := startNginx(t, "")
	var running sync.WaitGroup
	for _, c := range together {
		running.Go(func() {
			if err := c.run(proxy.port, "http", up.port, pooledCalls); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	running.Wait()
	saw, err := up.stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests arrived over %d connections", saw.Requests, saw.Connections)
	if want := len(together) * (pooledCalls + 2); saw.Requests != want {
		t.Errorf("%d requests arrived, want %d", saw.Requests, want)
	}
	if saw.Connections >= connectionLimit {
		t.Errorf("%d upstream connections for %d clients at a time, want fewer than %d",
			saw.Connections, len(together), connectionLimit)
	}
}

// uploadFile is the file that client programs upload.
var uploadFile = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "upload")
	return path, os.WriteFile(path, upload, 0o600)
})

// run runs the client's program once, as doc.go says, and returns an error if
// an answer was wrong.
func (c client) run(proxyPort int, scheme string, port, calls int, more ...string) error {
	file, err := uploadFile()
	if err != nil {
		return err
	}
	files, err := makeTLSFiles()
	if err != nil {
		return err
	}
	program, err := c.program(proxyPort)
	if err != nil {
		return err
	}
	base := fmt.Sprintf("%s://%s:%d", scheme, c.host, port)
	tag := fmt.Sprintf("%x", c.name) // hex: nothing in it needs escaping
	argv := append(program.argv, base, strconv.Itoa(calls), tag, file, sha256Hex(upload), sha256Hex(download))
	env := append(append(clientEnv(proxyPort, files.ca), program.env...), more...)
	out, err := runProgram(clientTimeout, env, argv...)
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", argv, err, out)
	}
	return nil
}
