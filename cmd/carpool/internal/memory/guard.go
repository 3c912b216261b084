package memory

import (
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// Shares of the limit, in percent. The garbage collector is told the lowest, so that garbage never makes carpool shed:
// what is used beyond is live, or is the kernel's, and the kernel's part (sockets above all) is what the collector
// knows nothing of. The rest above the highest is for what the requests under way may still take, and for the program's
// own pages, which are not counted and had better stay in memory.
const (
	goShare    = 75
	tightShare = 80 // above, what is idle goes and buffers are small; below, new requests are taken again
	shedShare  = 90 // above, new requests are refused
)

// What one more buffer takes, and one more request without buffers: stacks, heads, the two connections.
const (
	bufferCost  = sock.BufferSize
	requestCost = 32 << 10
	// promised is what each request that runs may still take when all the upstreams answer at once: a small buffer.
	promised = 6 << 10
)

const (
	// period is how often memory is looked at when no request asks for it.
	period = 250 * time.Millisecond
	// limitPeriod is how often the limit is read again.
	limitPeriod = 10 * time.Second
	// relievePeriod is the least time between two collections of garbage that are only precautions.
	relievePeriod = 2 * time.Second
	// shortest is how long requests are refused at least, once they are.
	shortest = time.Second
	// idleFor is how long a connection has to be idle to be closed for its memory: one that is used all the time would
	// only be opened again.
	idleFor = time.Second
)

// Source is where figures come from: a Group.
type Source interface {
	Limit() int64
	Used() (int64, error)
	Close()
}

// Config is what a Guard works with. All of it is needed.
type Config struct {
	Source Source
	// SetGoLimit says whether the garbage collector is told of the limit; not if GOMEMLIMIT is set.
	SetGoLimit bool
	// Relieve, called from one goroutine, closes connections that have been idle for that time or longer.
	Relieve func(idle time.Duration)
	// Began and Ended are told when requests begin to be refused, and when they are taken again: how many were refused
	// and for how long. They come from one goroutine, and are always a pair unless Close comes between.
	Began func(Stats)
	Ended func(s Stats, refused uint64, lasted time.Duration)
}

// Stats are a Guard's figures.
type Stats struct {
	// Limit is the limit in bytes; 0 is none, and then the rest is 0 too.
	Limit int64
	// Used is what counts against it and cannot be taken back.
	Used int64
	// Shedding says that new requests are being refused.
	Shedding bool
	// Refused counts requests refused.
	Refused uint64
}

// Guard decides whether there is memory for a new request, and for a new buffer. It is safe for concurrent use.
//
// A burst can take gigabytes a second, so looking a few times a second does not do. Each look gives credit, half of the
// memory that is left, which requests and buffers use up at their worst cost; then it is looked at again. In between a
// request costs a subtraction, and so does a buffer, but only one that is not reused.
type Guard struct {
	cfg     Config
	stop    chan struct{}
	stopped chan struct{}
	kick    chan struct{} // holds one: look now

	requests, buffers gate
	credit            atomic.Int64 // bytes

	refused atomic.Uint64
	limit   atomic.Int64

	// mu guards the rest, and Source. It is held while memory is looked at, which waits for nothing.
	mu        sync.Mutex
	used      int64
	limitRead time.Time
	relieved  time.Time
	episode   episode // the last, or the one that goes on
}

// gate is what something that takes memory has to pass.
type gate struct {
	cost, share int64       // what it takes, and up to which share of the limit
	shut        atomic.Bool // until the next look that is not by request
}

// episode is a time in which requests are refused.
type episode struct {
	began   time.Time
	refused uint64 // before
}

// NewGuard returns a Guard that does nothing before Start but knows the limit.
func NewGuard(cfg Config) *Guard {
	g := &Guard{cfg: cfg, stop: make(chan struct{}), stopped: make(chan struct{}), kick: make(chan struct{}, 1)}
	g.requests.cost, g.requests.share = requestCost, shedShare
	g.buffers.cost, g.buffers.share = bufferCost, tightShare
	g.readLimitLocked(time.Now()) // no other goroutine knows of g yet
	return g
}

// Start begins to look after memory, until Close.
func (g *Guard) Start() { go g.run() }

// Close ends what Start has begun, and waits for it.
func (g *Guard) Close() {
	close(g.stop)
	<-g.stopped
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cfg.Source.Close()
}

// Stats returns the figures as they are now; Used as it was when memory was last looked at.
func (g *Guard) Stats() Stats {
	s, _ := g.state()
	return s
}

func (g *Guard) state() (Stats, episode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{Limit: g.limit.Load(), Used: g.used, Shedding: g.requests.shut.Load(), Refused: g.refused.Load()}, g.episode
}

// AdmitRequest says whether there is memory for one more request, which makes running of them.
func (g *Guard) AdmitRequest(running int64) bool {
	ok := g.pass(&g.requests, running*promised)
	if !ok {
		g.refused.Add(1)
	}
	return ok
}

// AdmitBuffer says whether there is memory for one more buffer.
func (g *Guard) AdmitBuffer() bool { return g.pass(&g.buffers, 0) }

// pass says whether something may pass a gate while others still have so much to take.
func (g *Guard) pass(t *gate, reserved int64) bool {
	return !t.shut.Load() && (g.credit.Add(-t.cost) >= 0 || g.look(t, reserved))
}

// look gives credit, if there is memory, and takes the first of it; or it shuts the gate.
func (g *Guard) look(t *gate, reserved int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.credit.Add(-t.cost) >= 0 { // somebody else has looked meanwhile
		return true
	}
	if t.shut.Load() {
		return false
	}
	room := g.roomLocked(t) - reserved
	if room < t.cost {
		g.shutLocked(t)
		return false
	}
	if g.used >= share(g.limit.Load(), tightShare) && g.limit.Load() > 0 {
		g.buffers.shut.Store(true) // the credit is not for them
	}
	g.credit.Store(max(room/2, t.cost) - t.cost)
	return true
}

// roomLocked is how much memory there is for what passes a gate. Without a limit, or if the kernel does not tell, there
// is no end to it.
func (g *Guard) roomLocked(t *gate) int64 {
	limit := g.limit.Load()
	if limit == 0 {
		return math.MaxInt64
	}
	used, err := g.cfg.Source.Used()
	if err != nil {
		g.used = 0
		return math.MaxInt64
	}
	g.used = used
	return share(limit, t.share) - used
}

func (g *Guard) shutLocked(t *gate) {
	t.shut.Store(true)
	g.credit.Store(0)
	if t == &g.requests {
		g.episode = episode{time.Now(), g.refused.Load()}
	}
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

func share(limit, percent int64) int64 { return limit / 100 * percent }

func (g *Guard) run() {
	defer close(g.stopped)
	told := false // that requests are refused
	for {
		wait := period
		if g.limit.Load() == 0 {
			wait = limitPeriod
		}
		t := time.NewTimer(wait)
		select {
		case <-g.stop:
			t.Stop()
			return
		case <-g.kick:
			t.Stop()
		case <-t.C:
		}
		if s, _ := g.state(); s.Shedding && !told {
			g.cfg.Began(s)
			told = true
		}
		g.tend()
		if s, e := g.state(); told && !s.Shedding {
			g.cfg.Ended(s, s.Refused-e.refused, time.Since(e.began))
			told = false
		}
	}
}

// tend is one look at memory when no request asks for it.
func (g *Guard) tend() {
	if g.isTight() {
		g.cfg.Relieve(idleFor)
		debug.FreeOSMemory()
	}
	g.settle()
}

// isTight reports whether something has to be done for memory, which is too slow to be done often unless requests are
// being refused.
func (g *Guard) isTight() bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.limitRead) >= limitPeriod {
		g.readLimitLocked(now)
	}
	tight := g.roomLocked(&g.buffers) < bufferCost && now.Sub(g.relieved) >= relievePeriod || g.requests.shut.Load()
	if tight {
		g.relieved = now
	}
	return tight
}

// settle opens and shuts the gates, after what was done for memory.
func (g *Guard) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	tight := g.roomLocked(&g.buffers) < bufferCost
	switch {
	case !g.requests.shut.Load():
		if g.roomLocked(&g.requests) < requestCost {
			g.shutLocked(&g.requests)
		}
	case !tight && time.Since(g.episode.began) >= shortest:
		g.requests.shut.Store(false)
	}
	g.buffers.shut.Store(tight)
	g.credit.Store(0) // whoever comes next looks for themselves
}

// readLimitLocked reads the limit, and tells the garbage collector if it has changed.
func (g *Guard) readLimitLocked(now time.Time) {
	g.limitRead = now
	limit := g.cfg.Source.Limit()
	if limit == g.limit.Swap(limit) || !g.cfg.SetGoLimit {
		return
	}
	if limit == 0 {
		debug.SetMemoryLimit(math.MaxInt64)
	} else {
		debug.SetMemoryLimit(share(limit, goShare))
	}
}
