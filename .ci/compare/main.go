// Command compare measures what carpool spends on a request, beside HAProxy that does
// the same in the same minute: plain HTTP from the client, TLS 1.3 to the upstream, on
// kept connections there. Both are given a port of loopback that leads to one upstream,
// which this program is, and so it is their clients.
//
//	go run . [-haproxy PATH] [-rounds 7] [-requests 20000]
//
// What counts is the ratio within a round: the speed of a machine drifts. A second
// carpool takes part; how far its ratio is from 1 is the noise.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// load is what clients do in a round.
type load struct {
	name  string
	size  int  // of answers, in bytes
	close bool // a connection for each request
	part  int  // of -requests, one in so many
}

var loads = []load{
	{"64 B, kept client connections", 64, false, 1},
	{"64 B, a connection for each request", 64, true, 2},
	{"64 KB, kept client connections", 64 << 10, false, 4},
}

// peer is a proxy.
type peer struct {
	name string
	addr string // where its clients connect
	cmd  *exec.Cmd
}

func main() {
	log.SetFlags(0)
	var (
		haproxy  = flag.String("haproxy", "haproxy", "HAProxy, 2.6 or later")
		binary   = flag.String("carpool", "", "carpool; empty: the one in this repository, built first")
		rounds   = flag.Int("rounds", 7, "rounds, in which all proxies take turns")
		requests = flag.Int("requests", 20000, "requests of a turn")
		clients  = flag.Int("clients", 16, "clients at a time")
	)
	flag.Parse()
	if err := run(*haproxy, *binary, *rounds, *requests, *clients); err != nil {
		log.Fatal("compare: ", err)
	}
}

func run(haproxy, binary string, rounds, requests, clients int) error {
	dir, err := os.MkdirTemp("", "carpool-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "carpool")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/carpoolproxy/carpool/cmd/carpool")
		build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building carpool: %w\n%s", err, out)
		}
	}
	up, err := serveUpstream(dir)
	if err != nil {
		return err
	}
	defer up.close()
	var peers []*peer
	defer func() {
		for _, p := range peers {
			p.stop()
		}
	}()
	for _, start := range []func() (*peer, error){
		func() (*peer, error) { return startCarpool("carpool", binary, up) },
		func() (*peer, error) { return startCarpool("carpool again", binary, up) },
		func() (*peer, error) { return startHAProxy(haproxy, dir, up) },
	} {
		p, err := start()
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	fmt.Printf("CPU of the proxy for a request, in µs, and carpool's part of another's: median of %d rounds (lowest to highest)\n", rounds)
	for _, l := range loads {
		if err := compare(peers, l, rounds, max(requests/l.part, clients), clients); err != nil {
			return err
		}
	}
	return nil
}

// compare prints what a load costs each proxy.
func compare(peers []*peer, l load, rounds, requests, clients int) error {
	cost := make([][]float64, len(peers))      // by peer and round
	for round := -1; round < rounds; round++ { // the first warms up
		for i := range peers {
			i = (i + max(round, 0)) % len(peers)
			n, err := peers[i].turn(l, requests, clients)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", l.name, peers[i].name, err)
			}
			if round >= 0 {
				cost[i] = append(cost[i], n)
			}
		}
	}
	fmt.Printf("\n%s\n", l.name)
	for i, p := range peers {
		ratios := make([]float64, rounds)
		for r := range ratios {
			ratios[r] = cost[0][r] / cost[i][r]
		}
		slices.Sort(ratios)
		fmt.Printf("  %-14s %7.1f", p.name, median(cost[i]))
		if i > 0 {
			fmt.Printf("   %.2f (%.2f to %.2f)", median(ratios), ratios[0], ratios[len(ratios)-1])
		}
		fmt.Println()
	}
	return nil
}

// median returns the middle of some numbers.
func median(all []float64) float64 {
	all = slices.SortedFunc(slices.Values(all), cmp.Compare)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// turn has clients do a load's requests, and returns the CPU time of each, in µs.
func (p *peer) turn(l load, requests, clients int) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := crowd(p.addr, l, requests, clients); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return float64((after - before).Nanoseconds()) / 1000 / float64(requests), err
}

func (p *peer) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// environment is this process's, but for what would change a proxy.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "CARPOOL_") || strings.HasPrefix(name, "GO") && name != "GOCOVERDIR"
	})
	return append(env, more...)
}
