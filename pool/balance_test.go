package pool_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

var update = flag.Bool("update", false, "write what the simulations say into docs/BALANCE.md")

// How long connections last, and how long they may be idle, by default.
const (
	usualAge  = 20 * time.Second
	usualWarm = 25 * time.Second
)

// rules are what the pool's own is compared with: the most recently used
// connection alone, and a fixed number in turn.
var rules = []struct {
	name string
	make func() rule
}{
	{"last used, 120 s", func() rule { return fixed{1, 120 * time.Second} }},
	{"last used, 20 s", func() rule { return fixed{1, usualAge} }},
	{"8 in turn, 20 s", func() rule { return fixed{8, usualAge} }},
	{"16 in turn, 30 s", func() rule { return fixed{16, 30 * time.Second} }},
	{"carpool, 20 s", usualRule},
}

func usualRule() rule { return balanced{pool.NewBalance(usualAge), usualWarm} }

// loads are what the rules are simulated with. For the lower rates the bounds are
// of cost alone.
var loads = []struct {
	rate    float64 // of all clients together
	callers int
	runs    int

	most    float64       // of the busiest pod, of a fair share
	starved float64       // share of pods in slots, at most
	opens   float64       // for a request, at most
	first   time.Duration // in three of four cases a new pod has a request by then,
	nearly  time.Duration // and in 19 of 20
}{
	{0.2, 1, 100, 5, 1, 0.24, unbounded, unbounded},
	{2, 1, 100, 3, 0.5, 0.055, unbounded, unbounded},
	{10, 1, 60, 1.95, 0.11, 0.035, 35 * time.Second, 80 * time.Second},
	{50, 1, 100, 1.6, 0.008, 0.015, 15 * time.Second, 35 * time.Second},
	{100, 1, 30, 1.5, 0.0025, 0.012, 12 * time.Second, 30 * time.Second},
	{300, 1, 15, 1.4, 0, 0.007, 8 * time.Second, 17 * time.Second},
	{1000, 1, 5, 1.4, 0, 0.004, 7 * time.Second, 12 * time.Second},
	{200, 20, 10, 1.25, 0, 0.035, 3 * time.Second, 8 * time.Second},
	{1000, 20, 3, 1.15, 0, 0.015, 2 * time.Second, 4 * time.Second},
}

const unbounded = simulated

// The table of docs/BALANCE.md, and what is promised of it.
func TestBalanceBehindOneAddress(t *testing.T) {
	if testing.Short() || testkit.Race {
		t.Skip("much arithmetic")
	}
	var b strings.Builder
	b.WriteString("| |")
	for _, r := range rules {
		fmt.Fprintf(&b, " %s |", r.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(rules)) + "\n")
	for _, l := range loads {
		fmt.Fprintf(&b, "| %v/s", l.rate)
		if l.callers > 1 {
			fmt.Fprintf(&b, " from %d pods", l.callers)
		}
		b.WriteString(" |")
		for i, r := range rules {
			own, runs := i == len(rules)-1, max(l.runs/3, 1)
			if own {
				runs = l.runs
			}
			s := simulate(runs, l.rate, l.callers, 5*time.Millisecond, r.make)
			fmt.Fprintf(&b, " %.2f, %.1f %%, %.0f s (%.0f s), %.2f %% |", s.worst, 100*s.starved, s.within(.75).Seconds(), s.within(.95).Seconds(), 100*s.opens)
			if own && (s.worst > l.most || s.starved > l.starved || s.opens > l.opens || s.within(.75) > l.first || s.within(.95) > l.nearly) {
				t.Errorf("at %v/s: busiest pod %.2f of a fair share, %.2f %% starved, new pods after %v and %v, %.2f %% of requests open a connection; want at most %+v",
					l.rate, s.worst, 100*s.starved, s.within(.75), s.within(.95), 100*s.opens, l)
			}
		}
		b.WriteString("\n")
	}
	t.Log("\n" + b.String())
	keep(t, "balance", b.String())
}

