package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/check"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/demo"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/inject"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/injector"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/observe"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/preload"
)

// Exit codes.
const (
	ExitOK    = 0
	ExitFault = 1 // something failed
	ExitUsage = 2 // bad arguments or settings
)

// Usage is what help says, and what follows a bad command.
const Usage = `carpool pools an app's outbound HTTP connections. Without a command it serves,
configured by environment variables only.

Usage:
  carpool                 serve until SIGTERM
  carpool demo            see what it does, in ten seconds and without a network
  carpool inject -f FILE  put the sidecar into Kubernetes manifests (see -h)
  carpool uninject -f FILE
                          take it out again
  carpool injector        be the admission webhook that does so in a cluster
  carpool config          print the settings in force
  carpool config --table  print the table of settings, in Markdown
  carpool check URL...    say what would become of requests, and why (see -h)
  carpool check --seen    print the hosts that the app has asked for
  carpool observe         look at a pod's connections, and say what carpool would
                          save (see -h); nothing needs to be installed for it
  carpool ready           say by the exit code whether the carpool of this pod serves
                          (--wait 60s: wait that long for it)
  carpool preload         print the script that makes Node.js use HTTP_PROXY
  carpool version
`

// Run is the program: args are those behind its name, environ are NAME=value. It
// serves, or carries out one command, and returns the exit code. It ends early
// when ctx does, as on SIGTERM. Run is for one call at a time: signals are the
// whole process's.
func Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "demo":
		return demo.Run(ctx, args, stdout, stderr, func(ctx context.Context, environ []string, stderr io.Writer) error {
			return serve(ctx, environ, stderr)
		})
	case command == "inject" || command == "uninject":
		return inject.Run(command, args, os.Stdin, stdout, stderr)
	case command == "injector":
		return injector.Run(ctx, args, environ, stdout, stderr)
	case command == "check":
		return check.Run(ctx, args, environ, stdout, stderr)
	case command == "observe":
		return observe.Run(ctx, args, stdout, stderr)
	case command == "ready":
		return runReady(ctx, args, environ, stderr)
	case command == "serve" && len(args) == 0:
		signal.Ignore(syscall.SIGPIPE) // whoever read the log has gone: no reason to go, too
		return exitCode(serve(ctx, environ, stderr), stderr)
	case command == "config" && len(args) == 0:
		return exitCode(printConfig(environ, stdout, stderr), stderr)
	case command == "config" && len(args) == 1 && args[0] == "--table":
		return exitCode(config.WriteTable(stdout), stderr)
	case command == "preload" && len(args) == 0:
		_, err := stdout.Write(preload.Script)
		return exitCode(err, stderr)
	case command == "version" && len(args) == 0:
		fmt.Fprintln(stdout, "carpool", version())
		return ExitOK
	case command == "help" || command == "-h" || command == "--help":
		fmt.Fprint(stdout, Usage)
		return ExitOK
	}
	fmt.Fprintf(stderr, "carpool: no such command or argument: %q\n\n%s", append([]string{command}, args...), Usage)
	return ExitUsage
}

// settingsError is what is wrong with the environment.
type settingsError struct{ error }

// exitCode reports err, if it is one, and turns it into an exit code.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return ExitOK
	}
	say(stderr, fmt.Sprintf("carpool: %v\n", err))
	if _, ok := err.(settingsError); ok {
		return ExitUsage
	}
	return ExitFault
}

// say writes a last word, and gives up after a moment if it is not read.
func say(stderr io.Writer, text string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = io.WriteString(stderr, text)
	}()
	select {
	case <-said:
	case <-time.After(time.Second):
	}
}

// warn names the unknown variables, where there is no log to do so.
func warn(stderr io.Writer, unknown []config.Unknown) {
	for _, u := range unknown {
		say(stderr, "carpool: warning: "+u.Warning()+"\n")
	}
}

func printConfig(environ []string, stdout, stderr io.Writer) error {
	cfg, unknown, err := config.Load(environ)
	warn(stderr, unknown)
	if err != nil {
		return settingsError{err}
	}
	return cfg.WriteEffective(stdout)
}

// buildVersion is set by the image's build, which has no repository to take a
// version from: -ldflags "-X …/program.buildVersion=1.2.3".
var buildVersion string

// version is what the build says of itself.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
