package clients

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// costRounds is how often TestPreloadCost measures.
var costRounds = flag.Int("cost-rounds", 0, "measure the cost of calls, so many times (0: not at all)")

const (
	costCalls       = 3000
	costConcurrency = 8
)

// A costing is a program whose calls are measured, in the ways that it has.
type costing struct {
	node            int
	library, scheme string
}

// costings returns all of them.
func costings() (all []costing) {
	for _, node := range []int{12, 18} {
		for _, scheme := range []string{"http", "https"} {
			for _, library := range []string{"core", "axios-0.21"} {
				all = append(all, costing{node, library, scheme})
			}
		}
	}
	return all
}

// A way is a way to run programs/cost.js. The first is what the others are compared
// with.
type way struct {
	name           string
	proxy, preload bool
}

var ways = []way{
	{name: "alone, no keep-alive"},
	{name: "with carpool, preloaded", proxy: true, preload: true},
}

// TestPreloadCost measures the CPU time that a call costs an app that opens a
// connection per request, and carpool where it is in between. The ways take
// turns, so that each round yields ratios of its own; what counts is their
// median.
func TestPreloadCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("make bench-preload runs it")
	}
	files, err := makeTLSFiles()
	if err != nil {
		t.Fatal(err)
	}
	proxy := startCarpool(t)
	urls := map[string]string{
		"http":  fmt.Sprintf("http://%s/echo?tag=a&n=1", address(startNginx(t, "").port)),
		"https": fmt.Sprintf("https://%s/echo?tag=a&n=1", address(startNginx(t, files.server).port)),
	}
	all := costings()
	spent := make([]spending, len(all))
	for round := range *costRounds {
		for i, c := range all {
			if err := spent[i].round(t, c, round, proxy, urls[c.scheme]); err != nil {
				t.Fatalf("Node.js %d, %s, %s: %v", c.node, c.library, c.scheme, err)
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("%d calls, %d at a time, %d rounds; load %s", costCalls, costConcurrency, *costRounds, load)
	for i, c := range all {
		t.Logf("Node.js %d, %s, %s:", c.node, c.library, c.scheme)
		spent[i].log(t)
	}
}

// spending is what the calls of a program cost, in µs a call, by way and round.
type spending struct {
	all   [][]float64
	share [][]float64 // carpool's part of it
}

// round measures all ways once.
func (s *spending) round(t *testing.T, c costing, round int, proxy *carpool, url string) error {
	if s.all == nil {
		s.all, s.share = make([][]float64, len(ways)), make([][]float64, len(ways))
	}
	for i := range ways {
		w := (i + round) % len(ways)
		app, carpool, err := ways[w].measure(t, c, proxy, url)
		if err != nil {
			return fmt.Errorf("%s: %w", ways[w].name, err)
		}
		s.all[w] = append(s.all[w], app+carpool)
		s.share[w] = append(s.share[w], carpool)
	}
	return nil
}

func (s *spending) log(t *testing.T) {
	for w, all := range s.all {
		ratios := make([]float64, len(all))
		for round := range all {
			ratios[round] = all[round] / s.all[0][round]
		}
		t.Logf("  %-24s %4.0f µs of CPU a call, %3.0f of them carpool's, %.2f × alone (%.2f to %.2f)", ways[w].name,
			median(all), median(s.share[w]), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
}

// measure returns the CPU time of a call in microseconds: the app's, and
// carpool's, which is 0 if the app does not go through it.
func (w way) measure(t *testing.T, c costing, proxy *carpool, url string) (app, carpool float64, err error) {
	plain, err := nodeProgram(c.node, "", "")(proxy.port)
	need(t, err)
	files, err := makeTLSFiles()
	if err != nil {
		return 0, 0, err
	}
	env := append([]string{"PATH=" + os.Getenv("PATH"), "NODE_EXTRA_CA_CERTS=" + files.ca}, plain.env...)
	if w.proxy {
		env = append(env, "HTTP_PROXY=http://"+address(proxy.port))
	}
	if w.preload {
		script, err := preloadScript()
		need(t, err)
		env = append(env, "NODE_OPTIONS=--require="+script, "CARPOOL_PRELOAD_HTTPS=true")
	}
	p := startProcess(t, env, plain.argv[0], filepath.Join("programs", "cost.js"), c.library, url, "a 1",
		fmt.Sprint(costCalls), fmt.Sprint(costConcurrency))
	if err := p.awaitFor(clientTimeout, p.stdout.skipLine); err != nil {
		return 0, 0, err
	}
	before, err := cpuTime(proxy.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		return 0, 0, err
	}
	<-p.exited
	after, err := cpuTime(proxy.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	var spent struct{ CPU float64 }
	if err := p.stdout.nextJSON(&spent); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, p.stderr.tail(1<<10))
	}
	if w.proxy {
		carpool = float64((after - before).Microseconds())
	}
	return spent.CPU / costCalls, carpool / costCalls, nil
}

// cpuTime returns what the threads of a process have run for.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, errors.Join(err, fmt.Errorf("no threads of process %d", pid))
	}
	var sum time.Duration
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err != nil {
			return 0, err
		}
		var ran time.Duration
		if _, err := fmt.Sscan(string(stat), &ran); err != nil {
			return 0, fmt.Errorf("%s: %w", task, err)
		}
		sum += ran
	}
	return sum, nil
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
