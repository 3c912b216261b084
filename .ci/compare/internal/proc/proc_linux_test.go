package proc_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
)

func TestTheCPUClockOfAProcessMovesAsItWorks(t *testing.T) {
	before, err := proc.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var usage syscall.Rusage
	for spent := time.Duration(0); spent < 20*time.Millisecond; spent = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()) {
		for range 1_000_000 {
			_ = strings.Compare("a", "b")
		}
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
	}
	after, err := proc.CPU(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%v, then %v, %v", before, after, err)
	}
	if after > time.Duration(usage.Utime.Nano()+usage.Stime.Nano())+time.Minute {
		t.Errorf("%v is not what this process has run for", after)
	}
}

func TestAProcessStartsIsSeenAndEnds(t *testing.T) {
	cpus, err := proc.Allowed()
	if err != nil || len(cpus) == 0 {
		t.Fatalf("%v, %v", cpus, err)
	}
	p, err := proc.Begin(proc.Start{Argv: []string{"/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status; sleep 60"}, CPUs: cpus[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	for !strings.Contains(p.Said(), "Cpus_allowed_list") {
		if !p.Alive() {
			t.Fatal(p.Failure("it ended"))
		}
		time.Sleep(time.Millisecond)
	}
	if want := "\t" + cpus[:1].String(); !strings.HasSuffix(p.Said(), want) {
		t.Errorf("%q, not %q", p.Said(), want)
	}
	if !slices.Contains(proc.Tree(os.Getpid()), p.PID()) {
		t.Error("it is not among this process's children")
	}
	if pss, err := proc.PSS([]int{p.PID()}); err != nil || pss <= 0 {
		t.Errorf("PSS %d, %v", pss, err)
	}
	if u := proc.Used(proc.Tree(p.PID())); u.CPU <= 0 || u.Switches <= 0 {
		t.Errorf("%+v", u)
	}
	p.Kill()
	if p.Alive() {
		t.Error("it is still alive")
	}
}
