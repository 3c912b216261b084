package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
)

const (
	readyEvery   = 10 * time.Millisecond // between two questions
	readyTimeout = 4 * time.Second       // of one
)

// runReady is `carpool ready [--wait DURATION]`: it asks the carpool that has
// the same environment, in the same pod, whether it serves, and says so by its
// exit code. It is a probe that needs no shell, and that nothing between the
// kubelet and the pod can get hold of: service meshes send probes of other kinds
// by way of containers of their own, which start later.
func runReady(ctx context.Context, args, environ []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("ready", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	wait := flags.Duration("wait", 0, "")
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is no option", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool ready: %v\nUsage: carpool ready [--wait DURATION]\n", err)
		return ExitUsage
	}
	cfg, _, err := config.Load(environ)
	if err != nil {
		return exitCode(settingsError{err}, stderr)
	}
	return exitCode(awaitReady(ctx, cfg.AdminListen, *wait), stderr)
}

// awaitReady asks once, and then again and again for as long as it may wait. It
// returns the last answer.
func awaitReady(ctx context.Context, adminListen string, wait time.Duration) error {
	client := admin.Client(adminListen, readyTimeout)
	ask := func() error {
		response, err := client.Get("http://localhost/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if !pause(ctx, readyEvery) {
			return fmt.Errorf("not ready: %w", err)
		}
	}
}
