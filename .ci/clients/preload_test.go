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

// casesTimeout is reached only by hard cases that hang.
const casesTimeout = 3 * time.Minute

// preloadMajors are the Node.js versions that the script of carpool preload is
// tested with, preloadLibraries the clients.
var (
	preloadMajors    = append(slices.Clone(nodeMajors), 26)
	preloadLibraries = append([]string{"http.get", "http.request", "got-9", "got-10", "got-11", "needle", "node-fetch", "superagent", "aws-sdk-2"}, nodeLibraries...)
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
				// superagent says agent: false, and the SDK has an agent without keep-alive: a connection per call.
				if accepted >= connectionLimit && library != "superagent" && library != "aws-sdk-2" {
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
			script, err := preloadScript()
			need(t, err)
			cases := filepath.Join("..", "..", "cmd", "carpool", "internal", "preload", "testdata", "cases.js")
			if out, err := runProgram(casesTimeout, clientEnv(0, "")[:2], node, cases, script); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestPreloadLeavesOtherAgentsAlone(t *testing.T) {
	for agent, wants := range map[string]struct {
		majors []int
		proxy  bool // whether requests go through the agent's own proxy
	}{
		"agentkeepalive":     {[]int{10, 18, 24}, false},
		"global-agent":       {[]int{10, 18, 24}, true},
		"hpagent":            {[]int{14, 24}, true},
		"http-proxy-agent":   {[]int{10, 18, 24}, true},
		"http-proxy-agent-7": {[]int{14, 24}, true},
		"tunnel":             {[]int{10, 18, 24}, true},
	} {
		for _, major := range wants.majors {
			t.Run(fmt.Sprintf("node%d %s", major, agent), func(t *testing.T) {
				t.Parallel()
				c := preloaded(major, agent)
				need(t, c.available())
				script, other, up := startCarpool(t), startCarpool(t), startNginx(t, "")
				p, err := c.program(script.port)
				if err != nil {
					t.Fatal(err)
				}
				url := fmt.Sprintf("http://%s/echo?tag=a&n=1", address(up.port))
				argv := []string{p.argv[0], filepath.Join("programs", "agents.js"), agent, fmt.Sprint(other.port), url, "a 1"}
				env := append(clientEnv(script.port, ""), p.env...)
				if out, err := runProgram(clientTimeout, env, argv...); err != nil {
					t.Errorf("%v: %v\n%s", argv, err, out)
				}
				for _, at := range []struct {
					name  string
					proxy *carpool
					used  bool
				}{{"the script's proxy", script, false}, {"the agent's proxy", other, wants.proxy}} {
					n, err := at.proxy.accepted()
					if err != nil {
						t.Fatal(err)
					}
					if n > 0 != at.used {
						t.Errorf("%s accepted %d connections, want some: %v", at.name, n, at.used)
					}
				}
			})
		}
	}
}
