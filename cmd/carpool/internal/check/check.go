// Package check is `carpool check`: what carpool would make of a URL, and why, with the settings of this environment and
// with the very code that serves; and questions to the carpool that runs in the same pod.
//
// A check is a trip: it takes the legs of a request's way (trip.go has the list), each of which makes a Step of the
// report. A new leg is one line of that list.
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
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/outbound"
)

const usage = `Usage:
  carpool check [-v] [--json] URL...
                        say what would become of requests, and why: http://host/path,
                        https://host/path, or host:port for a CONNECT. It opens connections
                        as carpool does, and closes them.
                        -v: send a GET too, and show status and header fields of the answer
                        --json: print the report as JSON (docs/CHECK.md says what is in it)
  carpool check --seen  print the hosts that the app has asked for as CARPOOL_ALLOW_HOSTS
                        (--json: print their ports too, as JSON)

It has the settings of its environment, and asks the carpool of this pod:
kubectl exec POD -c carpool -- carpool check http://orders/
The exit code is 0 if all would work, 1 if not, 2 for bad arguments or settings.
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
type options struct {
	seen, json, verbose bool
	targets             []target
}

// Run is the command: args are those behind its name, environ are NAME=value. It returns the exit code.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	complain := func(err error) { fmt.Fprintf(stderr, "carpool check: %v\n", err) }
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		complain(err)
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	cfg, unknown, err := config.Load(environ)
	for _, u := range unknown {
		complain(errors.New("warning: " + u.Warning()))
	}
	if err != nil {
		complain(err)
		return exitUsage
	}
	if o.seen {
		if err := seenHosts(ctx, asked{cfg.AdminListen}, o.json, stdout, stderr); err != nil {
			complain(err)
			return exitFault
		}
		return exitOK
	}
	keeper, err := outbound.Files(cfg)
	userinfo, unread := outbound.Credentials(cfg)
	if err := errors.Join(err, unread); err != nil {
		complain(err)
		return exitUsage
	}
	with := wiring{cfg: cfg, certs: keeper.Set(), userinfo: userinfo}
	all := Reports{Works: true}
	for _, target := range o.targets {
		report, err := with.check(ctx, target, o.verbose)
		if err != nil {
			complain(err)
			return exitFault
		}
		if ctx.Err() != nil {
			complain(errors.New("interrupted"))
			return exitFault
		}
		all.add(report)
		if !o.json {
			writeText(stdout, report)
		}
	}
	if o.json {
		err = all.writeJSON(stdout)
	}
	if err != nil || !all.Works {
		return exitFault
	}
	return exitOK
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&o.seen, "seen", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.BoolVar(&o.verbose, "v", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.seen && flags.NArg() > 0:
		return o, fmt.Errorf("%q is no option of --seen", flags.Arg(0))
	case o.seen && o.verbose:
		return o, errors.New("-v is for URLs, and --seen takes none")
	case !o.seen && flags.NArg() == 0:
		return o, errors.New("it is not said what to check: give a URL")
	}
	for _, arg := range flags.Args() {
		t, err := parseTarget(arg)
		if err != nil {
			return o, err
		}
		o.targets = append(o.targets, t)
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
