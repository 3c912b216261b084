package pool

import (
	"math"
	"time"
)

// balance says over how many connections an origin's requests are spread, and
// when one is opened that no request waits for. It sees requests and times, and
// looks at no connection. The origin's mutex guards it. The zero value is ready.
//
// Behind one address there may be one server or, as behind the cluster IP of a
// Kubernetes Service, many: kube-proxy takes one at random for each connection,
// which stays there. A client cannot tell them apart. So all that it can choose
// is how often it opens a connection, and how many of those that it has it uses
// in turn. Those two are one: if each is used for MAX_CONN_AGE (A), b a second
// keep b × A of them in turn. The rule is this one budget:
//
//	b = √rate / 10 a second, but for one request in 20 at most
//
// Of n servers a new one is found after n / b seconds on average. Until then
// rate / n of the requests, which should have gone there, go to the others.
// Those are rate / b in all, and what an opening costs is the same at any rate:
// the sum of the two costs is least where b is in proportion to √rate. The factor
// makes one request in 70 open a connection at 50 a second (1.4 %), one in 32 at
// 10, one in 173 at 300. Below 4 a second, where one client's requests are no
// load, the second bound leaves pure reuse as it was.
//
// It is spent evenly. Each connection that is opened replaces the oldest one if
// there are enough. So those that a burst has opened at once are replaced one by one
// within an age.
//
// Latency is left out. A connection carries one request at a time, so one to a busy
// server comes back later and is taken less often anyway. To take the quicker one of
// two, by a moving average, levels servers that have one worker and much to do: 1.22
// of a fair share for the busiest one instead of 1.33, at 57 % of what they can do.
// But where some are in another zone, a millisecond away, it is 1.8 instead of 1.6,
// for nothing (simulated, too). So a request takes its turn.
//
// docs/BALANCE.md has what a simulation says, beside rules of fixed width. It
// runs this code (see balance_test.go).
type balance struct {
	// reuse says that the connection used last is used, and none is opened ahead of
	// need.
	reuse bool
	// alone says that the server is known to serve one connection at a time: one
	// more would only wait.
	alone bool
	// age is how old a connection may become; 0 is without bound.
	age time.Duration

	asks    meter
	began   time.Duration // when a connection was begun last
	settled bool          // lifetime was asked for
}

const (
	// root is how many seconds pass between openings at one request a second, were
	// it not for leastUse.
	root = 10
	// leastUse is how many requests there are for one opening, at least.
	leastUse = 20
	// widest is how many connections are used in turn at most, for the sake of
	// servers that have a worker for each. From about 250 requests a second on most
	// origins need as many at a time.
	widest = 32
	// usesWhileWarm is how often a connection in turn is used, on average, before
	// it has been idle for too long.
	usesWhileWarm = 2
)

// asked notes a request.
func (b *balance) asked(now time.Duration) { b.asks.add(now) }

// begins notes that a connection is being opened, whatever for.
func (b *balance) begins(now time.Duration) { b.began = now }

// budget is how many connections are opened a second, those that requests wait
// for included, as far as these suffice.
func (b *balance) budget(now time.Duration) float64 { return Openings(b.asks.rate(now)) }

// Openings returns how many connections a second a pool with default settings opens to
// an origin that has so many requests a second, to spread them (see balance). Bursts
// and short ages come on top.
func Openings(rate float64) float64 { return min(math.Sqrt(rate)/root, rate/leastUse) }

// width is how many connections are used in turn, over all addresses; 1 is the one
// used last. warm is for how long a connection may be idle and still be used by any
// request.
func (b *balance) width(now, warm time.Duration) int {
	if b.reuse || b.alone {
		return 1
	}
	wide := min(widest, b.asks.rate(now)*warm.Seconds()/usesWhileWarm)
	if b.age > 0 {
		wide = min(wide, b.budget(now)*b.age.Seconds())
	}
	return max(int(wide), 1)
}

// endpoints is how many of an origin's addresses are used for so many connections
// in turn. Behind each of them width / endpoints are, but one at least: whether an
// address is a server or a balancer cannot be told.
func (b *balance) endpoints(width, addresses int) int {
	if b.reuse {
		return min(addresses, 1)
	}
	return min(addresses, max(width, 2))
}

// due reports whether a connection is to be opened now that no request waits for,
// where so many are open that carry requests: one more if these are less than
// width, or else one that replaces the oldest.
func (b *balance) due(now time.Duration, width, open int) bool {
	if b.reuse || b.alone {
		return false
	}
	since := (now - b.began).Seconds()
	if since*b.budget(now) < 1 {
		return false
	}
	return open < width || b.age > 0 && since*float64(open) >= b.age.Seconds()
}

// lifetime is how old a connection that has been opened may become; 0 is without
// bound. jitter is the share of the age by which connections differ, and random is
// between 0 and 1. The first of all may go at any time: else clients that start
// together would stay in step, an age apart, for minutes.
func (b *balance) lifetime(jitter, random float64) time.Duration {
	if !b.settled {
		b.settled, jitter = true, 1
	}
	return b.age - time.Duration(jitter*random*float64(b.age))
}

// meter measures a rate, over the last ten to twenty seconds. For the first ten
// seconds, and after a pause of ten, it is told too low: who begins is not spread
// wide at once. The zero value is ready.
type meter struct {
	from      time.Duration // when the current period began
	n, before int           // what came in it, and in the one before
}

const countFor = 10 * time.Second

func (m *meter) add(now time.Duration) {
	m.turn(now)
	m.n++
}

// rate is how many came a second.
func (m *meter) rate(now time.Duration) float64 {
	m.turn(now)
	left := 1 - float64(now-m.from)/float64(countFor) // of the period before
	return (float64(m.n) + float64(left*float64(m.before))) / countFor.Seconds()
}

// turn begins the current period.
func (m *meter) turn(now time.Duration) {
	switch past := now - m.from; {
	case past < countFor:
	case past < 2*countFor:
		m.from, m.n, m.before = m.from+countFor, 0, m.n
	default:
		m.from, m.n, m.before = now, 0, 0
	}
}
