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
	costNode        = 12
	costCalls       = 3000
	costConcurrency = 8
)

// A setup is a way to run programs/cost.js.
type setup struct {
	name           string
	proxy, preload bool
}

var setups = []setup{
	{name: "alone, no keep-alive"},
	{name: "through carpool", proxy: true},
	{name: "through carpool, preloaded", proxy: true, preload: true},
}

// TestPreloadCost measures the CPU time that a call costs an app that opens a
// connection per request, and carpool where it is in between. The setups take
// turns, so that each round yields ratios of its own; what counts is their
// median.
func TestPreloadCost(t *testing.T) {
	if *costRounds == 0 {
		t.Skip("make bench-preload runs it")
	}
	proxy := startCarpool(t)
	up := startNginx(t, "")
	cost := make([][]float64, len(setups))  // µs a call, by setup and round
	share := make([][]float64, len(setups)) // carpool's part of it
	for round := range *costRounds {
		for i := range setups {
			s := (i + round) % len(setups)
			app, carpool, err := setups[s].measure(t, proxy, up)
			if err != nil {
				t.Fatalf("%s: %v", setups[s].name, err)
			}
			cost[s] = append(cost[s], app+carpool)
			share[s] = append(share[s], carpool)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("Node.js %d, axios 0.21, %d calls, %d at a time, %d rounds; load %s", costNode, costCalls, costConcurrency, *costRounds, load)
	for s, all := range cost {
		ratios := make([]float64, len(all))
		for round := range all {
			ratios[round] = all[round] / cost[0][round]
		}
		t.Logf("%-28s %4.0f µs of CPU a call, %3.0f of them carpool's, %.2f × alone (%.2f to %.2f)", setups[s].name,
			median(all), median(share[s]), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
}

// measure returns the CPU time of a call in microseconds: the app's, and
// carpool's, which is 0 if the app does not go through it.
func (s setup) measure(t *testing.T, proxy *carpool, up upstream) (app, carpool float64, err error) {
	plain, err := nodeProgram(costNode, "", "")(proxy.port)
	need(t, err)
	env := append([]string{"PATH=" + os.Getenv("PATH")}, plain.env...)
	if s.proxy {
		env = append(env, "HTTP_PROXY=http://"+address(proxy.port))
	}
	if s.preload {
		script, err := preloadScript()
		need(t, err)
		env = append(env, "NODE_OPTIONS=--require="+script)
	}
	url := fmt.Sprintf("http://%s/echo?tag=a&n=1", address(up.port))
	p := startProcess(t, env, plain.argv[0], filepath.Join("programs", "cost.js"), url, "a 1",
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
	if s.proxy {
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
