// Package demo is the command `carpool demo`: a newcomer sees on one machine, with
// nothing installed and no network, what a pool of connections saves a client that
// opens a new one for every request.
//
// Client, carpool and upstream all run on loopback. What a network would add is
// simulated in one place, the upstream's listener (see distance), so that the
// client that asks directly and carpool pay exactly the same for a connection.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// Exit codes of Run.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// lookupTime is what the simulated name look-up costs before each new connection:
// about what a cluster's DNS takes to answer.
const lookupTime = 2 * time.Millisecond

// Defaults and limits of the flags. Node does its work on one core: fewer requests at
// a time keep that core from being what is measured, and fewer in all, the command
// under ten seconds.
const (
	defaultRequests        = 2000
	defaultNodeRequests    = 500
	maxRequests            = 100_000
	defaultConcurrency     = 20
	defaultNodeConcurrency = 5
	maxConcurrency         = 500
	defaultRTT             = 5 * time.Millisecond
	maxRTT                 = time.Second
)

const usage = `usage: carpool demo [--requests N] [--concurrency C] [--rtt 5ms] [--node|--keep]

Shows what carpool saves a client that opens a new connection for each request.
Everything runs on this machine; the distance to the upstream is simulated.

  --requests N      requests per run (default 2000, with --node 500)
  --concurrency C   requests at the same time (default 20, with --node 5)
  --rtt DURATION    the simulated round trip, 0s to 1s (default 5ms)
  --node            the same with a real Node program, over http and https;
                    needs node, and axios or npm
  --keep            afterwards leave carpool running, to be tried with curl,
                    until Ctrl-C
`

// A Starter runs a whole carpool configured by environ, each entry NAME=value and
// nothing else set, with its log written to stderr. It returns once ctx is done and
// carpool has stopped: nil or ctx's error if all went well. An earlier return is a
// failure of carpool.
type Starter func(ctx context.Context, environ []string, stderr io.Writer) error

// options are the parsed flags.
type options struct {
	requests    int
	concurrency int
	rtt         time.Duration
	node        bool
	keep        bool
}

// Run is the command: args are what follows `carpool demo`, the report goes to
// stdout and what went wrong to stderr. It returns the exit code: 0 if every request
// was answered rightly, 1 if one was not, or the demo could not run, or ctx ended
// first, 2 for bad usage. Everything it started has ended when it returns.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer, start Starter) int {
	opts, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool demo: %v\n\n%s", err, usage)
		return exitUsage
	}
	play := runBuiltIn
	if opts.node {
		play = runNode
	}
	log := &tail{}
	err = play(ctx, opts, stdout, func(ctx context.Context, environ []string) error {
		return start(ctx, environ, log)
	})
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "carpool demo: stopped before it was finished")
		return exitFailed
	}
	fmt.Fprintf(stderr, "carpool demo: %v\n", err)
	if lines := log.String(); lines != "" {
		fmt.Fprintf(stderr, "the end of carpool's log:\n%s\n", strings.TrimRight(lines, "\n"))
	}
	return exitFailed
}

func parseOptions(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet("carpool demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&opts.requests, "requests", defaultRequests, "")
	flags.IntVar(&opts.concurrency, "concurrency", defaultConcurrency, "")
	flags.DurationVar(&opts.rtt, "rtt", defaultRTT, "")
	flags.BoolVar(&opts.node, "node", false, "")
	flags.BoolVar(&opts.keep, "keep", false, "")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if opts.node {
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["requests"] {
			opts.requests = defaultNodeRequests
		}
		if !given["concurrency"] {
			opts.concurrency = defaultNodeConcurrency
		}
	}
	switch {
	case flags.NArg() > 0:
		return opts, fmt.Errorf("unknown argument %q", flags.Arg(0))
	case opts.requests < 1 || opts.requests > maxRequests:
		return opts, fmt.Errorf("--requests must be from 1 to %d", maxRequests)
	case opts.concurrency < 1 || opts.concurrency > maxConcurrency:
		return opts, fmt.Errorf("--concurrency must be from 1 to %d", maxConcurrency)
	case opts.rtt < 0 || opts.rtt > maxRTT:
		return opts, fmt.Errorf("--rtt must be from 0s to %v", maxRTT)
	case opts.keep && opts.node:
		return opts, errors.New("--keep and --node do not go together")
	}
	return opts, nil
}

// runBuiltIn plays the built-in client, directly and then through carpool.
func runBuiltIn(ctx context.Context, opts options, stdout io.Writer, start starter) (err error) {
	far := distance{roundTrip: opts.rtt, lookup: lookupTime}
	server, err := startUpstream(far, nil)
	if err != nil {
		return err
	}
	defer server.close()
	// Carpool runs during both measurements, so that both have the same machine.
	car, err := startSidecar(ctx, start)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, car.stop()) }()

	reportIntroduction(stdout, opts, far)
	direct := legacyClient{dial: server.addr, host: server.addr, targetPrefix: "/"}
	proxied := legacyClient{dial: car.proxy, host: server.addr, targetPrefix: "http://" + server.addr + "/"}
	var outcomes [2]outcome
	for i, run := range []struct {
		name   string
		client legacyClient
	}{{"directly", direct}, {"through carpool", proxied}} {
		fmt.Fprintf(stdout, "Running %s ... ", run.name)
		opened := server.connections()
		outcomes[i] = play(ctx, opts, run.client.ask)
		outcomes[i].connections = server.connections() - opened
		if ctx.Err() != nil {
			fmt.Fprintln(stdout)
			return ctx.Err()
		}
		fmt.Fprintln(stdout, seconds(outcomes[i].took))
	}
	reportBuiltIn(stdout, outcomes[0], outcomes[1])
	if opts.keep {
		reportKeep(stdout, car, server)
		select {
		case <-ctx.Done():
		case <-car.ended:
		}
	}
	return failure(outcomes[0], outcomes[1])
}

// failure returns nil if no request of the outcomes failed.
func failure(outcomes ...outcome) error {
	failed, first := 0, ""
	for _, o := range outcomes {
		failed += o.failed
		if first == "" {
			first = o.firstFailure
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%s failed, the first by: %s", count(failed, "request"), first)
}

// newRunName returns a name that no other run has, so that an answer that belongs to
// another run is never taken for one of this one.
func newRunName() string { return strings.ToLower(rand.Text()[:8]) }
