package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// axiosRelease is installed if the current directory has no axios: the last of 0.21,
// still widely deployed, which leaves https to the proxy.
const axiosRelease = "0.21.4"

// Limits on the waits for other programs.
const (
	installTimeout = time.Minute
	killTimeout    = 2 * time.Second
)

// nodeScript is the program that Node runs.
//
//go:embed demo.js
var nodeScript []byte

// nodeRun is one row of the table.
type nodeRun struct {
	name       string
	https      bool
	keepAlive  bool
	viaCarpool bool
}

var nodeRuns = []nodeRun{
	{name: "http, no keep-alive, directly"},
	{name: "http, keep-alive, directly", keepAlive: true},
	{name: "http, no keep-alive, via carpool", viaCarpool: true},
	{name: "https, no keep-alive, directly", https: true},
	{name: "https, keep-alive, directly", https: true, keepAlive: true},
	{name: "https, no keep-alive, via carpool", https: true, viaCarpool: true},
}

// runNode plays the Node program through nodeRuns.
func runNode(ctx context.Context, opts options, stdout io.Writer, start starter) (err error) {
	dir, err := os.MkdirTemp("", "carpool-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	engine, err := findNode(ctx, stdout, dir)
	if err != nil {
		return err
	}
	roots, tlsConfig, err := newAuthority()
	if err != nil {
		return err
	}
	engine.rootsFile = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(engine.rootsFile, roots, 0o600); err != nil {
		return err
	}
	far := distance{roundTrip: opts.rtt, lookup: lookupTime}
	httpServer, err := startUpstream(far, nil)
	if err != nil {
		return err
	}
	defer httpServer.close()
	httpsServer, err := startUpstream(far, tlsConfig)
	if err != nil {
		return err
	}
	defer httpsServer.close()
	car, err := startSidecar(ctx, start, "CARPOOL_CA_FILE="+engine.rootsFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, car.stop()) }()

	reportNodeIntroduction(stdout, opts, far, engine)
	var outcomes []outcome
	for _, run := range nodeRuns {
		scheme, server := "http", httpServer
		if run.https {
			scheme, server = "https", httpsServer
		}
		proxy := ""
		if run.viaCarpool {
			proxy = "http://" + car.proxy
		}
		opened := server.connections()
		o, err := engine.play(ctx, opts, scheme+"://"+server.addr+"/", run.keepAlive, proxy)
		if err != nil {
			return err
		}
		o.connections = server.connections() - opened
		reportNodeRow(stdout, run.name, o)
		outcomes = append(outcomes, o)
	}
	if err := failure(outcomes...); err != nil {
		return err
	}
	reportNode(stdout, opts, engine, outcomes)
	return nil
}

// node is a Node and an axios that it can load.
type node struct {
	binary       string
	script       string // the file that nodeScript was written to
	rootsFile    string // the certificate authority Node shall trust, as PEM
	version      string
	axios        string // the module's file
	axiosVersion string
}

// findNode finds both, or installs axios, and says what is missing if it cannot. It
// writes nodeScript into dir.
func findNode(ctx context.Context, stdout io.Writer, dir string) (node, error) {
	binary, err := exec.LookPath("node")
	if err != nil {
		return node{}, errors.New("--node needs Node, and there is no `node` on the PATH: install it, or leave --node out")
	}
	engine := node{binary: binary, script: filepath.Join(dir, "demo.js")}
	if err := os.WriteFile(engine.script, nodeScript, 0o600); err != nil {
		return node{}, err
	}
	working, err := os.Getwd()
	if err != nil {
		return node{}, err
	}
	if found, err := engine.resolveAxios(ctx, working); found || err != nil {
		return engine, err
	}
	cache := dir
	if user, err := os.UserCacheDir(); err == nil {
		cache = filepath.Join(user, "carpool", "demo")
	}
	if found, err := engine.resolveAxios(ctx, cache); found || err != nil {
		return engine, err
	}
	if err := installAxios(ctx, stdout, cache); err != nil {
		return node{}, err
	}
	found, err := engine.resolveAxios(ctx, cache)
	if err == nil && !found {
		err = fmt.Errorf("--node needs axios: npm installed it into %s, but Node does not find it there", cache)
	}
	return engine, err
}

