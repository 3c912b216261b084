// Package observe is `carpool observe`: what carpool would save, before anybody installs it. It looks at the TCP sockets of
// its network namespace, which is a pod's or a machine's, and touches no traffic.
//
// Connections that an app opens for one request are mostly too short to be found by looking. So the kernel is asked to
// tell of each socket that ends, and the looks between are for what stays open. Where the kernel does not tell, looks are
// all there is: what the app has closed shows in TIME_WAIT for a minute, and what the other side has closed is known only
// as a sum, from the kernel's counters. The report says which it was.
package observe

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const usage = `Usage:
  carpool observe [--for 60s] [--ports 80,8080] [--loopback] [--json]

It looks at the connections of the pod or machine it runs in for a while, and says what carpool would save. It needs no
privilege and no carpool in the pod:
  kubectl debug -it POD --image=IMAGE --target=CONTAINER -- /usr/local/bin/carpool observe

  --for DURATION  how long to look (default 60s); Ctrl-C ends it early
  --ports PORTS   the ports of plain HTTP; without it all are taken for that which are not known for something else
  --loopback      count connections inside the pod or machine too
  --json          print the report as JSON
`

// Exit codes, as the program has them.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

// options are what the command line asks for.
type options struct {
	duration time.Duration
	ports    []uint16 // none: see protocolOf
	loopback bool
	json     bool
}

// Run is the command: args are those behind its name. It returns the exit code. When ctx ends it reports what it has seen
// so far.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool observe: %v\n%s", err, usage)
		return exitUsage
	}
	fail := func(err error) int {
		fmt.Fprintf(stderr, "carpool observe: %v\n", err)
		return exitFault
	}
	from, err := open()
	if err != nil {
		return fail(err)
	}
	defer from.close()
	fmt.Fprintf(stderr, "carpool observe: looking for %v\n", o.duration)
	seen, err := watch(ctx, from, o.duration)
	if err != nil {
		return fail(err)
	}
	r := seen.report(o)
	r.Processes = processes("/proc")
	if o.json {
		err = json.NewEncoder(stdout).Encode(r)
	} else {
		err = r.write(stdout)
	}
	if err != nil {
		return fail(err)
	}
	return exitOK
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("observe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.DurationVar(&o.duration, "for", time.Minute, "")
	flags.BoolVar(&o.loopback, "loopback", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.Func("ports", "", func(v string) error {
		for entry := range strings.SplitSeq(v, ",") {
			p, err := strconv.ParseUint(strings.TrimSpace(entry), 10, 16)
			if err != nil || p == 0 {
				return fmt.Errorf("want ports from 1 to 65535 with commas between them, such as 80,8080")
			}
			o.ports = append(o.ports, uint16(p))
		}
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is no option", flags.Arg(0))
	case o.duration < time.Second:
		return o, fmt.Errorf("--for %v: want a second or more, such as 60s", o.duration)
	}
	return o, nil
}

// A source tells of the sockets of a network namespace.
type source interface {
	// look returns what there is now, and what has ended since the look before.
	look() (view, error)
	close()
}

const (
	// every is how long to wait between two looks, at least.
	every = 100 * time.Millisecond
	// restful times as long as a look took is waited before the next: looking takes a twentieth of a processor at most.
	restful = 19
)

// watch looks again and again, for so long or until ctx ends.
func watch(ctx context.Context, from source, d time.Duration) (*tally, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	t := newTally(time.Now())
	for {
		begin := time.Now()
		v, err := from.look()
		if err != nil {
			return nil, err
		}
		t.add(begin, v)
		if ctx.Err() != nil {
			return t, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(every, restful*time.Since(begin))):
		}
	}
}
