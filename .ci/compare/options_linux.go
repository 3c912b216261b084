package main

import (
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
)

// options is what the command line says.
type options struct {
	carpool   string // path of the binary; empty builds it
	also      []named
	only      []string // names of peers; empty is all
	workloads []workload
	rounds    int
	seconds   time.Duration // of each load in each round
	warm      time.Duration // before it
	settle    time.Duration // after which idle clients are looked at
	idle      []int         // how many idle clients there are, one after the other
	write     []string      // files to put the figures into
	noisy     bool          // go on where the machine is not quiet
	quick     bool
	cpus      placement
}

type named struct{ name, path string }

// placement says who runs where; nil sets leave it to the kernel.
type placement struct {
	proxy, load, upstream proc.Set
}

const usage = `compare runs carpool beside other proxies and prints how they compare.

  make compare COMPARE='OPTIONS'

CARPOOL in the environment names the binary; without it, it is built from the checkout.

`

func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{carpool: getenv("CARPOOL")}
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
		fmt.Fprint(stderr, "\nWorkloads:\n")
		for _, w := range workloads() {
			fmt.Fprintf(stderr, "  %-14s %s\n", w.name, w.title)
		}
	}
	f.BoolVar(&o.quick, "quick", false, "two rounds, a fraction of a second each, with HAProxy and Envoy: two minutes in all")
	f.Func("only", "`peers` beside carpool, such as haproxy,envoy; carpool alone for none (default: all on PATH)", func(s string) error {
		o.only = append(o.only, strings.Split(strings.ToLower(s), ",")...)
		return nil
	})
	var which, idle, cpus string
	f.StringVar(&which, "workload", "", "`names` of workloads, such as keepalive,close (default: all)")
	f.IntVar(&o.rounds, "rounds", 0, "`rounds` (default 7, or 2 with --quick)")
	seconds := f.Float64("seconds", 0, "`seconds` of each load in each round (default 2, or 0.15 with --quick)")
	f.StringVar(&idle, "idle", "", "`numbers` of idle clients (default 1000,5000)")
	f.StringVar(&cpus, "proxy-cpus", "", "`CPUs` that each proxy runs on, such as 0,1 (default: the first)")
	f.Func("also", "another carpool, `NAME=PATH`, such as an older build; may be repeated", func(s string) error {
		name, path, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PATH", s)
		}
		path, err := filepath.Abs(path)
		o.also = append(o.also, named{name, path})
		return err
	})
	f.Func("write", "put the figures into this `file`, between its markers; may be repeated", func(s string) error {
		o.write = append(o.write, s)
		return nil
	})
	f.BoolVar(&o.noisy, "noisy", false, "write the figures even if other programs took CPU")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no option", f.Arg(0))
	}
	return o, o.complete(which, idle, cpus, *seconds)
}

func (o *options) complete(which, idle, cpus string, seconds float64) error {
	defaults := options{rounds: 7, seconds: 2 * time.Second, warm: 300 * time.Millisecond, settle: 4 * time.Second, idle: []int{1000, 5000}}
	if o.quick {
		defaults = options{rounds: 2, seconds: 150 * time.Millisecond, warm: 30 * time.Millisecond,
			only: []string{"haproxy", "envoy", "direct"}, settle: 1500 * time.Millisecond, idle: []int{1000, 5000}}
	}
	o.warm, o.settle, o.idle = defaults.warm, defaults.settle, defaults.idle
	if len(o.only) == 0 {
		o.only = defaults.only
	}
	if o.rounds == 0 {
		o.rounds = defaults.rounds
	}
	if o.seconds = time.Duration(seconds * float64(time.Second)); seconds == 0 {
		o.seconds = defaults.seconds
	}
	if o.rounds < 1 || o.seconds <= 0 {
		return fmt.Errorf("--rounds and --seconds have to be more than 0")
	}
	for _, name := range o.only {
		known := name == "carpool" || name == "direct" || slices.ContainsFunc(others, func(p peer) bool { return p.program == name })
		if !known {
			return fmt.Errorf("--only %s: the peers are haproxy, envoy, nginx, squid and direct", name)
		}
	}
	if idle != "" {
		var err error
		if o.idle, err = numbers(idle); err != nil || len(o.idle) < 2 || !slices.IsSorted(o.idle) || o.idle[0] < 1 {
			return fmt.Errorf("--idle %s: it takes two numbers or more, in order", idle)
		}
	}
	if err := o.place(cpus); err != nil {
		return err
	}
	return o.choose(which)
}

func (o *options) choose(which string) error {
	o.workloads = workloads()
	if which == "" {
		return nil
	}
	var chosen []workload
	for name := range strings.SplitSeq(which, ",") {
		i := slices.IndexFunc(o.workloads, func(w workload) bool { return w.name == name })
		if i < 0 {
			return fmt.Errorf("--workload %s: there is none of that name; --help lists them", name)
		}
		chosen = append(chosen, o.workloads[i])
	}
	o.workloads = chosen
	return nil
}

// place shares the CPUs out: the first is the proxy's, unless cpus names others. Of the rest, upstream and load get one
// each, or share the only one.
func (o *options) place(cpus string) error {
	allowed, err := proc.Allowed()
	if err != nil {
		return err
	}
	if cpus != "" {
		if o.cpus.proxy, err = numbers(cpus); err != nil {
			return fmt.Errorf("--proxy-cpus %s: %w", cpus, err)
		}
		for _, cpu := range o.cpus.proxy {
			if !slices.Contains(allowed, cpu) {
				return fmt.Errorf("--proxy-cpus %s: this program may use %v", cpus, allowed)
			}
		}
	} else if len(allowed) > 1 {
		o.cpus.proxy = allowed[:1]
	}
	rest := slices.DeleteFunc(slices.Clone(allowed), func(cpu int) bool { return slices.Contains(o.cpus.proxy, cpu) })
	switch len(rest) {
	case 0:
		o.cpus.load, o.cpus.upstream = allowed, allowed
	case 1:
		o.cpus.load, o.cpus.upstream = rest, rest
	default:
		o.cpus.load, o.cpus.upstream = rest[:1], rest[1:2]
	}
	return nil
}

func numbers(s string) ([]int, error) {
	var all []int
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}
