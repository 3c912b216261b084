package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
)

// served is what upstream pods count, and their sum.
type served struct{ Connections, Requests int }

func (s served) String() string {
	return fmt.Sprintf("%d requests on %d connections", s.Requests, s.Connections)
}

// since returns what was counted after an earlier count.
func (s served) since(before served) served {
	return served{s.Connections - before.Connections, s.Requests - before.Requests}
}

// seenByUpstream adds up the counts of the upstream's pods.
func seenByUpstream(t *testing.T) served {
	t.Helper()
	var sum served
	for _, p := range pods(t, "app=upstream") {
		var s served
		raw(t, &s, proxyPath(p.Metadata.Name, 8081, "seen"))
		sum.Connections += s.Connections
		sum.Requests += s.Requests
	}
	return sum
}

// duringRequests returns what the upstream sees until it has had n more
// requests, from now on.
func duringRequests(t *testing.T, n int) served {
	t.Helper()
	var now served
	before := seenByUpstream(t)
	eventually(t, fmt.Sprintf("%d more requests at the upstream", n), func() bool {
		now = seenByUpstream(t)
		return now.Requests-before.Requests >= n
	})
	return now.since(before)
}

// calls is what a caller counts.
type calls struct {
	Calls, Failed int
	Errors        map[string]int
}

func (c calls) String() string {
	return fmt.Sprintf("%d calls, %d failed %v", c.Calls, c.Failed, c.Errors)
}

// lastWords are the calls of an app that has ended.
func lastWords(t *testing.T, end *termination) calls {
	t.Helper()
	var c calls
	if err := json.Unmarshal([]byte(end.Message), &c); err != nil {
		t.Fatalf("last words %q: %v", end.Message, err)
	}
	return c
}

// callsOfClients is what the clients of the service have counted so far.
func callsOfClients(t *testing.T) calls {
	t.Helper()
	var c calls
	raw(t, &c, proxyPath(pods(t, "app=load")[0].Metadata.Name, 8080, "seen"))
	return c
}

// since returns what was counted after an earlier count.
func (c calls) since(before calls) calls {
	d := calls{c.Calls - before.Calls, c.Failed - before.Failed, make(map[string]int)}
	for text, n := range c.Errors {
		if n -= before.Errors[text]; n > 0 {
			d.Errors[text] = n
		}
	}
	return d
}

// proxyPath is where the API server hands on a GET to a pod.
func proxyPath(podName string, port int, path string) string {
	return space(namespace).proxyPath(podName, port, path)
}

func (s space) proxyPath(podName string, port int, path string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy/%s", s, podName, port, path)
}
