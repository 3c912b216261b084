package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

// scene is an upstream that moves, and pods that call it, in a namespace of
// its own.
type scene struct {
	space
	nameserver string // the Service of the load pods' own
	lives      *lives // of the upstream's pods
}

// Ways in which the pods of an upstream end, as manifests/moving/upstream.yaml
// has them.
type ending struct {
	End     string // see traffic/upstream.go
	PreStop int    // seconds in which a pod that ends serves on
}

var (
	dies   = ending{End: "dies"}
	drains = ending{End: "drains"}
	sleeps = ending{End: "dies", PreStop: 10}
)

// A load is pods that call an upstream.
type load struct {
	Name     string
	Image    string   // of carpool, "" if they call directly
	Settings []string // of carpool, such as IDLE_TIMEOUT=30s
	URL      string
	Rate     float64 // calls a second, of all pods together
	Pods     int
}

const (
	clusterIP = "http://upstream/"
	headless  = "http://headless:8080/"
	external  = "http://api.example.com/" // leads to the Service upstream
)

// newScene makes the namespace anew, with an upstream of so many pods.
func newScene(t *testing.T, name string, end ending, replicas int) *scene {
	t.Helper()
	s := &scene{space: space(name)}
	if _, err := command("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout", patience.String()); err != nil {
		t.Fatal(err)
	}
	s.kubectl(t, "create", "namespace", name)
	s.apply(t, "services", nil)
	s.nameserver = s.kubectl(t, "get", "service", "names", "--output", "jsonpath={.spec.clusterIP}")
	s.apply(t, "names", nil)
	s.apply(t, "upstream", map[string]string{
		"REPLICAS": strconv.Itoa(replicas),
		"END":      end.End,
		"PRESTOP":  strconv.Itoa(end.PreStop),
	})
	s.complete(t, "upstream")
	s.complete(t, "names")
	s.lives = watchLives(t, s.space, "app=upstream")
	return s
}

// apply creates what a file in manifests/moving describes, with values for its
// variables.
func (s *scene) apply(t *testing.T, name string, values map[string]string) {
	t.Helper()
	s.kubectl(t, "apply", "--filename", s.expanded(t, name, values))
}

