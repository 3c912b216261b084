// Package check is `carpool check`: questions to the carpool that runs in the same pod, with the same environment.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

const usage = `Usage:
  carpool check --seen  print the hosts that the app has asked for as CARPOOL_ALLOW_HOSTS
                        (--json: print their ports too, as JSON)

It asks the carpool of this pod: kubectl exec POD -c carpool -- carpool check --seen
`

// Exit codes, as the program has them.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

// timeout is how long the carpool that is asked may take.
const timeout = 5 * time.Second

// options are what the command line asks for.
type options struct{ seen, json bool }

// Run is the command: args are those behind its name, environ are NAME=value. It returns the exit code.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool check: %v\n%s", err, usage)
		return exitUsage
	}
	cfg, _, err := config.Load(environ)
	if err != nil {
		fmt.Fprintf(stderr, "carpool check: %v\n", err)
		return exitUsage
	}
	if err := seenHosts(ctx, asked{cfg.AdminListen}, o.json, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "carpool check: %v\n", err)
		return exitFault
	}
	return exitOK
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&o.seen, "seen", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is no option", flags.Arg(0))
	case !o.seen:
		return o, errors.New("it is not said what to check")
	}
	return o, nil
}

// asked is the carpool that runs, by its admin listener.
type asked struct{ listen string }

// get reads what is at a path of the admin listener, as JSON, into v.
func (a asked) get(ctx context.Context, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	answer, err := admin.Client(a.listen, timeout).Do(r)
	if err != nil {
		return fmt.Errorf("the carpool at %s (CARPOOL_ADMIN_LISTEN) cannot be asked: %w", a.listen, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of what listens at %s (CARPOOL_ADMIN_LISTEN) is answered %s: is it a carpool, of the same version?", path, a.listen, strings.TrimSpace(answer.Status))
	}
	if err := json.NewDecoder(answer.Body).Decode(v); err != nil {
		return fmt.Errorf("the answer of %s (CARPOOL_ADMIN_LISTEN) to %s cannot be read: %w", a.listen, path, err)
	}
	return nil
}
