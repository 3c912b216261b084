package e2e

import (
	"encoding/json"
	"os/exec"
	"sync"
	"testing"
)

// ends watches pods, to have the last state of those that are deleted: how
// their containers ended and what they said.
type ends struct {
	mu   sync.Mutex
	last map[string]pod // by UID
}

// watchEnds watches the pods with a label until the test ends.
func watchEnds(t *testing.T, selector string) *ends {
	t.Helper()
	e := &ends{last: make(map[string]pod)}
	space(namespace).watch(t, selector, func(p pod) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.last[p.Metadata.UID] = p
	})
	return e
}

// watch calls note with the pods that have a label, and again with each that
// has changed, until the test ends.
func (s space) watch(t *testing.T, selector string, note func(pod)) {
	t.Helper()
	cmd := exec.Command("kubectl", "--namespace", string(s), "get", "pods", "--selector", selector,
		"--watch", "--output", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d := json.NewDecoder(out); ; {
			var p pod
			if d.Decode(&p) != nil {
				return // killed below
			}
			note(p)
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
}

// of waits for the end of all containers of a pod, and returns its last state.
func (e *ends) of(t *testing.T, p pod) pod {
	t.Helper()
	var last pod
	eventually(t, "the containers of "+p.Metadata.Name+" have ended", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		last = e.last[p.Metadata.UID]
		return last.status("app").State.Terminated != nil &&
			(!last.injected() || last.status("carpool").State.Terminated != nil)
	})
	return last
}