func (s *scene) expanded(t *testing.T, name string, values map[string]string) (file string) {
	t.Helper()
	text, err := os.ReadFile("manifests/moving/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), name+".yaml")
	expanded := os.Expand(string(text), func(name string) string { return values[name] })
	if err := os.WriteFile(file, []byte(expanded), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// start lets loads begin, and returns when all their pods are ready.
func (s *scene) start(t *testing.T, loads ...load) {
	t.Helper()
	t.Cleanup(func() { // what is left to look at takes no CPU
		_, _ = command("kubectl", "--namespace", string(s.space), "delete", "deployment", "--selector", "role=load")
	})
	for _, l := range loads {
		file := s.expanded(t, "load", map[string]string{
			"NAME":       l.Name,
			"PODS":       strconv.Itoa(l.Pods),
			"URL":        l.URL,
			"RATE":       fmt.Sprint(l.Rate / float64(l.Pods)),
			"NAMESERVER": s.nameserver,
			"NAMESPACE":  string(s.space),
		})
		if l.Image != "" {
			args := []string{"inject", "-f", file, "--image", l.Image, "--pull-policy", "Never"}
			for _, setting := range l.Settings {
				args = append(args, "--set", setting)
			}
			injected, err := command("carpool", args...)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(injected), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.kubectl(t, "apply", "--filename", file)
	}
	for _, l := range loads {
		s.complete(t, l.Name)
	}
}

// seen returns what the pods of a load have seen so far.
func (s *scene) seen(t *testing.T, l load) record.Group {
	t.Helper()
	var g record.Group
	for _, p := range s.pods(t, "app="+l.Name) {
		var seen record.Seen
		s.raw(t, &seen, s.proxyPath(p.Metadata.Name, 8081, "seen"))
		g = append(g, seen)
	}
	return g
}

// calls waits until a load has made so many calls from now on.
func (s *scene) calls(t *testing.T, l load, n int) {
	t.Helper()
	made := func() int {
		g := s.seen(t, l)
		gets, _ := g.Counts("GET")
		posts, _ := g.Counts("POST")
		return gets + posts
	}
	before := made()
	eventually(t, fmt.Sprintf("%s has made %d calls", l.Name, n), func() bool { return made()-before >= n })
}

// reused returns how many connections the carpools of a load have opened, and
// how many exchanges were carried on one that was open already.
func (s *scene) reused(t *testing.T, l load) (opened, reused float64) {
	t.Helper()
	for _, p := range s.pods(t, "app="+l.Name) {
		if !p.injected() {
			continue
		}
		for line := range strings.Lines(s.kubectl(t, "get", "--raw", s.proxyPath(p.Metadata.Name, 9128, "metrics"))) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				continue // a comment, or a figure without labels
			}
			switch name, _, _ = strings.Cut(name, "{"); name {
			case "carpool_connections_opened_total":
				opened += n
			case "carpool_connections_reused_total":
				reused += n
			}
		}
	}
	return opened, reused
}

// questions returns what the pods of a load have asked their name server, by
// type and name.
func (s *scene) questions(t *testing.T, l load) map[string]int {
	t.Helper()
	var byClient map[string]map[string]int
	s.raw(t, &byClient, s.proxyPath(s.pods(t, "app=names")[0].Metadata.Name, 8081, "seen"))
	sum := make(map[string]int)
	for _, p := range s.pods(t, "app="+l.Name) {
		for question, n := range byClient[p.Status.PodIP] {
			sum[question] += n
		}
	}
	return sum
}

// scale changes the number of the upstream's pods, and returns when all are
// ready. Those that go away may still be there.
func (s *scene) scale(t *testing.T, replicas int) {
	t.Helper()
	s.kubectl(t, "scale", "deployment", "upstream", "--replicas", strconv.Itoa(replicas))
	eventually(t, fmt.Sprintf("the upstream has %d pods", replicas), func() bool {
		return len(s.lives.now()) == replicas
	})
}

// nameServer lets there be a name server, or none, and returns when that is so.
func (s *scene) nameServer(t *testing.T, up bool) {
	t.Helper()
	replicas := map[bool]string{true: "1", false: "0"}
	s.kubectl(t, "scale", "deployment", "names", "--replicas", replicas[up])
	s.complete(t, "names")
}

// life is what there is to know of a pod's life. Times are those at which they
// were heard of; those of what has not happened yet are zero.
type life struct {
	Name                  string
	Ready, Deleted, Ended time.Time
	ExitCode              int
}

// lives watches the lives of pods.
type lives struct {
	mu  sync.Mutex // guards all
	all map[string]*life
}

func watchLives(t *testing.T, s space, selector string) *lives {
	t.Helper()
	l := &lives{all: make(map[string]*life)}
	s.watch(t, selector, l.note)
	return l
}

func (l *lives) note(p pod) {
	now := time.Now()
	once := func(at *time.Time, is bool) {
		if is && at.IsZero() {
			*at = now
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.all[p.Metadata.Name]
	if one == nil {
		one = &life{Name: p.Metadata.Name}
		l.all[p.Metadata.Name] = one
	}
	once(&one.Ready, p.ready())
	once(&one.Deleted, p.Metadata.DeletionTimestamp != "")
	if end := p.status("upstream").State.Terminated; end != nil {
		once(&one.Ended, true)
		one.ExitCode = end.ExitCode
	}
}

// some returns the lives that are as asked.
func (l *lives) some(are func(life) bool) []life {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []life
	for _, one := range l.all {
		if are(*one) {
			some = append(some, *one)
		}
	}
	return some
}

// now returns the pods that requests may go to.
func (l *lives) now() []life {
	return l.some(func(one life) bool { return !one.Ready.IsZero() && one.Deleted.IsZero() })
}

// left waits for the end of all pods that are to go away, and returns them.
func (l *lives) left(t *testing.T) []life {
	t.Helper()
	var left []life
	eventually(t, "the pods that are to go away have ended", func() bool {
		left = l.some(func(one life) bool { return !one.Deleted.IsZero() })
		for _, one := range left {
			if one.Ended.IsZero() {
				return false
			}
		}
		return true
	})
	return left
}
