package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
	"github.com/carpoolproxy/carpool/ci/compare/internal/report"
)

// A bench is one comparison.
type bench struct {
	options
	dir          string // of all files; it goes when the bench does
	progress     io.Writer
	peers        []*peer
	trust        trust
	upstreams    map[via]*origin
	files        int // how many files a process may open
	results      report.Results
	othersBefore float64 // CPU of other programs at the beginning, in percent of a core
	steps        int     // turns done
	began        time.Time
}

// origin is an upstream and where it is.
type origin struct {
	process *proc.Process
	at      netip.AddrPort
}

// the two carpools whose difference is noise.
const (
	ours  = "carpool"
	again = "carpool again"
)

// prepare makes what all workloads need.
func prepare(ctx context.Context, o options, progress io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "carpool-compare-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, progress: progress, upstreams: map[via]*origin{}, began: time.Now()}
	err = os.Chmod(dir, 0o755) // Squid reads its configuration as another user
	if err == nil {
		b.trust, err = newTrust(dir)
	}
	if err == nil {
		err = b.find(ctx)
	}
	if err == nil {
		b.files, err = raiseFiles()
		b.fit()
	}
	if err == nil {
		err = b.quietness(ctx)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	for _, up := range b.upstreams {
		up.process.Kill()
	}
	_ = os.RemoveAll(b.dir) // what is left is in the folder for temporary files
}

func (b *bench) log(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// find finds the peers that take part.
func (b *bench) find(ctx context.Context) error {
	path, err := b.build(ctx)
	if err != nil {
		return err
	}
	one, two := carpool(ours, path), carpool(again, path)
	b.peers = append(b.peers, &one, &two)
	for _, other := range b.also {
		if _, err := exec.LookPath(other.path); err != nil {
			return fmt.Errorf("--also %s: %w", other.name, err)
		}
		p := carpool(other.name, other.path)
		b.peers = append(b.peers, &p)
	}
	for _, p := range append(slices.Clone(others), direct) {
		name := p.program
		if p.name == direct.name {
			name = direct.name
		}
		if len(b.only) > 0 && !slices.Contains(b.only, name) {
			continue
		}
		if p.program != "" {
			path, err := exec.LookPath(p.program)
			if err != nil {
				b.log("%s is not on PATH: left out", p.program)
				continue
			}
			p.program, p.version = path, askVersion(ctx, path)
		}
		b.peers = append(b.peers, &p)
	}
	return ctx.Err()
}

// build returns the path of carpool, which it builds unless one is named.
func (b *bench) build(ctx context.Context) (string, error) {
	if b.carpool != "" {
		path, err := filepath.Abs(b.carpool)
		if err == nil {
			_, err = exec.LookPath(path)
		}
		if err != nil {
			return "", fmt.Errorf("CARPOOL: %w", err)
		}
		return path, nil
	}
	root, err := checkout()
	if err != nil {
		return "", err
	}
	b.log("Building carpool from %s", root)
	path := filepath.Join(b.dir, "carpool")
	// As make build does it.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", path, "./cmd/carpool")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building carpool: %w: %s", err, out)
	}
	return path, nil
}

// checkout returns the root of the repository that the working directory is in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil &&
			strings.HasPrefix(string(mod), "module github.com/carpoolproxy/carpool\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("this is no checkout of carpool: run it there, or name a binary with CARPOOL=path")
		}
		dir = parent
	}
}

