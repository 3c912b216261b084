package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
	"github.com/carpoolproxy/carpool/ci/compare/internal/proc"
	"github.com/carpoolproxy/carpool/ci/compare/internal/report"
	"github.com/carpoolproxy/carpool/ci/compare/internal/upstream"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// A turn is one peer's in one round of a workload.
type turn struct {
	ctx   context.Context
	w     *workload
	round int
	peer  *peer
	proxy *running
	up    *origin
	hosts []string
}

// A sight is what was used until a moment.
type sight struct {
	at                   time.Time
	proxy                proc.Usage
	load, upstream, self time.Duration
	machine              proc.Machine
}

// look reads all accounts; nil processes have none.
func (b *bench) look(proxy *running, generator, up *proc.Process) (s sight, err error) {
	s.at = time.Now()
	if proxy != nil {
		s.proxy = proc.Used(proxy.pids())
	}
	if generator != nil {
		if s.load, err = proc.CPU(generator.PID()); err != nil {
			return s, err
		}
	}
	if up != nil {
		if s.upstream, err = proc.CPU(up.PID()); err != nil {
			return s, err
		}
	}
	if s.self, err = proc.CPU(os.Getpid()); err != nil {
		return s, err
	}
	s.machine, err = proc.Now()
	return s, err
}

// A spell is what was used between two sights.
type spell struct {
	took                        time.Duration
	proxy, load, upstream, self time.Duration
	switches                    int64
	busy                        time.Duration // of all CPUs
}

func (s sight) since(before sight) spell {
	return spell{
		took: s.at.Sub(before.at), proxy: s.proxy.CPU - before.proxy.CPU, load: s.load - before.load,
		upstream: s.upstream - before.upstream, self: s.self - before.self, switches: s.proxy.Switches - before.proxy.Switches,
		busy: time.Duration(s.machine.Busy-before.machine.Busy) * time.Second / proc.TicksPerSecond,
	}
}

// others returns what other programs took, in percent of a core.
func (s spell) others() float64 {
	return max(0, percent(s.busy-s.proxy-s.load-s.upstream-s.self, s.took))
}

func percent(part, of time.Duration) float64 { return 100 * float64(part) / float64(of) }

// bound says what a load was limited by: who was busy nearly all the time.
func (s spell) bound(proxies int, shared bool) string {
	const nearly = 92
	switch {
	case shared && percent(s.load+s.upstream, s.took) >= nearly:
		return "load and upstream"
	case percent(s.load, s.took) >= nearly:
		return "load"
	case percent(s.upstream, s.took) >= nearly:
		return "upstream"
	case percent(s.proxy, s.took) >= nearly*float64(max(1, proxies)):
		return "proxy"
	}
	return "hand-offs"
}

// measure takes one load, and notes what came of it.
func (b *bench) measure(t *turn, a *ask) error {
	g, err := startLoad(t.ctx, b.cpus.load, t.spec(a))
	if err != nil {
		return err
	}
	defer g.close()
	warm, err := g.do(load.Command{Clients: a.clients, For: b.warm, AtLeast: 2*a.clients + len(t.hosts)}, func() {})
	if err != nil {
		return err
	}
	if !t.proxy.alive() {
		return t.proxy.process.Failure("it ended")
	}
	if warm.Failed() > 0 {
		return fmt.Errorf("%s: %v", a.name, warm.Errors)
	}
	c := load.Command{Clients: a.clients, For: b.seconds, Rate: a.rate, Seed: uint64(t.round)}
	if c.Rate == 0 {
		c.AtLeast = a.clients
	}
	countsBefore, err := t.counts()
	if err != nil {
		return err
	}
	before, err := b.look(t.proxy, g.process, t.up.process)
	if err != nil {
		return err
	}
	var after sight
	r, err := g.do(c, func() { after, err = b.look(t.proxy, g.process, t.up.process) })
	if err != nil {
		return err
	}
	countsAfter, err := t.counts()
	if err != nil {
		return err
	}
	if t.w.via == second && countsAfter.Second == 0 {
		return fmt.Errorf("it speaks HTTP/1.1 to an upstream that offers HTTP/2")
	}
	counts := upstream.Counts{Accepted: countsAfter.Accepted - countsBefore.Accepted - 1, Requests: countsAfter.Requests - countsBefore.Requests}
	shared := slices.Equal(b.cpus.load, b.cpus.upstream)
	b.note(t, a, after.since(before), r, counts, shared)
	return nil
}

// note makes a cell of what was measured.
func (b *bench) note(t *turn, a *ask, s spell, r *load.Result, counts upstream.Counts, shared bool) {
	c := &report.Cell{Values: map[report.Metric]float64{}, Errors: r.Errors, Others: s.others(), Bound: s.bound(len(b.cpus.proxy), shared)}
	done := float64(r.Done)
	if r.Done > 0 {
		if t.peer.program != "" {
			c.Values[report.CPU] = float64(s.proxy.Nanoseconds()) / 1e3 / done
			c.Values[report.Switches] = float64(s.switches) / done
			if pss, err := proc.PSS(t.proxy.pids()); err == nil {
				c.Values[report.Memory] = float64(pss) / (1 << 20)
			}
		}
		c.Values[report.P50], c.Values[report.P99] = r.Latency.Percentile(0.5)/1e3, r.Latency.Percentile(0.99)/1e3
		c.Values[report.Conns] = float64(counts.Accepted)
		if a.rate > 0 {
			c.Values[report.Late] = r.Late.Percentile(0.99) / 1e3
		} else {
			c.Values[report.PerSecond] = done / r.Elapsed.Seconds()
		}
	}
	messages := 0
	for _, turn := range a.turns {
		if !turn.Connect {
			messages++
		}
	}
	if asked := int64(r.Done * messages); r.Failed() == 0 && counts.Requests != asked {
		c.Errors = map[string]int{fmt.Sprintf("the upstream was asked %d times for %d answers", counts.Requests, asked): 1}
	}
	b.results.Put(a.name, t.peer.name, t.round, c)
	b.show(t, a, c)
}

