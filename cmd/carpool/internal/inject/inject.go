// Package inject is the commands `carpool inject` and `carpool uninject`: they
// put the sidecar into the manifests of workloads, and take it out again,
// without a cluster.
//
// The result is that of the admission policy in charts/carpool, by the same
// definition of the sidecar. What is not changed stays as it is written, byte
// for byte: a diff shows what was injected.
package inject

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Exit codes of Run.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `usage: carpool inject -f FILE|- [options]
       carpool uninject -f FILE|-

inject puts the sidecar into the pods of a file, YAML or JSON, and gives their
containers the proxy variables: into every Pod, into what has its pod in
spec.template, whatever its kind, and into CronJobs, JobSets, ScaledJobs and
PodTemplates, also in a List. The result goes to stdout; all else in the file
stays as it is. To do it twice changes nothing. Containers that are passed over
are noted on stderr. uninject takes out what inject put in.

  -f FILE                   the manifests; - is stdin
  --image IMAGE             of the sidecar
                            (default ` + DefaultImage + `)
  --pull-policy POLICY      Always, IfNotPresent or Never (default IfNotPresent)
  --cpu-request QUANTITY    default 20m; for all four "" is none
  --cpu-limit QUANTITY      default none, or 100m in a pod all of whose other
                            containers have one
  --memory-request QUANTITY default 32Mi
  --memory-limit QUANTITY   default 128Mi
  --port PORT               of the proxy in the pod (default 3128)
  --admin-port PORT         of health and metrics (default 9128)
  --godebug LIST            GODEBUG of the sidecar, for old TLS: tlsrsakex=1
  --set NAME=VALUE          a setting of carpool, such as IDLE_TIMEOUT=30s; can be
                            given several times
  --no-proxy HOSTS          what is not sent through carpool, beside the list that
                            is always there: a.example.com,.b.example.com
  --skip NAMES              containers that get nothing: a,b
  --https                   set HTTPS_PROXY too. Clients that hand https URLs to
                            the proxy whole then leave TLS to carpool: private
                            authorities and client certificates of the app no
                            longer count for them
  --java                    set JAVA_TOOL_OPTIONS too
  --preload                 make Node.js programs use carpool that know no proxy
  --preload-https           the same for their https, whose certificates carpool
                            verifies then; --preload comes with it
  --secret NAME             a Secret of the pod's namespace, mounted in the sidecar at
                            /etc/carpool/secret, for settings that name files:
                            --set CA_FILE=/etc/carpool/secret/ca.crt
  --cache                   a volume for CACHE_DIR, so that carpool remembers its
                            upstreams when its container restarts
  --plain                   an ordinary container, for Kubernetes before 1.29
  --strict                  fail if containers are passed over, be it in a place
                            that inject does not know or in a Kustomize patch

A pod's annotations override the options, for example
  carpoolproxy.github.io/image: registry.example.com/carpool:1
  carpoolproxy.github.io/skip-containers: a,b
  settings.carpoolproxy.github.io/IDLE_TIMEOUT: 30s
and its label carpoolproxy.github.io/inject: "false" keeps carpool out.

Both are KRM functions too, for Kustomize and kpt: a ResourceList on stdin (-f -)
gives a ResourceList, with notes and errors among its results. A ConfigMap as
functionConfig overrides the options, with the keys that a namespace's ConfigMap
carpool has: image, cpuRequest, noProxy, settings, …, and plain and strict.
`

