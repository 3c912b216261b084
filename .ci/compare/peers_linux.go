package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
)

// configs are the configurations of other proxies, as templates of a place.
//
//go:embed peers
var configs embed.FS

// A peer is a proxy that takes part.
type peer struct {
	name    string // as the table has it
	program string // to be found on PATH; or the path of a carpool
	config  string // in peers; empty for a carpool, which is told by environment variables
	args    []string
	version string
	drain   syscall.Signal // what it ends gracefully on
	// whole says that it takes URLs with https://, instead of having a port for upstreams with TLS.
	whole bool
	// cannot says what it does not do, by name of workload.
	cannot map[string]string
}

// direct stands for no proxy at all.
var direct = peer{name: "direct", cannot: map[string]string{
	"https": "the load speaks no TLS", "http2": "the load speaks no TLS", "hosts-10000": "there is nothing to keep",
	"idle": "no proxy", "start": "no proxy", "growth": "no proxy",
}}

const (
	noTunnel = "it has no CONNECT"
	noSecond = "it speaks HTTP/1.1 to upstreams"
)

// others are the proxies to compare with; CONFIG stands for the path of the configuration, THREADS for the number of
// CPUs.
var others = []peer{
	{name: "HAProxy", program: "haproxy", config: "haproxy.cfg", args: []string{"-db", "-f", "CONFIG"}, drain: syscall.SIGUSR1},
	{name: "Envoy", program: "envoy", config: "envoy.yaml", drain: syscall.SIGTERM,
		args: []string{"-c", "CONFIG", "--concurrency", "THREADS", "--disable-hot-restart", "-l", "error"}},
	{name: "nginx", program: "nginx", config: "nginx.conf", args: []string{"-c", "CONFIG", "-e", "stderr"}, drain: syscall.SIGQUIT,
		cannot: map[string]string{"connect": noTunnel, "inside": noTunnel, "http2": noSecond}},
	{name: "Squid", program: "squid", config: "squid.conf", args: []string{"-N", "-f", "CONFIG"}, drain: syscall.SIGTERM, whole: true,
		cannot: map[string]string{"http2": noSecond}},
}

func carpool(name, path string) peer {
	return peer{name: name, program: path, drain: syscall.SIGTERM, whole: true}
}

// askVersion returns what the program says of itself.
func askVersion(ctx context.Context, program string) string {
	for _, flag := range []string{"-v", "--version"} { // one that does not know it says so, and fails
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		out, _ := exec.CommandContext(ctx, program, flag).CombinedOutput()
		cancel()
		if v := versionIn(string(out)); v != "" {
			return v
		}
	}
	return "?"
}

var versions = regexp.MustCompile(`(?i)version:? (?:\w+/)?(\d+\.\d+(?:\.\d+)*)`)

// versionIn finds a program's version in what it says of itself.
func versionIn(said string) string {
	if found := versions.FindStringSubmatch(said); found != nil {
		return found[1]
	}
	return ""
}

// A place is where a process of a peer runs: what its configuration is made of.
type place struct {
	Dir                               string
	Plain, Secure, Second, Admin      string // addresses to listen at
	PlainPort, SecurePort, SecondPort int
	CA                                string // file of the authority that upstreams' certificates are from
	Threads, Files                    int
	Clients, Connections              int      // the most from clients, and on both sides
	Hosts                             []string // the upstreams
	User                              string   // to become; empty stays
}

// running is a process of a peer.
type running struct {
	*peer
	place
	process *proc.Process // nil of direct
}

func (r *running) pids() []int {
	if r.process == nil {
		return nil
	}
	return proc.Tree(r.process.PID())
}

func (r *running) alive() bool { return r.process == nil || r.process.Alive() }

func (r *running) kill() {
	if r.process != nil {
		r.process.Kill()
	}
}

// begin starts a process of the peer, which may not listen yet.
func (p *peer) begin(at place, cpus proc.Set) (*running, error) {
	r := &running{peer: p, place: at}
	argv, env := []string{p.program}, clean(os.Environ())
	if p.config == "" {
		env = append(env, "CARPOOL_LISTEN="+at.Plain, "CARPOOL_ADMIN_LISTEN="+at.Admin, "CARPOOL_CA_FILE="+at.CA)
	} else {
		path := filepath.Join(at.Dir, p.config)
		if err := render(p.config, at, path); err != nil {
			return nil, err
		}
		for _, arg := range p.args {
			argv = append(argv, strings.NewReplacer("CONFIG", path, "THREADS", fmt.Sprint(at.Threads)).Replace(arg))
		}
	}
	var err error
	r.process, err = proc.Begin(proc.Start{Argv: argv, Env: env, Dir: at.Dir, CPUs: cpus})
	return r, err
}

// listening waits until the process takes connections.
func (r *running) listening(ctx context.Context) error {
	if r.process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("it does not listen after 20 s"))
	defer cancel()
	for {
		c, err := net.Dial("tcp", r.Plain)
		if err == nil {
			r.resolve()
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return r.process.Failure(context.Cause(ctx).Error())
		case <-r.process.Exited():
			return r.process.Failure("it ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// resolve takes the program behind a script that leads to it (pyenv), whose start is not to be measured.
func (r *running) resolve() {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.process.PID()))
	if err == nil && r.config != "" && filepath.Base(exe) == filepath.Base(r.program) {
		r.peer.program = exe
	}
}

func render(config string, at place, path string) error {
	t, err := template.ParseFS(configs, "peers/"+config)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, at), f.Close())
}

// clean drops what would change a proxy's behaviour.
func clean(env []string) []string {
	var kept []string
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "CARPOOL"), strings.HasSuffix(strings.ToLower(name), "_proxy"),
			name == "GOMAXPROCS", name == "GOGC", name == "GOMEMLIMIT", name == "GODEBUG", name == roleVariable:
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// unprivileged is the user that Squid becomes where it is started by root.
func unprivileged() string {
	if os.Geteuid() != 0 {
		return ""
	}
	if _, err := user.Lookup("proxy"); err == nil {
		return "proxy"
	}
	return "nobody"
}
