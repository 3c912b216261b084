package pool_test

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// A fleet of sidecars, each with a few origins. All start within 90 seconds. Then
// the pods of all origins restart, then all sidecars within 90 seconds, then the name servers
// are away.

const sidecars = 1000

// fleetRates are the requests a second of one sidecar to each of its origins.
var fleetRates = []float64{50, 10, 10, 10, 2, 2, 2, 2, 2, 2, .2, .2, .2, .2, .2, .2, .2, .2, .2, .2}

// What happens to the fleet, and from when till when.
var (
	starts   = phase{"sidecars start", 0, 90 * time.Second}
	steady   = phase{"", 2 * time.Minute, 3 * time.Minute} // what all is measured by
	restarts = phase{"upstream pods restart", 3 * time.Minute, 4*time.Minute + 10*time.Second}
	rollout  = phase{"sidecars restart", 5 * time.Minute, 390 * time.Second}
	outage   = phase{"no name server", 7 * time.Minute, 8 * time.Minute}
	over     = 9 * time.Minute
)

type phase struct {
	name     string
	from, to time.Duration
}

func (p phase) has(now time.Duration) bool { return p.from <= now && now < p.to }

// sometime is a time in the phase.
func (p phase) sometime(r *rand.Rand) time.Duration {
	return p.from + time.Duration(r.Float64()*float64(p.to-p.from))
}

// perSecond counts events by the second.
type perSecond []int

func (s *perSecond) add(now time.Duration, n int) {
	if *s == nil {
		*s = make(perSecond, over/time.Second)
	}
	if now < over {
		(*s)[now/time.Second] += n
	}
}

func (s perSecond) in(p phase) perSecond { return s[p.from/time.Second : p.to/time.Second] }

func (s perSecond) mean() float64 {
	sum := 0
	for _, n := range s {
		sum += n
	}
	return float64(sum) / float64(len(s))
}

// chart draws the worst second of each quarter of a minute.
func (s perSecond) chart(what string) string {
	var b strings.Builder
	mean := s.in(steady).mean()
	fmt.Fprintf(&b, "%s a second, of the steady mean (%.0f): the worst second of each 15\n\n", what, mean)
	for from := time.Duration(0); from < over; from += 15 * time.Second {
		worst := float64(slices.Max(s.in(phase{"", from, from + 15*time.Second}))) / mean
		var notes []string
		for _, p := range []phase{starts, restarts, rollout, outage} {
			if p.from < from+15*time.Second && from < p.to {
				notes = append(notes, p.name)
			}
		}
		line := fmt.Sprintf("%4.0f s  %.2f  %-30s  %s", from.Seconds(), worst, strings.Repeat("#", int(worst*20+.5)), strings.Join(notes, ", "))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// peak reports what is more than half above the steady mean.
func (s perSecond) peak(t *testing.T, what string) {
	mean := s.in(steady).mean()
	for i, n := range s {
		if float64(n) > 1.5*mean {
			t.Errorf("%s: %d in second %d, the mean is %.0f", what, n, i, mean)
		}
	}
}

// fleetOrigin is one origin of one sidecar.
type fleetOrigin struct {
	rand    *rand.Rand
	balance *pool.Balance
	rides   []ride // the oldest first
	opens   *perSecond
}

func (o *fleetOrigin) open(now time.Duration) {
	o.balance.Begins(now)
	o.rides = append(o.rides, ride{pod: o.rand.IntN(podsThen), expires: now + o.balance.Lifetime(jitter, o.rand.Float64())})
	o.opens.add(now, 1)
}

// drop drops the connections that are gone since.
func (o *fleetOrigin) drop(since, now time.Duration) {
	restarted := func(pod int) bool {
		at := restarts.from + time.Duration(pod)*10*time.Second
		return since < at && at <= now
	}
	o.rides = slices.DeleteFunc(o.rides, func(r ride) bool { return now >= r.expires || restarted(r.pod) })
}

// run sends requests from one time to another.
func (o *fleetOrigin) run(rate float64, from, to time.Duration) {
	for last, now := from, from; ; last = now {
		now += time.Duration(o.rand.ExpFloat64() / rate * float64(time.Second))
		if now >= to {
			return
		}
		o.balance.Asked(now)
		o.drop(last, now)
		width := o.balance.Width(now, usualWarm)
		switch {
		case len(o.rides) == 0:
			o.open(now)
		case o.balance.Due(now, width, len(o.rides)):
			if len(o.rides) >= width {
				o.rides = o.rides[1:]
			}
			o.open(now)
		}
	}
}

// TestAFleetOpensConnectionsEvenly runs the pool's own code for each origin.
func TestAFleetOpensConnectionsEvenly(t *testing.T) {
	if testing.Short() || testkit.Race {
		t.Skip("much arithmetic")
	}
	var opens perSecond
	for i := range sidecars {
		r := rand.New(rand.NewPCG(uint64(i), 2))
		born, reborn := starts.sometime(r), rollout.sometime(r)
		for _, rate := range fleetRates {
			for _, life := range []phase{{"", born, reborn}, {"", reborn, over}} {
				o := fleetOrigin{rand: r, balance: pool.NewBalance(usualAge), opens: &opens}
				o.run(rate, life.from, life.to)
			}
		}
	}
	opens.peak(t, "connections")
	keep(t, "connections", "```text\n"+opens.chart("connections")+"```\n")
}

// What names are asked by, in pool/names.
const (
	dnsTTL     = 30 * time.Second
	dnsRefresh = .8 // of its time, when an answer is asked for anew
	dnsQueries = 2  // for A and AAAA
)

// TestAFleetAsksNameServersEvenly is arithmetic on the resolver's rules: the first
// answer of a name is asked for anew at any time before it has to be, and what
// failed is asked for again after as long as if it had not, and no sooner while
// there are addresses.
func TestAFleetAsksNameServersEvenly(t *testing.T) {
	var queries perSecond
	var due schedule
	r := rand.New(rand.NewPCG(1, 3))
	for range sidecars {
		born, reborn := starts.sometime(r), rollout.sometime(r)
		for range fleetRates {
			due = append(due, lookUp{at: born, until: reborn, first: true}, lookUp{at: reborn, until: over, first: true})
		}
	}
	heap.Init(&due)
	for len(due) > 0 {
		l := &due[0]
		if l.at >= l.until {
			heap.Pop(&due)
			continue
		}
		queries.add(l.at, dnsQueries)
		next := time.Duration(dnsRefresh * (1 - jitter + 2*jitter*r.Float64()) * float64(dnsTTL))
		if l.first && !outage.has(l.at) {
			l.first, next = false, time.Duration(r.Float64()*float64(next))
		}
		l.at += next
		heap.Fix(&due, 0)
	}
	queries.peak(t, "queries")
	keep(t, "queries", "```text\n"+queries.chart("queries")+"```\n")
}

// lookUp is the next look-up of one name.
type lookUp struct {
	at, until time.Duration
	first     bool
}

// schedule are look-ups, the next one first.
type schedule []lookUp

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return cmp.Less(s[i].at, s[j].at) }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)        { *s = append(*s, x.(lookUp)) }
func (s *schedule) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}
