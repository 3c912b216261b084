package load

import (
	"fmt"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/sock"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// A Generator is the clients of a Spec. It is one event loop, for one goroutine.
type Generator struct {
	spec  Spec
	turns []Turn        // Spec.Open and Spec.Turns
	texts [][]wire.Text // by host and turn
	poll  *sock.Poll
	base  time.Time
	buf   []byte

	byFD  []*client
	idle  []*client // the first has waited longest
	free  []*client
	done  []*client // free once the events at hand are handled
	open  int       // connections
	host  int       // the next to be asked
	next  uint64    // id
	swept int64     // when clients were last looked over

	// What follows is of one command.
	result      Result
	outstanding int
	failed      int // exchanges that nothing has taken the place of
	closed      bool
	until       int64
	atLeast     int
	finished    int64
}

// New returns the clients of the spec, of which none is connected.
func New(spec Spec) (*Generator, error) {
	if len(spec.Hosts) == 0 || len(spec.Turns) == 0 {
		return nil, fmt.Errorf("a load needs hosts and turns")
	}
	poll, err := sock.NewPoll()
	if err != nil {
		return nil, err
	}
	g := &Generator{spec: spec, poll: poll, base: time.Now(), buf: make([]byte, 256<<10)}
	g.turns = append(append(g.turns, spec.Open...), spec.Turns...)
	for _, host := range spec.Hosts {
		texts := make([]wire.Text, len(g.turns))
		for i, turn := range g.turns {
			texts[i] = turn.text(host, spec.End == ByServer)
		}
		g.texts = append(g.texts, texts)
	}
	return g, nil
}

func (g *Generator) now() int64 { return int64(time.Since(g.base)) }

// Do carries out a command. The result is good until the next one.
func (g *Generator) Do(c Command) (*Result, error) {
	g.result.Latency.Reset()
	g.result.Late.Reset()
	g.result = Result{Errors: map[string]int{}, Latency: g.result.Latency, Late: g.result.Late}
	g.closed, g.until, g.atLeast, g.failed = false, 0, 0, 0
	if g.spec.End == Kept && !c.Once {
		if err := g.raise(c.Clients); err != nil {
			return nil, err
		}
	}
	begin := g.now()
	g.finished = begin
	var err error
	switch {
	case c.Once:
		err = g.once(c.Clients)
	case c.Rate > 0:
		err = g.openLoop(Schedule(c.Rate, c.For, c.Seed))
	default:
		err = g.closedLoop(c)
	}
	g.result.Elapsed = time.Duration(g.finished - begin)
	return &g.result, err
}

// raise opens connections until there are as many, a few at a time.
func (g *Generator) raise(clients int) error {
	const together = 64
	for wanted := clients - g.open; wanted > 0 || g.outstanding > 0; {
		for range min(wanted, together-g.outstanding) {
			g.connect(g.now(), true)
			wanted--
		}
		if err := g.step(time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// once opens connections with an exchange on each until there are as many, a few at a time.
func (g *Generator) once(clients int) error {
	const together = 32
	for wanted := clients - g.open; wanted > 0 || g.outstanding > 0; {
		for range min(wanted, together-g.outstanding) {
			g.connect(g.now(), false)
			wanted--
		}
		if err := g.step(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (g *Generator) more(now int64) bool {
	return g.closed && (now < g.until || g.result.Done+g.result.Failed() < g.atLeast)
}

func (g *Generator) closedLoop(c Command) error {
	g.closed, g.atLeast = true, c.AtLeast
	g.until = g.now() + int64(c.For)
	for range c.Clients {
		g.begin(g.now())
	}
	for g.outstanding > 0 || g.more(g.now()) {
		if err := g.step(20 * time.Millisecond); err != nil {
			return err
		}
		if g.result.Failed() > 1000+g.result.Done {
			break // nothing works
		}
		for ; g.failed > 0 && g.more(g.now()); g.failed-- {
			g.begin(g.now())
		}
	}
	return g.settle()
}

func (g *Generator) openLoop(due []int64) error {
	start := g.now() + int64(10*time.Millisecond)
	for len(due) > 0 || g.outstanding > 0 {
		now := g.now()
		for len(due) > 0 && start+due[0] <= now {
			g.result.Late.Record(now - start - due[0])
			g.begin(start + due[0])
			due = due[1:]
			now = g.now()
		}
		wait := 50 * time.Millisecond
		if len(due) > 0 {
			wait = min(wait, max(0, time.Duration(start+due[0]-now)))
		}
		if err := g.step(wait); err != nil {
			return err
		}
	}
	return g.settle()
}

// settle waits for connections that the other side is to close.
func (g *Generator) settle() error {
	for g.spec.End == ByServer && g.open > 0 {
		if err := g.step(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// step handles events, after waiting for them for as long as it may.
func (g *Generator) step(wait time.Duration) error {
	events, err := g.poll.Wait(int64(wait))
	if err != nil {
		return err
	}
	for _, event := range events {
		c := g.byFD[event.Fd]
		if c == nil {
			continue
		}
		if event.Events&sock.Out != 0 && c.state == busy && c.sent < len(c.out) {
			g.write(c)
		}
		if event.Events&(sock.In|sock.Ended) != 0 && c.state != shut {
			g.read(c, event.Events&sock.Ended != 0)
		}
	}
	g.sweep()
	g.free, g.done = append(g.free, g.done...), g.done[:0]
	return nil
}

// sweep gives up clients that have waited too long.
func (g *Generator) sweep() {
	const each = int64(100 * time.Millisecond)
	now := g.now()
	if now-g.swept < each {
		return
	}
	g.swept = now
	for _, c := range g.byFD {
		if c == nil || now < c.deadline {
			continue
		}
		switch c.state {
		case busy:
			if c.sent < len(c.out) {
				g.fail(c, "not sent in 10 s")
			} else {
				g.fail(c, "no answer in 10 s")
			}
		case ending:
			g.wrong("not closed in 2 s, after Connection: close")
			g.shut(c)
		}
	}
}