// Run is `carpool inject` or, with that as its name, `carpool uninject`: args
// are what follows the name, "-f -" reads stdin, the manifests go to stdout, and
// notes and errors to stderr. It returns the exit code: 0 if all went well, 1 if
// a file cannot be read or something in it is wrong, 2 for bad usage. Nothing is
// written to stdout unless it returns 0, with one exception: a ResourceList, by
// which Kustomize and kpt call functions, has the errors in it.
func Run(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	file, opts, err := parse(name, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "carpool %s: %v\nSee carpool %[1]s -h.\n", name, err)
		return exitUsage
	}
	in, err := read(file, stdin)
	if err != nil {
		fmt.Fprintf(stderr, "carpool %s: %v\n", name, err)
		return exitFailed
	}
	change := Inject
	if name == "uninject" {
		change = Uninject
	}
	if file == "-" {
		file = "stdin"
	}
	if l, ok := readResourceList(in); ok {
		return l.run(name, opts, stdout, stderr)
	}
	out, notes, err := change(in, opts)
	for _, note := range notes {
		fmt.Fprintf(stderr, "carpool %s: %s: %s\n", name, file, note)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "carpool %s: %s: %s\n", name, file, strings.TrimSuffix(line, "\n"))
		}
		return exitFailed
	}
	if _, err := stdout.Write(out); err != nil {
		fmt.Fprintf(stderr, "carpool %s: %v\n", name, err)
		return exitFailed
	}
	return exitOK
}

// rewriterOf returns what does one of the two commands.
func rewriterOf(name string, o Options) rewriter {
	if name == "uninject" {
		return rewriter{change: func(p pod) error { return p.uninject(o) }}
	}
	return rewriter{change: func(p pod) error { return p.inject(o) }, rest: true, strict: o.Strict}
}

// Inject returns a file of manifests with carpool in its pods. Everything else
// is as it was, to the byte. The notes are what the user should know, such as
// why a pod got none. The error has a line for each fault, with its place.
func Inject(in []byte, o Options) (out []byte, notes []string, err error) {
	r := rewriterOf("inject", o)
	out, err = r.rewrite(in)
	return out, r.notes, err
}

// Uninject returns a file of manifests without what [Inject] put in, with
// whatever options. Notes and error are as with Inject.
func Uninject(in []byte, o Options) (out []byte, notes []string, err error) {
	r := rewriterOf("uninject", o)
	out, err = r.rewrite(in)
	return out, r.notes, err
}

// parse reads the arguments.
func parse(name string, args []string) (file string, o Options, err error) {
	o = Defaults()
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("f", "", func(v string) error {
		if file != "" {
			return errors.New("give one file; put several together with cat, and --- between them")
		}
		file = v
		return nil
	})
	if name == "inject" {
		defineOptions(flags, &o)
	}
	if err := flags.Parse(args); err != nil {
		return "", o, err
	}
	switch {
	case flags.NArg() > 0:
		return "", o, fmt.Errorf("%q is no option: a file is given by -f FILE", flags.Arg(0))
	case file == "":
		return "", o, errors.New("give a file by -f FILE, or -f - for stdin")
	}
	return file, o, o.check()
}

// defineOptions defines a flag for each option.
func defineOptions(flags *flag.FlagSet, o *Options) {
	flags.BoolVar(&o.Plain, "plain", false, "")
	flags.BoolVar(&o.Strict, "strict", false, "")
	flags.Func("set", "", func(v string) error {
		name, value, ok := strings.Cut(v, "=")
		o.Settings[strings.TrimPrefix(name, settingPrefix)] = value
		return want(ok && name != "", "NAME=VALUE", v)
	})
	given := map[string]bool{}
	for _, opt := range options {
		set := func(v string) error {
			if given[opt.name] {
				return errors.New("given twice; put the entries of a list together with commas")
			}
			given[opt.name] = true
			if o.by == nil {
				o.by = map[string]string{}
			}
			o.by[opt.name] = prefix + opt.name
			return opt.set(o, v)
		}
		switch opt.name {
		case "https", "java", "preload", "preload-https", "cache":
			flags.BoolFunc(opt.name, "", set)
		case "skip-containers":
			flags.Func("skip", "", set)
		default:
			flags.Func(opt.name, "", set)
		}
	}
}

// read returns the content of a file, or of stdin for "-".
func read(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}
