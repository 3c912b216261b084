package clients

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const loopback = "127.0.0.1"

// directClients are those that use no proxy by themselves.
func directClients() (all []client) {
	for _, major := range []int{10, 18, 24} {
		for _, library := range []string{"http.get", "got-11", "needle", "node-fetch", "superagent"} {
			all = append(all, client{name: fmt.Sprintf("node%d %s", major, library), host: loopback, program: nodeProgram(major, library, "default-agent")})
		}
	}
	return all
}

// withoutProxy is the client by loopback, and without the options that name a proxy:
// Java's.
func (c client) withoutProxy() client {
	with := c.program
	c.host = loopback
	c.program = func(port int) (program, error) {
		p, err := with(port)
		p.argv = slices.DeleteFunc(p.argv, func(arg string) bool {
			return strings.HasPrefix(arg, "-Dhttp") && strings.Contains(strings.ToLower(arg), "proxy")
		})
		return p, err
	}
	return c
}

// A base URL is all that is changed, so every client pools https that way, those too
// that know no proxy. The others are told that there is none for this host.
func TestEveryClientPoolsHTTPSByALocalPort(t *testing.T) {
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(matrix(), directClients()...) {
		if strings.Contains(c.name, "ProxyAgent") || strings.Contains(c.name, "tunnel") {
			continue // these are ways to use a proxy
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.available())
			up := startNginx(t, files.server)
			port := freePort(t)
			proxy := startCarpool(t, fmt.Sprintf("CARPOOL_LOCAL_PORTS=%d=https://%s", port, address(up.port)), "CARPOOL_MAX_CONN_AGE=0")
			c = c.withoutProxy()
			if err := c.run(proxy.port, "http", port, pooledCalls, "NO_PROXY="+loopback, "no_proxy="+loopback); err != nil {
				t.Error(err)
			}
			saw, err := up.stop()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d requests arrived over %d connections", saw.Requests, saw.Connections)
			if want := pooledCalls + 2; saw.Requests != want {
				t.Errorf("%d requests arrived, want %d", saw.Requests, want)
			}
			if len(saw.Uploads) != 1 || saw.Uploads[0] != sha256Hex(upload) {
				t.Errorf("uploads arrived with SHA-256 %q, want one with %s", saw.Uploads, sha256Hex(upload))
			}
			if saw.Connections >= connectionLimit {
				t.Errorf("%d upstream connections for %d requests, want fewer than %d", saw.Connections, saw.Requests, connectionLimit)
			}
		})
	}
}

// A request in plain HTTP leaves in TLS, whichever way it comes.
func TestPlainRequestsLeaveInTLS(t *testing.T) {
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range matrix() {
		switch c.name {
		case "node10 request", "node24 axios-latest", "node24 fetch", "python urllib", "curl", "curl --proxytunnel", "ruby":
		default:
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			need(t, c.available())
			up := startNginx(t, files.server)
			proxy := startCarpool(t, fmt.Sprintf("CARPOOL_TLS_ORIGINATE=%s:%d", c.host, up.port), "CARPOOL_MAX_CONN_AGE=0")
			if err := c.run(proxy.port, "http", up.port, pooledCalls); err != nil {
				t.Error(err)
			}
			saw, err := up.stop()
			if err != nil {
				t.Fatal(err)
			}
			if saw.Requests != pooledCalls+2 || saw.Connections >= connectionLimit {
				t.Errorf("%d requests arrived over %d connections", saw.Requests, saw.Connections)
			}
		})
	}
}