// show tells the progress.
func (b *bench) show(t *turn, a *ask, c *report.Cell) {
	total := b.turns()
	left := time.Since(b.began) * time.Duration(total-b.steps) / time.Duration(b.steps)
	b.log("[%3d %%, %6v left] %-12s round %d  %-14s%v", 100*b.steps/total, left.Round(time.Second), a.name, t.round+1, t.peer.name, c)
}

// counts asks the upstream what it has seen, on a connection that is not kept and counts too.
func (t *turn) counts() (c upstream.Counts, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it is ours
	scheme := "http"
	if t.w.via != plain {
		scheme = "https"
	}
	response, err := client.Get(scheme + "://" + t.up.at.String() + "/counts")
	if err != nil {
		return c, err
	}
	defer response.Body.Close()
	err = json.NewDecoder(response.Body).Decode(&c)
	return c, err
}

// idle measures what clients cost that have made a request and wait.
func (b *bench) idle(t *turn) error {
	var err error
	if t.proxy, err = b.start(t, t.peer); err != nil {
		return err
	}
	defer t.proxy.kill()
	g, err := startLoad(t.ctx, b.cpus.load, t.spec(&t.w.asks[0]))
	if err != nil {
		return err
	}
	defer g.close()
	c := &report.Cell{Values: map[report.Metric]float64{}, Errors: map[string]int{}}
	var sizes []float64
	for _, n := range slices.Concat([]int{1}, b.options.idle) {
		r, err := g.do(load.Command{Clients: n, Once: true}, func() {})
		if err != nil {
			return err
		}
		if r.Failed() > 0 {
			return fmt.Errorf("%d clients: %v", n, r.Errors)
		}
		if n > 1 && !wait(t.ctx, b.settle) {
			return t.ctx.Err()
		}
		pss, err := proc.PSS(t.proxy.pids())
		if err != nil {
			return err
		}
		sizes = append(sizes, float64(pss))
	}
	before, err := b.look(t.proxy, g.process, t.up.process)
	if err != nil {
		return err
	}
	if !wait(t.ctx, b.settle) {
		return t.ctx.Err()
	}
	after, err := b.look(t.proxy, g.process, t.up.process)
	if err != nil {
		return err
	}
	s := after.since(before)
	c.Others, c.Bound = s.others(), "nothing"
	c.Values[report.IdleCPU] = float64(s.proxy.Microseconds()) / 1e3 / s.took.Seconds()
	last := len(sizes) - 1
	c.Values[report.Memory] = sizes[0] / (1 << 20)
	c.Values[report.PerClient] = (sizes[last] - sizes[1]) / float64(b.options.idle[last-1]-b.options.idle[0]) / 1024
	// They are still good: the next requests go out on those that have waited longest.
	r, err := g.do(load.Command{Clients: 50, AtLeast: 100}, func() {})
	if err != nil {
		return err
	}
	if c.Errors = r.Errors; r.Lost > 0 {
		c.Errors["idle clients were closed"] += r.Lost
	}
	b.results.Put("idle", t.peer.name, t.round, c)
	b.show(t, &t.w.asks[0], c)
	return nil
}

// startAndDrain measures the time from exec to the first answer, and from the signal to the end with nothing open.
func (b *bench) startAndDrain(t *turn) (err error) {
	began := time.Now()
	if t.proxy, err = b.launch(t, t.peer); err != nil {
		return err
	}
	defer t.proxy.kill()
	if err := t.firstAnswer(); err != nil {
		return err
	}
	c := &report.Cell{Values: map[report.Metric]float64{report.Starts: ms(time.Since(began))}, Bound: "nothing"}
	t.proxy.resolve()
	if !wait(t.ctx, 100*time.Millisecond) { // the connection's end is noticed meanwhile
		return t.ctx.Err()
	}
	began = time.Now()
	if err := t.proxy.process.Signal(t.peer.drain); err != nil {
		return err
	}
	select {
	case <-t.proxy.process.Exited():
		c.Values[report.Drains] = ms(time.Since(began))
	case <-t.ctx.Done():
		return t.ctx.Err()
	case <-time.After(10 * time.Second):
		c.Errors = map[string]int{"still there after 10 s": 1}
	}
	b.results.Put("start", t.peer.name, t.round, c)
	b.show(t, &t.w.asks[0], c)
	return nil
}

// firstAnswer asks until there is an answer.
func (t *turn) firstAnswer() error {
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Second)
	defer cancel()
	text := wire.Request("http://"+t.hosts[0]+"/items", t.hosts[0], 0, true).Bytes
	for {
		err := exchange(t.proxy.Plain, text)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return t.proxy.process.Failure("no answer: " + err.Error())
		case <-t.proxy.process.Exited():
			return t.proxy.process.Failure("it ended")
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// exchange makes one request on a connection of its own.
func exchange(at string, text []byte) error {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(text); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
		return fmt.Errorf("status %d, %v", response.StatusCode, err)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// wait returns false if the context ends first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
