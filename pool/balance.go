package pool

import (
	"math"
	"time"
)

// balance says over how many connections an origin's requests are spread, and
// when one is opened that no request waits for. It sees requests and times, and
// looks at no connection. The origin's mutex guards it. The zero value is ready.
type balance struct {
	// reuse says that the connection used last is used, and none is opened ahead of
	// need.
	reuse bool
	// alone says that the server is known to serve one connection at a time: one
	// more would only wait.
	alone bool
	// age is how old a connection may become; 0 is without bound.
	age time.Duration

	from      time.Duration // when the period began in which requests are counted
	n, before int           // requests of this period, and of the one before
	began     time.Duration // when a connection was begun last
}

const (
	countFor = 10 * time.Second
	widest   = 32
)

// asked notes a request.
func (b *balance) asked(now time.Duration) {
	b.turn(now)
	b.n++
}

func (b *balance) turn(now time.Duration) {
	switch past := now - b.from; {
	case past < countFor:
	case past < 2*countFor:
		b.from, b.n, b.before = b.from+countFor, 0, b.n
	default:
		b.from, b.n, b.before = now, 0, 0
	}
}

func (b *balance) rate(now time.Duration) float64 {
	b.turn(now)
	left := 1 - float64(now-b.from)/float64(countFor)
	return (float64(b.n) + left*float64(b.before)) / countFor.Seconds()
}

// begins notes that a connection is being opened, whatever for.
func (b *balance) begins(now time.Duration) { b.began = now }

// budget is how many connections are opened a second.
func (b *balance) budget(now time.Duration) float64 {
	rate := b.rate(now)
	return min(math.Sqrt(rate)/10, rate/20)
}

// width is how many connections are used in turn, over all addresses; 1 is the one
// used last. warm is for how long a connection may be idle and still be used by any
// request.
func (b *balance) width(now, warm time.Duration) int {
	if b.reuse || b.alone {
		return 1
	}
	wide := min(widest, b.rate(now)*warm.Seconds()/2)
	if b.age > 0 {
		wide = min(wide, b.budget(now)*b.age.Seconds())
	}
	return max(int(wide), 1)
}

// endpoints is how many of an origin's addresses are used for so many connections
// in turn.
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
