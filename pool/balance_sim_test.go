package pool_test

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// A simulation of clients that call a Service with a cluster IP. kube-proxy takes
// a pod at random for each connection. The Service has few pods, later more.

const (
	podsFirst = 3
	podsThen  = 7
	slot      = 30 * time.Second // what shares are measured in
	measured  = time.Minute      // from when on
	grows     = measured + 10*slot
	simulated = grows + 10*slot
)

// rule is how a client spreads its requests over connections.
type rule interface {
	// asked is told of a request. It reports whether a connection is opened beside
	// it, if so many are open.
	asked(now time.Duration, open int) bool
	// width is how many connections are used in turn; of the others the one used
	// last is used first.
	width(now time.Duration) int
	// lasts is how long a connection is preferred from when its turn has come.
	lasts() time.Duration
	// opened is told of each connection that is opened, and says how old it may
	// become.
	opened(now time.Duration, random float64) time.Duration
}

// jitter is the share by which ages differ.
const jitter = .2

// fixed keeps so many connections in turn, whatever the rate.
type fixed struct {
	n   int
	age time.Duration
}

func (f fixed) asked(_ time.Duration, open int) bool { return open < f.n }
func (f fixed) width(time.Duration) int              { return f.n }
func (f fixed) lasts() time.Duration                 { return 0 }
func (f fixed) opened(_ time.Duration, random float64) time.Duration {
	return f.age - time.Duration(jitter*random*float64(f.age))
}

// balanced is the pool's own rule.
type balanced struct {
	*pool.Balance
	warm time.Duration
}

func (b balanced) asked(now time.Duration, open int) bool {
	b.Asked(now)
	return b.Due(now, b.width(now), open)
}
func (b balanced) width(now time.Duration) int { return b.Width(now, b.warm) }
func (b balanced) lasts() time.Duration        { return pool.TurnLasts }
func (b balanced) opened(now time.Duration, random float64) time.Duration {
	b.Begins(now)
	return b.Lifetime(jitter, random)
}

// ride is a connection.
type ride struct {
	of      *caller
	pod     int
	expires time.Duration
	until   time.Duration // it is in use until then
	since   time.Duration // idle
	turn    time.Duration // its turn began then; 0: it waits for it
}

// caller is a client. It does with connections what the pool does.
type caller struct {
	rule
	all   []*ride // the oldest first
	turn  []*ride // idle: those whose turn it is, then the next to be used
	spare []*ride // idle, the next to be used last

	tidied time.Duration
}

func (c *caller) put(r *ride, now time.Duration) {
	r.since = now
	switch {
	case len(c.turn) >= c.width(now):
		c.spare = append(c.spare, r)
	case r.turn > 0 && now-r.turn < c.lasts():
		c.turn = slices.Insert(c.turn, 0, r)
	default:
		c.lineUp(r)
	}
}

// lineUp puts a connection behind those that were used before it.
func (c *caller) lineUp(r *ride) {
	r.turn = 0
	i := len(c.turn)
	for i > 0 && c.turn[i-1].since > r.since {
		i--
	}
	c.turn = slices.Insert(c.turn, i, r)
}

// take takes an idle connection; nil if there is none.
func (c *caller) take(now time.Duration) *ride {
	if now-c.tidied >= time.Second {
		c.tidy(now)
	}
	for len(c.turn) > c.width(now) {
		c.spare = slices.Insert(c.spare, 0, c.turn[0])
		c.turn = c.turn[1:]
	}
	for len(c.turn) > 0 && c.turn[0].turn > 0 && now-c.turn[0].turn >= c.lasts() {
		r := c.turn[0]
		c.turn = c.turn[1:]
		c.lineUp(r)
	}
	for {
		var r *ride
		if len(c.turn) > 0 {
			r, c.turn = c.turn[0], c.turn[1:]
			if r.turn == 0 {
				r.turn = now
			}
		} else if n := len(c.spare); n > 0 {
			r, c.spare = c.spare[n-1], c.spare[:n-1]
		}
		if r == nil || now < r.expires {
			return r
		}
		c.lose(r)
	}
}

// tidy closes idle connections that are too old, or idle for too long. The pool's
// janitor does it each second.
func (c *caller) tidy(now time.Duration) {
	c.tidied = now
	for _, idle := range []*[]*ride{&c.turn, &c.spare} {
		*idle = slices.DeleteFunc(*idle, func(r *ride) bool {
			gone := now >= r.expires || now-r.since > 50*time.Second
			if gone {
				c.lose(r)
			}
			return gone
		})
	}
}

func (c *caller) lose(r *ride) {
	i := slices.Index(c.all, r)
	c.all = slices.Delete(c.all, i, i+1)
}

