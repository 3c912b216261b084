package memory

import (
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Shares of the limit, in percent. The garbage collector is told the lowest, so that garbage never makes carpool shed:
// what is used beyond is live, or is the kernel's, and the kernel's part (sockets above all) is what the collector
// knows nothing of. The rest above the highest is for what the requests under way may still take, and for the program's
// own pages, which are not counted and had better stay in memory.
const (
	goShare     = 80
	resumeShare = 80 // below, new requests are taken again
	relieveMark = 85 // above, what is idle goes
	shedShare   = 90 // above, new requests are refused
)

// exchangeCost is what one more request may take of memory before it is noticed: a buffer in each direction, two
// stacks, heads.
const exchangeCost = 160 << 10

const (
	// period is how often memory is looked at when no request asks for it.
	period = 250 * time.Millisecond
	// limitPeriod is how often the limit is read again.
	limitPeriod = 10 * time.Second
	// relievePeriod is the least time between two collections of garbage that are only precaution.
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
	// Relieve closes connections that have been idle for so long, or longer.
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

// Guard decides whether there is memory for a new request. It is safe for concurrent use.
//
// Memory is looked at a few times a second, and besides whenever as many more requests have begun as the memory that
// was left could hold at the worst: a burst can take hundreds of megabytes a second. In between a request costs a
// comparison.
type Guard struct {
	cfg     Config
	stop    chan struct{}
	stopped chan struct{}
	kick    chan struct{} // holds one: look now

	mayRun   atomic.Int64 // so many requests may run before memory has to be looked at again
	refused  atomic.Uint64
	limit    atomic.Int64
	shedding atomic.Bool

	// mu guards the rest, and Source. It is held while memory is looked at, which waits for nothing.
	mu        sync.Mutex
	used      int64
	limitRead time.Time
	relieved  time.Time
	episode   episode // the last, or the one that goes on
}

// episode is a time in which requests are refused.
type episode struct {
	began   time.Time
	refused uint64 // before
}

// NewGuard returns a Guard that does nothing before Start but knows the limit.
func NewGuard(cfg Config) *Guard {
	g := &Guard{cfg: cfg, stop: make(chan struct{}), stopped: make(chan struct{}), kick: make(chan struct{}, 1)}
	g.readLimitLocked(time.Now()) // nobody else knows of g yet
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
	return Stats{Limit: g.limit.Load(), Used: g.used, Shedding: g.shedding.Load(), Refused: g.refused.Load()}, g.episode
}

// Admit says whether one more request may begin, with which so many are running.
func (g *Guard) Admit(running int64) bool {
	return running <= g.mayRun.Load() || g.admit(running)
}

// admit looks at memory because nothing is known of whether there is enough.
func (g *Guard) admit(running int64) bool {
	if !g.shedding.Load() && g.look(running) {
		return true
	}
	g.refused.Add(1)
	return false
}

// look says whether there is memory for running requests and, if so, for how many more; if not, shedding begins.
func (g *Guard) look(running int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if running <= g.mayRun.Load() { // somebody else has looked meanwhile
		return true
	}
	room, known := g.roomLocked()
	if !known {
		g.mayRun.Store(math.MaxInt64)
		return true
	}
	if room >= exchangeCost {
		g.mayRun.Store(running + room/exchangeCost)
		return true
	}
	if !g.shedding.Load() {
		g.beginLocked()
	}
	return false
}

// roomLocked returns how much may be used before requests are refused. Nothing is known without a limit, or if the
// kernel does not tell.
func (g *Guard) roomLocked() (int64, bool) {
	limit := g.limit.Load()
	if limit == 0 {
		return 0, false
	}
	used, err := g.cfg.Source.Used()
	if err != nil {
		return 0, false
	}
	g.used = used
	return share(limit, shedShare) - used, true
}

func share(limit, percent int64) int64 { return limit / 100 * percent }

func (g *Guard) beginLocked() {
	g.mayRun.Store(-1)
	g.shedding.Store(true)
	g.episode = episode{time.Now(), g.refused.Load()}
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

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

// isTight reports whether something has to be done for memory, which is too slow to be done often.
func (g *Guard) isTight() bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.limitRead) >= limitPeriod {
		g.readLimitLocked(now)
	}
	_, known := g.roomLocked()
	tight := known && g.used >= share(g.limit.Load(), relieveMark)
	if !g.shedding.Load() && (!tight || now.Sub(g.relieved) < relievePeriod) {
		return false
	}
	g.relieved = now
	return true
}

// settle decides anew, after what was done for memory.
func (g *Guard) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	room, known := g.roomLocked()
	switch {
	case g.shedding.Load():
		enough := !known || g.used < share(g.limit.Load(), resumeShare)
		if !enough || time.Since(g.episode.began) < shortest {
			return
		}
		g.shedding.Store(false)
	case known && room < exchangeCost:
		g.beginLocked()
		return
	}
	if known {
		g.mayRun.Store(0) // the next request looks for itself
	} else {
		g.mayRun.Store(math.MaxInt64)
	}
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