// keep holds a part of docs/BALANCE.md against what it is to be.
func keep(t *testing.T, name, want string) {
	const path = "../docs/BALANCE.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has no part %q", path, name)
	case got == want:
	case !*update:
		t.Fatalf("%s does not say what the simulation says: go test ./pool -run %s -update", path, t.Name())
	default:
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// ask tells b of requests at an even rate, from one time to another.
func ask(b *pool.Balance, rate float64, from, to time.Duration) {
	for now := from; now < to; now += time.Duration(float64(time.Second) / rate) {
		b.Asked(now)
	}
}

func TestTheRateIsThatOfTheLastSeconds(t *testing.T) {
	var b pool.Balance
	near := func(now time.Duration, want float64) {
		t.Helper()
		if got := b.Rate(now); math.Abs(got-want) > want/20+.01 {
			t.Errorf("after %v it is %.2f, want %.2f", now, got, want)
		}
	}
	near(0, 0)
	near(time.Hour, 0)
	start := time.Hour
	ask(&b, 50, start, start+time.Minute)
	near(start+time.Minute, 50)
	ask(&b, 2, start+time.Minute, start+80*time.Second)
	near(start+80*time.Second, 2)
	ask(&b, 1000, start+80*time.Second, start+100*time.Second)
	near(start+100*time.Second, 1000)
	near(start+105*time.Second, 500)
	near(start+2*time.Minute, 0)
}

func TestTheWidthFollowsTheRate(t *testing.T) {
	for _, c := range []struct {
		name      string
		rate      float64
		age, warm time.Duration
		want      int
	}{
		{"a request now and then", .2, usualAge, usualWarm, 1},
		{"one a second", 1, usualAge, usualWarm, 1},
		{"no more than each is used twenty times", 3, usualAge, usualWarm, 3},
		{"ten a second", 10, usualAge, usualWarm, 6},
		{"fifty a second", 50, usualAge, usualWarm, 14},
		{"many", 5000, usualAge, usualWarm, pool.Widest},
		{"replaced soon, so as not to cost more", 50, 3 * time.Second, usualWarm, 2},
		{"replaced late", 10, time.Minute, usualWarm, 18},
		{"never replaced", 50, 0, usualWarm, pool.Widest},
		{"never replaced, and cold soon", 2, 0, 4 * time.Second, 4},
		{"the server closes soon", 10, usualAge, 400 * time.Millisecond, 2},
		{"the server closes at once", 50, usualAge, 0, 1},
	} {
		b := pool.NewBalance(c.age)
		ask(b, c.rate, time.Hour, time.Hour+time.Minute)
		if got := b.Width(time.Hour+time.Minute, c.warm); got != c.want {
			t.Errorf("%s: %d connections in turn, want %d", c.name, got, c.want)
		}
	}
	var unused pool.Balance
	if got := unused.Width(0, usualWarm); got != 1 {
		t.Errorf("before the first request it is %d wide", got)
	}
}

func TestOfSeveralAddressesAsManyAreUsedAsStayWarm(t *testing.T) {
	b := pool.NewBalance(usualAge)
	for _, c := range []struct{ width, addresses, want int }{
		{1, 0, 0}, {1, 1, 1}, {14, 1, 1}, {1, 2, 2}, {1, 60, 2}, {3, 60, 3}, {14, 7, 7}, {14, 60, 14},
	} {
		if got := b.Endpoints(c.width, c.addresses); got != c.want {
			t.Errorf("with %d in turn %d of %d addresses are used, want %d", c.width, got, c.addresses, c.want)
		}
	}
	b.SetReuse(true)
	if one, none := b.Endpoints(1, 60), b.Endpoints(1, 0); one != 1 || none != 0 {
		t.Errorf("with reuse %d of 60 are used, %d of none", one, none)
	}
}

