package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
	"github.com/carpoolproxy/carpool/ci/compare/internal/upstream"
)

// Load and upstreams are processes of their own, of this same program: their CPU time is accounted apart, and they run on
// CPUs of their own. roleVariable says which one a process is.
const roleVariable = "COMPARE_ROLE"

// play is what a process in a role does.
func play(role string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ready := func() { fmt.Fprintln(stdout, "ready") }
	var err error
	switch role {
	case "load":
		quiet()
		err = load.Serve(stdin, stdout)
	case "plain":
		quiet()
		err = upstream.Plain(netip.MustParseAddrPort(args[0]), ready)
	case "secure":
		err = upstream.Secure(args[0], args[1], args[2], ready)
	case "second":
		err = upstream.Second(args[0], args[1], args[2], ready)
	default:
		err = fmt.Errorf("there is no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// quiet keeps the runtime out of an event loop. What the loops allocate while they run is little.
func quiet() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(2 << 30)
	runtime.LockOSThread()
}

// as starts a process of this program in a role.
func as(role string, cpus proc.Set, wire func(*exec.Cmd) error, args ...string) (*proc.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// asyncpreemptoff: the runtime's monitor would interrupt a loop that waits in the kernel.
	env := append(clean(os.Environ()), roleVariable+"="+role, "GOMAXPROCS=1", "GOGC=400", "GODEBUG=asyncpreemptoff=1")
	return proc.Begin(proc.Start{Argv: append([]string{self}, args...), Env: env, CPUs: cpus, Wire: wire})
}

// startUpstream starts an upstream and waits until it takes connections.
func startUpstream(role string, cpus proc.Set, args ...string) (*proc.Process, error) {
	var out io.Reader
	p, err := as(role, cpus, func(cmd *exec.Cmd) (err error) {
		out, err = cmd.StdoutPipe()
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.Kill()
		return nil, p.Failure(fmt.Sprintf("the %s upstream did not start: %q, %v", role, line, err))
	}
	return p, nil
}

// A generator is a load in a process of its own.
type generator struct {
	process *proc.Process
	in      io.WriteCloser
	out     *bufio.Reader
	stop    func() bool
}

// startLoad starts one; it ends when ctx does.
func startLoad(ctx context.Context, cpus proc.Set, spec load.Spec) (*generator, error) {
	g := &generator{}
	p, err := as("load", cpus, func(cmd *exec.Cmd) (err error) {
		if g.in, err = cmd.StdinPipe(); err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		g.out = bufio.NewReader(out)
		return err
	})
	if err != nil {
		return nil, err
	}
	g.process = p
	g.stop = context.AfterFunc(ctx, p.Kill)
	return g, json.NewEncoder(g.in).Encode(spec)
}

// do carries out a command; done is called as soon as it is.
func (g *generator) do(c load.Command, done func()) (*load.Result, error) {
	if err := json.NewEncoder(g.in).Encode(c); err != nil {
		return nil, g.process.Failure("the load ended: " + err.Error())
	}
	if line, err := g.out.ReadString('\n'); line != "done\n" {
		return nil, g.process.Failure(fmt.Sprintf("the load ended: %q, %v", line, err))
	}
	done()
	line, err := g.out.ReadBytes('\n')
	if err != nil {
		return nil, g.process.Failure("the load ended: " + err.Error())
	}
	r := &load.Result{}
	return r, json.Unmarshal(line, r)
}

func (g *generator) close() {
	g.stop()
	g.process.Kill()
}
