package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

// image is the carpool that .ci/e2e/run brings to the node.
const image = repository + ":" + tag

// moves is what the steps share: an upstream that moves, and three that call
// it, fifty times a second.
type moves struct {
	*scene
	service, headless, directly load
}

func TestAnUpstreamThatMovesIsFollowedAndNoCallIsLost(t *testing.T) {
	if os.Getenv("CARPOOL_E2E") == "" {
		t.Skip("needs a cluster: .ci/e2e/run says what it wants")
	}
	m := &moves{
		service:  load{Name: "service", Image: image, URL: clusterIP, Rate: 50, Pods: 1},
		headless: load{Name: "headless", Image: image, URL: headless, Rate: 50, Pods: 1},
		directly: load{Name: "directly", URL: clusterIP, Rate: 50, Pods: 1},
	}
	// The Service has forgotten a pod before that refuses connections, which
	// would fail calls in any case.
	m.scene = newScene(t, "carpool-e2e-moving", ending{End: "drains", PreStop: 3}, 2)
	m.start(t, m.service, m.headless, m.directly)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"new pods get their share", m.grow},
		{"calls are carried on open connections all the same", m.reuse},
		{"without a name server no call fails", m.outage},
		{"pods that go away are left before they are killed", m.shrink},
		{"a rollout of an upstream that drains fails no call", m.rollOut},
	} {
		t.Run(step.name, step.run) // none builds on another
	}
}

// carried are the loads that call through carpool.
func (m *moves) carried() []load { return []load{m.service, m.headless} }

// grow gives the upstream four pods more. There is to be a time of half a
// minute in which each pod has a part of the calls, a tenth of a fair one at
// least and twice a fair one at most: behind a Service as well, where each
// connection leads to one pod, and the kernel chooses which.
func (m *moves) grow(t *testing.T) {
	m.scale(t, 6)
	for _, l := range m.carried() {
		seen, ok := m.shared(t, l)
		t.Logf("%s: 6 pods, shares%s", l.Name, shares(seen))
		if !ok {
			t.Errorf("%s: in no half minute of %v did each pod have a part", l.Name, sharing)
		}
	}
}

// sharing is how long it may take until all pods have had a part, for half a
// minute.
const sharing = 90 * time.Second

// shared waits for that, and returns what was seen at last.
func (m *moves) shared(t *testing.T, l load) (seen record.Window, ok bool) {
	t.Helper()
	for deadline := time.Now().Add(sharing); ; time.Sleep(time.Second) {
		now := time.Now()
		seen = m.seen(t, l).Window(now.Add(-30*time.Second), now)
		ok = len(seen.Answers) == 6
		for _, n := range seen.Answers {
			ok = ok && n <= seen.Calls/3 && n >= seen.Calls/60
		}
		if ok || now.After(deadline) {
			return seen, ok
		}
	}
}

// shares returns the shares of the pods, the largest first.
func shares(w record.Window) string {
	text := ""
	for _, n := range slices.Backward(slices.Sorted(maps.Values(w.Answers))) {
		text += fmt.Sprintf(" %.0f %%", 100*float64(n)/float64(max(w.Calls, 1)))
	}
	return text
}

func (m *moves) reuse(t *testing.T) {
	for _, l := range m.carried() {
		opened, reused := m.reused(t, l)
		t.Logf("%s: %.0f calls on open connections, %.0f connections opened", l.Name, reused, opened)
		if reused == 0 || opened > (opened+reused)/20 {
			t.Errorf("%s: not pooled", l.Name)
		}
	}
}

// outage takes the name server away for as long as 1,500 calls take, half a
// minute.
func (m *moves) outage(t *testing.T) {
	from := time.Now()
	m.nameServer(t, false)
	m.calls(t, m.service, 1500)
	m.nameServer(t, true)
	m.calls(t, m.service, 100)
	if m.failed(t, m.directly, from) == 0 {
		t.Error("without carpool no call failed either: this was no outage")
	}
	m.lost(t, from)
}

// shrink takes three of the six pods away. Soon they take no connection any
// more. In half a minute they are to end by themselves, which they do when the
// last connection is gone.
func (m *moves) shrink(t *testing.T) {
	from := time.Now()
	m.scale(t, 3)
	for _, one := range m.lives.left(t) {
		t.Logf("%s ended with %d after %v", one.Name, one.ExitCode, one.Ended.Sub(one.Deleted).Round(time.Second))
		if one.ExitCode != 0 {
			t.Errorf("%s was killed, with connections of a carpool or calls", one.Name)
		}
	}
	m.lost(t, from)
}

func (m *moves) rollOut(t *testing.T) {
	from := time.Now()
	m.kubectl(t, "rollout", "restart", "deployment/upstream")
	m.complete(t, "upstream")
	m.calls(t, m.service, 100)
	t.Logf("directly, %d calls failed", m.failed(t, m.directly, from))
	m.lost(t, from)
}

// lost checks that no call failed beside carpool since a time.
func (m *moves) lost(t *testing.T, from time.Time) {
	t.Helper()
	for _, l := range m.carried() {
		if n := m.failed(t, l, from); n > 0 {
			t.Errorf("%s: %d calls failed; of all: %v", l.Name, n, m.seen(t, l).Errors())
		}
	}
}

func (m *moves) failed(t *testing.T, l load, from time.Time) int {
	t.Helper()
	return m.seen(t, l).Window(from, time.Now()).Failed
}
