package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
	"github.com/carpoolproxy/carpool/ci/compare/internal/report"
)

// report is what was measured, for readers.
func (b *bench) report() *report.Report {
	r := &report.Report{Results: &b.results, Base: ours, Again: again, Head: b.head()}
	for _, p := range b.peers[2:] {
		if p.name == direct.name {
			r.Direct = p.name
		} else {
			r.Others = append(r.Others, p.name)
		}
	}
	for _, w := range b.workloads {
		for _, a := range w.asks {
			r.Loads = append(r.Loads, report.Load{Name: a.name, Title: a.title, Rated: a.rate > 0})
		}
	}
	return r
}

// head says on what, when and how everything was measured.
func (b *bench) head() []string {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // a machine without it has no name
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	allowed, _ := proc.Allowed()
	var versions []string
	for _, p := range b.peers[2:] {
		if p.version != "" {
			versions = append(versions, p.name+" "+p.version)
		}
	}
	head := []string{
		fmt.Sprintf("Measured on %s with `make compare`: %s, %d CPUs, Linux %s.", time.Now().UTC().Format("2 January 2006"),
			proc.ParseModel(cpuinfo), len(allowed), strings.TrimSpace(string(release))),
		fmt.Sprintf("%s beside %s.", b.ourVersion(), strings.Join(versions, ", ")),
		fmt.Sprintf("%d rounds, %v a load. %s", b.rounds, b.seconds, b.cpus),
		fmt.Sprintf("Before it began, other programs took %.0f %% of a core.", b.othersBefore),
	}
	if len(versions) == 0 {
		head[1] = b.ourVersion() + " alone."
	}
	return head
}

func (p placement) String() string {
	if p.proxy == nil {
		return "Everything shared one CPU: only CPU time and memory mean something."
	}
	return fmt.Sprintf("Each proxy ran on CPU %v, the load on %v, the upstream on %v; idle proxies, and those that "+
		"start, ran where the kernel put them.", p.proxy, p.load, p.upstream)
}

// ourVersion names carpool's commit, where it was built here.
func (b *bench) ourVersion() string {
	if b.carpool != "" {
		return "carpool (" + b.carpool + ")"
	}
	if root, err := checkout(); err == nil {
		cmd := exec.CommandContext(context.Background(), "git", "describe", "--always", "--dirty")
		cmd.Dir = root
		if out, err := cmd.Output(); err == nil {
			return "carpool " + strings.TrimSpace(string(out))
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "carpool " + info.Main.Version
	}
	return "carpool"
}