// raiseFiles lets this process and those that it starts open as many files as it may, and enough for 50,000 clients where
// it is root.
func raiseFiles() (int, error) {
	const enough = 120000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	wish := syscall.Rlimit{Cur: max(enough, limit.Max), Max: max(enough, limit.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &wish) == nil {
		limit.Max = wish.Max
	}
	limit.Cur = limit.Max
	return int(min(limit.Max, 1<<20)), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// quietness looks at the machine for a second.
func (b *bench) quietness(ctx context.Context) error {
	const bearable = 10 // percent of a core
	before, err := b.look(nil, nil, nil)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
	}
	after, err := b.look(nil, nil, nil)
	if err != nil {
		return err
	}
	others := after.since(before).others()
	b.othersBefore = others
	if others <= bearable {
		return nil
	}
	what := fmt.Sprintf("other programs take %.0f %% of a core", others)
	if len(b.write) > 0 && !b.noisy {
		return errors.New(what + ": figures that are written down need a quiet machine. Stop them, or add --noisy")
	}
	b.log("Warning: %s. Figures will be off.", what)
	return nil
}

// all runs all workloads. What was measured until an error is in the results.
func (b *bench) all(ctx context.Context) error {
	for i := range b.workloads {
		w := &b.workloads[i]
		if err := b.workload(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// workload runs one workload. An error is one that ends everything.
func (b *bench) workload(ctx context.Context, w *workload) error {
	up, err := b.upstream(w.via)
	if err != nil {
		return err
	}
	hosts := b.hosts(w, up)
	standing := map[string]*running{}
	defer func() {
		for _, r := range standing {
			r.kill()
		}
	}()
	for round := range b.roundsOf(w) {
		for i := range b.peers {
			p := b.peers[(i+round)%len(b.peers)]
			b.steps++
			if err := ctx.Err(); err != nil {
				return err
			}
			if why := b.excluded(w, p); why != "" {
				continue
			}
			t := &turn{ctx: ctx, w: w, round: round, up: up, hosts: hosts}
			if err := b.take(t, p, standing); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				b.log("%s: %s is left out: %v", w.name, p.name, err)
				b.results.LeaveOut(w.name, p.name, err.Error())
			}
		}
	}
	return nil
}

// roundsOf returns how many rounds the workload has.
func (b *bench) roundsOf(w *workload) int {
	if w.fresh && b.quick {
		return 1 // a process for each takes its time
	}
	return b.rounds
}

// turns returns how many turns there are in all.
func (b *bench) turns() (n int) {
	for i := range b.workloads {
		n += b.roundsOf(&b.workloads[i]) * len(b.peers)
	}
	return n
}

// excluded says why a peer does not take part in a workload.
func (b *bench) excluded(w *workload, p *peer) string {
	if why := p.cannot[w.name]; why != "" {
		b.results.LeaveOut(w.name, p.name, why)
	}
	return b.results.WhyOut(w.name, p.name)
}

// take lets a peer take its turn.
func (b *bench) take(t *turn, p *peer, standing map[string]*running) error {
	t.peer = p
	if t.w.special != nil {
		return t.w.special(b, t)
	}
	if t.proxy = standing[p.name]; t.proxy == nil || t.w.fresh || !t.proxy.alive() {
		if t.proxy != nil {
			t.proxy.kill()
		}
		var err error
		if t.proxy, err = b.start(t, p); err != nil {
			return err
		}
		standing[p.name] = t.proxy
	}
	if t.w.fresh {
		defer t.proxy.kill()
	}
	for i := range t.w.asks {
		if err := b.measure(t, &t.w.asks[i]); err != nil {
			return err
		}
	}
	return nil
}

// start starts a process of the peer and waits until it listens.
func (b *bench) start(t *turn, p *peer) (*running, error) {
	r, err := b.launch(t, p)
	if err != nil {
		return nil, err
	}
	if err := r.listening(t.ctx); err != nil {
		r.kill()
		return nil, err
	}
	return r, nil
}

// launch starts a process of the peer.
func (b *bench) launch(t *turn, p *peer) (*running, error) {
	if p.program == "" {
		return &running{peer: p, place: place{Plain: t.up.at.String()}}, nil
	}
	dir, err := os.MkdirTemp(b.dir, "peer-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	at := place{Dir: dir, CA: b.trust.ca, Hosts: t.hosts, User: unprivileged(), Threads: max(1, len(b.cpus.proxy)),
		Plain: local(ports[0]), Secure: local(ports[1]), Second: local(ports[2]), Admin: local(ports[3]),
		PlainPort: ports[0], SecurePort: ports[1], SecondPort: ports[2]}
	at.Clients, at.Connections = b.room(t)
	at.Files = min(b.files, 2*at.Connections)
	cpus := b.cpus.proxy
	if t.w.loose {
		cpus = nil
	}
	return p.begin(at, cpus)
}

// room returns how many connections a proxy may have, from clients and in all: as many as the workload needs, for some
// proxies take memory for all of them beforehand. Clients that close have a new connection before the old one has ended.
func (b *bench) room(t *turn) (fromClients, all int) {
	const spare = 1000
	if t.w.special != nil {
		idle := b.options.idle[len(b.options.idle)-1]
		return min(idle+spare, b.files/2-spare/2), idle + spare
	}
	most := max(clients, len(t.hosts))
	for _, a := range t.w.asks {
		most = max(most, a.clients)
	}
	return min(2*most+spare, b.files/2-spare/2), 4*most + spare
}

// upstream returns the upstream of that kind, which it starts at its first use.
func (b *bench) upstream(v via) (*origin, error) {
	if up := b.upstreams[v]; up != nil {
		return up, nil
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(ports[0]))
	role, args := "plain", []string{fmt.Sprintf("0.0.0.0:%d", ports[0])}
	switch v {
	case secure:
		role, args = "secure", []string{at.String(), b.trust.cert, b.trust.key}
	case second:
		role, args = "second", []string{at.String(), b.trust.cert, b.trust.key}
	}
	p, err := startUpstream(role, b.cpus.upstream, args...)
	if err != nil {
		return nil, err
	}
	b.upstreams[v] = &origin{process: p, at: at}
	return b.upstreams[v], nil
}

// hosts returns the upstreams of a workload: one process on as many addresses of 127.0.0.0/8.
func (b *bench) hosts(w *workload, up *origin) []string {
	all := []string{up.at.String()}
	for i := 1; i < w.hosts; i++ {
		ip := netip.AddrFrom4([4]byte{127, 1, byte(i / 250), byte(1 + i%250)})
		all = append(all, netip.AddrPortFrom(ip, up.at.Port()).String())
	}
	return all
}

// fit has no more upstreams than open files allow to keep connections to, and names how many there are.
func (b *bench) fit() {
	for i := range b.workloads {
		w := &b.workloads[i]
		w.hosts = min(w.hosts, b.files/3) // carpool, for one, keeps the larger part for its clients
		for j := range w.asks {
			w.asks[j].title = strings.ReplaceAll(w.asks[j].title, "HOSTS", grouped(w.hosts))
		}
	}
}

// grouped writes a number as people do.
func grouped(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}

// spec returns what clients of the proxy do.
func (t *turn) spec(a *ask) load.Spec {
	at, scheme := t.proxy.Plain, "http"
	switch {
	case t.w.via != plain && t.peer.whole:
		scheme = "https"
	case t.w.via == secure:
		at = t.proxy.Secure
	case t.w.via == second:
		at = t.proxy.Second
	}
	s := load.Spec{Proxy: netip.MustParseAddrPort(at), Hosts: t.hosts, Open: slices.Clone(a.open), Turns: slices.Clone(a.turns), End: a.end}
	inside := false // a tunnel: what is asked there is asked of the upstream
	for _, turns := range [][]load.Turn{s.Open, s.Turns} {
		for i := range turns {
			inside = inside || turns[i].Connect
			if turns[i].URL != "" && !inside {
				turns[i].URL = scheme + "://{host}" + turns[i].URL
			}
		}
	}
	return s
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// handed is the last port that was handed out.
var handed = 20000

// freePorts returns ports that nobody listens at, below those that the kernel gives to connections, and no port twice in
// a while.
func freePorts(n int) ([]int, error) {
	var free []int
	for range 12000 {
		if handed++; handed >= 32000 {
			handed = 20001
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", handed))
		if err != nil {
			continue
		}
		_ = l.Close()
		if free = append(free, handed); len(free) == n {
			return free, nil
		}
	}
	return nil, errors.New("no free ports from 20000 to 32000")
}