// service is what is called.
type service struct {
	rand    *rand.Rand
	takes   time.Duration // a request, on average
	callers []*caller
	pods    int
	busy    rides
	tally
}

// open opens a connection.
func (s *service) open(c *caller, now time.Duration) *ride {
	r := &ride{of: c, pod: s.rand.IntN(s.pods), expires: now + c.opened(now, s.rand.Float64())}
	c.all = append(c.all, r)
	s.opens++
	return r
}

// request is sent by a client.
func (s *service) request(c *caller, now time.Duration) {
	if c.asked(now, len(c.all)) {
		if len(c.all) > 0 && len(c.all) >= c.width(now) {
			c.all[0].expires = now
		}
		c.put(s.open(c, now), now)
	}
	r := c.take(now)
	if r == nil {
		r = s.open(c, now)
	}
	s.served(r.pod, now)
	r.until = now + time.Duration(s.rand.ExpFloat64()*float64(s.takes))
	heap.Push(&s.busy, r)
}

// run sends so many requests a second, at random times.
func (s *service) run(rate float64) {
	s.pods = podsFirst
	next := measured
	for now := time.Duration(0); ; {
		now += time.Duration(s.rand.ExpFloat64() / rate * float64(time.Second))
		for len(s.busy) > 0 && s.busy[0].until <= now {
			if r := heap.Pop(&s.busy).(*ride); r.until < r.expires {
				r.of.put(r, r.until)
			} else {
				r.of.lose(r)
			}
		}
		for ; now >= next; next += slot {
			s.endSlot(next, s.pods)
			if next >= grows {
				s.pods = podsThen
			}
			if next == simulated {
				return
			}
		}
		s.request(s.callers[s.rand.IntN(len(s.callers))], now)
	}
}

// tally is what is measured.
type tally struct {
	requests, opens int
	counts          [podsThen]int           // requests of each pod in this slot
	first           [podsThen]time.Duration // what it takes until each new pod has a request
	slots           int
	worst           float64 // the busiest pod's requests, of a fair share; the sum over slots
	seen, starved   int     // pods in slots, and those without a request
}

func (t *tally) served(pod int, now time.Duration) {
	t.counts[pod]++
	if t.first[pod] == 0 && now >= grows {
		t.first[pod] = now - grows
	}
}

func (t *tally) endSlot(now time.Duration, pods int) {
	all := t.counts
	counts := all[:pods]
	t.counts = [podsThen]int{}
	if now == measured {
		t.opens = 0
		return
	}
	sum := 0
	for _, n := range counts {
		sum += n
		if n == 0 {
			t.starved++
		}
	}
	t.slots++
	t.requests += sum
	t.seen += pods
	t.worst += float64(slices.Max(counts)*pods) / float64(max(sum, 1))
}

// spread is what comes of a rule, over many runs.
type spread struct {
	worst   float64         // share of the busiest pod in a slot, of a fair one
	starved float64         // share of pods without a request in a slot
	first   []time.Duration // what it took until a new pod had a request, in order
	opens   float64         // connections for a request
	rate    float64         // connections a second
}

// simulate runs a rule as often as is asked for, for so many clients that send so
// many requests a second together.
func simulate(runs int, rate float64, callers int, takes time.Duration, make func() rule) (all spread) {
	for seed := range runs {
		s := &service{rand: rand.New(rand.NewPCG(uint64(seed), 1)), takes: takes}
		for range callers {
			s.callers = append(s.callers, &caller{rule: make()})
		}
		s.run(rate)
		all.worst += s.worst / float64(s.slots*runs)
		all.starved += float64(s.starved) / float64(s.seen*runs)
		all.opens += float64(s.opens) / float64(s.requests*runs)
		all.rate += float64(s.opens) / (float64(runs) * (simulated - measured).Seconds())
		for _, f := range s.first[podsFirst:] {
			if f == 0 {
				f = simulated - grows
			}
			all.first = append(all.first, f)
		}
	}
	slices.Sort(all.first)
	return all
}

// within is how long a new pod waits at most, in this share of all cases.
func (s *spread) within(share float64) time.Duration {
	return s.first[int(share*float64(len(s.first)-1))]
}

// rides are the connections in use, the one that comes back next first.
type rides []*ride

func (b rides) Len() int           { return len(b) }
func (b rides) Less(i, j int) bool { return b[i].until < b[j].until }
func (b rides) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *rides) Push(x any)        { *b = append(*b, x.(*ride)) }
func (b *rides) Pop() any {
	last := len(*b) - 1
	r := (*b)[last]
	*b = (*b)[:last]
	return r
}