// resolveAxios fills in what Node finds from the directory from.
func (n *node) resolveAxios(ctx context.Context, from string) (found bool, err error) {
	const script = `
var answer = { version: process.version.slice(1) };
try {
  var from = { paths: [process.argv[1]] };
  answer.axios = require.resolve('axios', from);
  answer.axiosVersion = require(require.resolve('axios/package.json', from)).version;
} catch (err) {
  if (err.code !== 'MODULE_NOT_FOUND') throw err;
}
console.log(JSON.stringify(answer));`
	var answer struct{ Version, Axios, AxiosVersion string }
	if err := n.run(ctx, &answer, nil, "-e", script, from); err != nil {
		return false, err
	}
	n.version, n.axios, n.axiosVersion = answer.Version, answer.Axios, answer.AxiosVersion
	return n.axios != "", nil
}

// installAxios has npm install axiosRelease into the directory into.
func installAxios(ctx context.Context, stdout io.Writer, into string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("--node needs axios: it is not installed here, and there is no `npm` on the PATH to install it: "+
			"run carpool demo --node in a directory where axios is installed (npm install axios@%s)", axiosRelease)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "No axios here: npm installs axios@%s into\n%s ...\n\n", axiosRelease, into)
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	said := &tail{}
	command := exec.CommandContext(ctx, npm, "install", "--prefix", into, "--ignore-scripts",
		"--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", "axios@"+axiosRelease)
	command.Stdout, command.Stderr = said, said
	command.WaitDelay = killTimeout
	if err := command.Run(); err != nil {
		return fmt.Errorf("--node needs axios: it is not installed here, and npm could not install axios@%s (%w):\n%s",
			axiosRelease, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// play makes the requests of one row, to url followed by a tag; proxy may be empty.
func (n *node) play(ctx context.Context, opts options, url string, keepAlive bool, proxy string) (outcome, error) {
	argument, err := json.Marshal(map[string]any{
		"axios": n.axios, "url": url, "run": newRunName(), "keepAlive": keepAlive,
		"requests": opts.requests, "concurrency": opts.concurrency, "timeoutMillis": requestTimeout.Milliseconds(),
	})
	if err != nil {
		return outcome{}, err
	}
	environ := []string{"NODE_EXTRA_CA_CERTS=" + n.rootsFile}
	if proxy != "" {
		for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
			environ = append(environ, name+"="+proxy)
		}
	}
	var answer struct {
		TookMicros      int64
		LatenciesMicros []int64
		Failed          int
		FirstFailure    string
	}
	if err := n.run(ctx, &answer, environ, n.script, string(argument)); err != nil {
		return outcome{}, err
	}
	o := outcome{
		took:         time.Duration(answer.TookMicros) * time.Microsecond,
		failed:       answer.Failed,
		firstFailure: answer.FirstFailure,
	}
	for _, micros := range answer.LatenciesMicros {
		o.latencies = append(o.latencies, time.Duration(micros)*time.Microsecond)
	}
	slices.Sort(o.latencies)
	// Requests that Node never accounted for are lost ones.
	if lost := opts.requests - len(o.latencies) - o.failed; lost > 0 {
		o.failed += lost
		o.firstFailure = "a request was never answered"
	}
	return o, nil
}

// run runs Node with args, and environ added to a cleaned environment, and decodes the
// JSON it prints into answer.
func (n *node) run(ctx context.Context, answer any, environ []string, args ...string) error {
	var said bytes.Buffer
	complaints := &tail{}
	command := exec.CommandContext(ctx, n.binary, args...)
	command.Env = append(withoutNetworkSettings(os.Environ()), environ...)
	command.Stdout, command.Stderr = &said, complaints
	command.WaitDelay = killTimeout
	err := command.Run()
	if err == nil {
		err = json.Unmarshal(said.Bytes(), answer)
	}
	if err != nil {
		return fmt.Errorf("running %s: %w\n%s", n.binary, err, strings.TrimSpace(complaints.String()))
	}
	return nil
}

// withoutNetworkSettings returns environ without what would change how Node connects:
// the rows must differ by what the table says, and by nothing else.
func withoutNetworkSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch strings.ToUpper(name) {
		case "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NODE_OPTIONS", "NODE_USE_ENV_PROXY",
			"NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED":
			return true
		}
		return false
	})
}
