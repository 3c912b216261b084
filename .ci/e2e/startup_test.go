package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// starts has the moment at which each container was started. Kubernetes tells
// it in whole seconds; containerd's events have more digits.
type starts struct {
	mu sync.Mutex
	at map[string]time.Time // by container ID
}

// startEvent is a line of `ctr events` about a started process.
var startEvent = regexp.MustCompile(`^(\S+ \S+ \S+) \S+ \S+ /tasks/start \{"container_id":"([0-9a-f]+)"`)

// watchStarts listens to containerd, reached by the command in E2E_CTR, until
// the test ends.
func watchStarts(t *testing.T) *starts {
	t.Helper()
	ctr := strings.Fields(os.Getenv("E2E_CTR"))
	if len(ctr) == 0 {
		t.Fatal("E2E_CTR is not set: run .ci/e2e/run")
	}
	cmd := exec.Command(ctr[0], append(ctr[1:], "events")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &starts{at: make(map[string]time.Time)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.note(lines.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return s
}

func (s *starts) note(line string) {
	m := startEvent.FindStringSubmatch(line)
	if m == nil {
		return
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700", m[1])
	if err != nil {
		return // of waits in vain, and says so
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[m[2]] = at
}

// of returns when a container of a pod was started.
func (s *starts) of(t *testing.T, p pod, name string) time.Time {
	t.Helper()
	_, id, _ := strings.Cut(p.status(name).ContainerID, "://")
	var at time.Time
	eventually(t, "containerd tells when "+name+" of "+p.Metadata.Name+" started", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		var ok bool
		at, ok = s.at[id]
		return ok
	})
	return at
}

// serving returns when carpool wrote that it serves. It writes that when
// /readyz says 200.
func serving(t *testing.T, p pod) time.Time {
	t.Helper()
	for line := range strings.Lines(kubectl(t, "logs", p.Metadata.Name, "--container", "carpool")) {
		var entry struct {
			Msg string
			TS  time.Time
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
			return entry.TS
		}
	}
	t.Fatalf("%s: carpool's log does not say that it serves", p.Metadata.Name)
	return time.Time{}
}

// resident returns what carpool says of its own memory, in bytes: with the
// pages of the binary, which a working set has only if this container was the
// first to read them.
func resident(t *testing.T, podName string) int {
	t.Helper()
	for line := range strings.Lines(kubectl(t, "get", "--raw", proxyPath(podName, 9128, "metrics"))) {
		if value, ok := strings.CutPrefix(line, "process_resident_memory_bytes "); ok {
			bytes, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(bytes)
		}
	}
	t.Fatalf("%s: no process_resident_memory_bytes", podName)
	return 0
}

// workingSet returns the memory of a container as the kubelet counts it, in
// bytes.
func workingSet(t *testing.T, podName, containerName string) int {
	t.Helper()
	var nodes struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	get(t, &nodes, "nodes")
	var summary struct {
		Pods []struct {
			PodRef     struct{ Name, Namespace string }
			Containers []struct {
				Name   string
				Memory struct{ WorkingSetBytes int }
			}
		}
	}
	bytes := 0
	eventually(t, "the kubelet has measured "+podName, func() bool {
		raw(t, &summary, "/api/v1/nodes/"+nodes.Items[0].Metadata.Name+"/proxy/stats/summary?only_cpu_and_memory=true")
		for _, p := range summary.Pods {
			for _, c := range p.Containers {
				if p.PodRef.Name == podName && p.PodRef.Namespace == namespace && c.Name == containerName {
					bytes = c.Memory.WorkingSetBytes
				}
			}
		}
		return bytes > 0
	})
	return bytes
}