// What a burst has opened at once is replaced evenly over one age.
func TestABurstIsReplacedOneByOne(t *testing.T) {
	const rate, open = 500, pool.Widest + 4
	b := pool.NewBalance(usualAge)
	ask(b, rate, 0, time.Minute)
	b.Begins(time.Minute)
	var at []time.Duration
	for now := time.Minute; now < time.Minute+usualAge; now += time.Second / rate {
		b.Asked(now)
		if b.Due(now, b.Width(now, usualWarm), open) {
			b.Begins(now)
			at = append(at, now)
		}
	}
	if len(at) < open-2 || len(at) > open {
		t.Fatalf("of %d, %d were replaced in one age", open, len(at))
	}
	for i := range at[1:] {
		if gap := at[i+1] - at[i]; gap < usualAge/open/2 {
			t.Errorf("two were replaced within %v", gap)
		}
	}
}

// The budget includes what requests had to wait for, and what failed.
func TestNoneIsOpenedAheadOfNeedBeyondTheBudget(t *testing.T) {
	for _, rate := range []float64{.2, 1, 4, 10, 50, 300, 5000} {
		b := pool.NewBalance(usualAge)
		opens, step := 0, time.Duration(float64(time.Second)/rate)
		const from, to = time.Minute, 4 * time.Minute
		for now := time.Duration(0); now < to; now += step {
			b.Asked(now)
			if b.Due(now, b.Width(now, usualWarm), 1) {
				b.Begins(now)
				if now >= from {
					opens++
				}
			}
		}
		most := min(math.Sqrt(rate)/10, rate/20) * (to - from).Seconds()
		if float64(opens) > most*1.02+2 {
			t.Errorf("at %v/s %d were opened in %v, want at most %.0f", rate, opens, to-from, most)
		}
	}
}

func TestPureReuseAndServersOfOneConnectionGetNoneAheadOfNeed(t *testing.T) {
	for name, set := range map[string]func(*pool.Balance){
		"reuse": func(b *pool.Balance) { b.SetReuse(true) },
		"alone": func(b *pool.Balance) { b.SetAlone(true) },
	} {
		b := pool.NewBalance(usualAge)
		ask(b, 500, 0, time.Minute)
		if !b.Due(time.Minute, 14, 1) || b.Width(time.Minute, usualWarm) == 1 {
			t.Fatal("none would be opened anyway")
		}
		set(b)
		if b.Due(time.Minute, 14, 1) || b.Due(time.Minute, 1, 1) || b.Width(time.Minute, usualWarm) != 1 {
			t.Errorf("%s: one is opened ahead of need, or they take turns", name)
		}
	}
}

func TestConnectionsWithoutAgeAreNotReplaced(t *testing.T) {
	b := pool.NewBalance(0)
	ask(b, 500, 0, time.Minute)
	if !b.Due(time.Minute, 8, 7) {
		t.Error("there are too few, and none is opened")
	}
	if b.Due(time.Minute, 8, 8) {
		t.Error("one is replaced")
	}
}

// The first connection may go at any time, so that clients which start together
// come out of step.
func TestOnlyTheFirstConnectionOfAnOriginMayGoAtAnyTime(t *testing.T) {
	b := pool.NewBalance(usualAge)
	if got := b.Lifetime(jitter, .75); got != usualAge/4 {
		t.Errorf("the first lives %v", got)
	}
	if got := b.Lifetime(jitter, .75); got != usualAge*85/100 {
		t.Errorf("the second lives %v", got)
	}
	if got := pool.NewBalance(0).Lifetime(jitter, .75); got != 0 {
		t.Errorf("without bound one lives %v", got)
	}
}

func TestBalanceAllocatesNothing(t *testing.T) {
	b, now := pool.NewBalance(usualAge), time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 20 * time.Millisecond
		b.Asked(now)
		if b.Due(now, b.Width(now, usualWarm), 3) {
			b.Begins(now)
		}
	}); n != 0 {
		t.Errorf("it allocates %v times a request", n)
	}
}
