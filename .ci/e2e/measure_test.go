package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/e2e/internal/record"
)

// A measurement is a case of the table: an upstream, the calls to it, and what
// happens to it meanwhile.
type measurement struct {
	name     string
	end      ending
	replicas int
	rate     float64 // calls a second for each of urls, of all pods together
	pods     int     // for each of urls
	urls     []string
	story    func(*testing.T, *scene, *result)
}

// result is what was measured in a case, with one way of calling.
type result struct {
	Case, Way string
	Marks     map[string]time.Time // what the story did, and when
	Loads     []loadResult
	Pods      []life // of the upstream

	// Busy is the part of this machine's CPU time in which it did something,
	// others' work included; zero if that is not known.
	Busy float64
}

type loadResult struct {
	URL            string
	Rate           float64
	Seen           record.Group
	Opened, Reused float64        // of all pods' carpools, since their start
	Questions      map[string]int // by type and name, since the start
}

func (r *result) mark(name string) { r.Marks[name] = time.Now() }

// wait returns so long after a mark.
func (r *result) wait(mark string, d time.Duration) { time.Sleep(time.Until(r.Marks[mark].Add(d))) }

func measurements() []measurement {
	both := []string{clusterIP, headless}
	all := []measurement{
		{"outage", drains, 3, 50, 1, both, outage},
		{"external", drains, 3, 50, 1, []string{external}, steady},
		{"roll-dies", dies, 3, 50, 1, both, rolls},
		{"roll-drains", drains, 3, 50, 1, both, rolls},
		{"roll-sleeps", sleeps, 3, 50, 1, both, rolls},
	}
	for _, rate := range []float64{50, 10, 300} {
		for _, pods := range []int{1, 5} {
			all = append(all, measurement{fmt.Sprintf("scale-%v-%d", rate, pods), drains, 2, rate, pods, both, scaled})
		}
	}
	return all
}

// scaled is a Deployment of 2, then 6, then 3 pods.
func scaled(t *testing.T, s *scene, r *result) {
	r.wait("begin", 30*time.Second)
	r.mark("grow")
	s.scale(t, 6)
	r.mark("grown")
	r.wait("grown", 90*time.Second)
	r.mark("shrink")
	s.scale(t, 3)
	s.lives.left(t)
	r.wait("shrink", 60*time.Second)
}

// rolls is two rolling updates.
func rolls(t *testing.T, s *scene, r *result) {
	r.wait("begin", 15*time.Second)
	r.mark("roll")
	for range 2 {
		s.kubectl(t, "rollout", "restart", "deployment/upstream")
		s.complete(t, "upstream")
		r.mark("rolled")
		r.wait("rolled", 15*time.Second)
	}
}

// outage is half a minute without a name server.
func outage(t *testing.T, s *scene, r *result) {
	r.wait("begin", 30*time.Second)
	r.mark("away")
	s.nameServer(t, false)
	r.wait("away", 30*time.Second)
	r.mark("back")
	s.nameServer(t, true)
	r.wait("back", 30*time.Second)
}

// steady is two minutes in which nothing happens.
func steady(_ *testing.T, _ *scene, r *result) {
	r.wait("begin", 2*time.Minute)
}

// TestMeasure is what .ci/e2e/measure runs. It asserts nothing.
func TestMeasure(t *testing.T) {
	folder := os.Getenv("CARPOOL_MEASURE")
	if folder == "" {
		t.Skip("needs a cluster and an hour: .ci/e2e/measure says what it wants")
	}
	t.Cleanup(func() { // after the parallel ones
		if err := report(folder); err != nil {
			t.Error(err)
		}
	})
	ways := append([]string{"direct="}, strings.Fields(os.Getenv("CARPOOL_MEASURE_WAYS"))...)
	for _, m := range measurements() {
		for _, way := range ways {
			name, carpool, ok := strings.Cut(way, "=")
			if !ok {
				t.Fatalf("%q: want NAME=IMAGE", way)
			}
			file := filepath.Join(folder, m.name+"."+name+".json")
			t.Run(m.name+"."+name, func(t *testing.T) {
				t.Parallel()
				if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
					t.Logf("%s is there: %v", file, err)
					return
				}
				text, err := json.Marshal(m.take(t, name, strings.Split(carpool, ",")))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// take measures a case, with an image of carpool and its settings.
func (m measurement) take(t *testing.T, way string, carpool []string) *result {
	s := newScene(t, "carpool-measure-"+m.name+"-"+way, m.end, m.replicas)
	t.Cleanup(func() {
		_, _ = command("kubectl", "delete", "namespace", string(s.space), "--wait=false")
	})
	var loads []load
	for n, url := range m.urls {
		loads = append(loads, load{Name: fmt.Sprintf("load-%d", n), Image: carpool[0], Settings: carpool[1:],
			URL: url, Rate: m.rate, Pods: m.pods})
	}
	s.start(t, loads...)
	r := &result{Case: m.name, Way: way, Marks: make(map[string]time.Time)}
	cpu := cpuTime()
	r.mark("begin")
	m.story(t, s, r)
	r.mark("end")
	r.Busy = cpuTime().busySince(cpu)
	for _, l := range loads {
		one := loadResult{URL: l.URL, Rate: l.Rate, Seen: s.seen(t, l), Questions: s.questions(t, l)}
		one.Opened, one.Reused = s.reused(t, l)
		r.Loads = append(r.Loads, one)
	}
	r.Pods = s.lives.some(func(life) bool { return true })
	return r
}

// cpuTimes is what /proc/stat has of all processors together, in ticks; zero on
// machines that have none.
type cpuTimes struct{ busy, idle float64 }

func cpuTime() cpuTimes {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	var c cpuTimes
	for n, field := range strings.Fields(line) {
		ticks, err := strconv.ParseFloat(field, 64)
		switch {
		case err != nil: // "cpu"
		case n == 4 || n == 5: // idle, and idle while a disk works
			c.idle += ticks
		default:
			c.busy += ticks
		}
	}
	return c
}

func (c cpuTimes) busySince(before cpuTimes) float64 {
	busy, idle := c.busy-before.busy, c.idle-before.idle
	return busy / max(busy+idle, 1)
}
