package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/report"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	// SIGPIPE, too: whoever reads the output may leave before the end.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the program: the table goes to stdout, progress to stderr. It returns 0, 1 if something could not be measured,
// or 2 if what is asked for makes no sense.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 2
	}
	b, err := prepare(ctx, o, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 1
	}
	defer b.close()
	began := time.Now()
	failed := b.all(ctx)
	r := b.report()
	fmt.Fprint(stdout, r.Figures())
	if failed != nil {
		if ctx.Err() != nil {
			failed = errors.New("interrupted")
		}
		fmt.Fprintf(stderr, "compare: %v; the figures are of what was measured until then\n", failed)
		return 1
	}
	fmt.Fprintf(stderr, "It took %v.\n", time.Since(began).Round(time.Second))
	for _, path := range o.write {
		if err := report.Rewrite(path, map[string]string{"figures": r.Figures(), "summary": r.Summary()}); err != nil {
			fmt.Fprintln(stderr, "compare:", err)
			return 1
		}
	}
	return 0
}
