package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// preloadMajors are the Node.js versions that the script of carpool preload is
// tested with, preloadLibraries the clients.
var (
	preloadMajors    = append(slices.Clone(nodeMajors), 26)
	preloadLibraries = append([]string{"http.get", "http.request", "got-11", "node-fetch", "superagent"}, nodeLibraries...)
)

// preloadScript is a file with what carpool preload prints.
var preloadScript = sync.OnceValues(func() (string, error) {
	bin, err := carpoolBinary()
	if err != nil {
		return "", err
	}
	script, err := runProgram(time.Minute, os.Environ(), bin, "preload")
	if err != nil {
		return "", fmt.Errorf("carpool preload: %w\n%s", err, script)
	}
	path := filepath.Join(scratch, "preload.js")
	return path, os.WriteFile(path, []byte(script), 0o600)
})

// preloaded is a client for Node.js as it is started in a pod, with its default
// agent as it is.
func preloaded(major int, library string) client {
	plain := nodeProgram(major, library, "default-agent")
	return client{
		name: fmt.Sprintf("node%d %s", major, library),
		host: "127.0.0.1",
		program: func(proxyPort int) (program, error) {
			script, err := preloadScript()
			if err != nil {
				return program{}, err
			}
			p, err := plain(proxyPort)
			p.env = append(p.env, "NODE_OPTIONS=--require="+script)
			return p, err
		},
	}
}

func TestPreloadedNodeSharesConnectionsOnBothSides(t *testing.T) {
	for _, major := range preloadMajors {
		for _, library := range preloadLibraries {
			c := preloaded(major, library)
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				need(t, c.available())
				proxy := startCarpool(t)
				c.check(t, proxy, targets[0])
				accepted, err := proxy.accepted()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d client connections", accepted)
				// superagent says agent: false, and so gets a connection per call.
				if accepted >= connectionLimit && library != "superagent" {
					t.Errorf("%d client connections, want fewer than %d", accepted, connectionLimit)
				}
			})
		}
	}
}

func TestPreloadsHardCasesInEveryVersion(t *testing.T) {
	for _, major := range preloadMajors {
		t.Run(fmt.Sprintf("node%d", major), func(t *testing.T) {
			t.Parallel()
			node, err := nodeBinary(major)
			need(t, err)
			test := []string{"go", "test", "-C", filepath.Join("..", ".."), "-count=1", "./cmd/carpool/internal/preload"}
			out, err := runProgram(installTimeout, append(os.Environ(), "CARPOOL_NODE="+node), test...)
			if err != nil {
				t.Errorf("%v: %v\n%s", test, err, out)
			}
		})
	}
}
