// Package load sends requests through a proxy and checks the answers: status, length, and the id that each request
// carries and its answer has to carry back.
//
// A closed loop has so many clients, each of which sends its next request when it has its answer. An open loop has
// requests that are due at fixed points in time. Their latency counts from when they were due, not from when they were
// sent, so a stall delays all requests that came due in it, on paper too (no coordinated omission).
package load

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/figures"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// A Turn is one thing to send, and the answer to it.
type Turn struct {
	// Connect asks for a tunnel to the host.
	Connect bool
	// URL, in which {host} stands for the host, is what a request asks for. Empty: the turn is no request.
	URL string
	// Body is the length of the request's body.
	Body int
	// Up and Down are the lengths of a message and its answer, for turns that are neither.
	Up, Down int
	// Want is the length of the body that the answer to a request has.
	Want int
}

// An Ending is what becomes of a connection after an exchange.
type Ending string

// The zero Ending keeps connections open.
const (
	Kept     Ending = ""
	ByServer Ending = "server" // the client says Connection: close, and the other side closes
	ByClient Ending = "client" // the client closes
)

// A Spec says what clients do.
type Spec struct {
	Proxy netip.AddrPort
	// Hosts are asked in turn.
	Hosts []string
	// Open comes first on each connection, Turns are the exchange.
	Open, Turns []Turn
	End         Ending
}

// A Command says what the clients do next. They keep their connections between commands.
type Command struct {
	// Clients is how many there are; in an open loop, how many connections stand at its beginning.
	Clients int
	// For is how long requests are sent.
	For time.Duration
	// AtLeast many exchanges are made, however long that takes.
	AtLeast int
	// Once opens connections until there are Clients, with one exchange on each. For and AtLeast do not count.
	Once bool
	// Rate is that of an open loop, in exchanges a second; 0 is a closed loop. Seed determines when they are due.
	Rate float64
	Seed uint64
}

// A Result is what came of a command.
type Result struct {
	Done    int            // exchanges that were right
	Errors  map[string]int // by what was wrong
	Opened  int            // connections
	Lost    int            // kept connections that the other side closed
	Elapsed time.Duration
	Latency figures.Histogram // from when the exchange was due
	Late    figures.Histogram // open loop: by how much the load itself was late to send
}

// Failed returns how many exchanges were not right.
func (r *Result) Failed() (sum int) {
	for _, n := range r.Errors {
		sum += n
	}
	return sum
}

// Schedule returns when the exchanges of an open loop are due, in order: as many points in time, independent of each
// other, as the rate makes in that time. So each round has as many exchanges, and the same seed the same points.
func Schedule(rate float64, in time.Duration, seed uint64) []int64 {
	random := rand.New(rand.NewPCG(seed, 0))
	due := make([]int64, int(rate*in.Seconds()))
	for i := range due {
		due[i] = random.Int64N(int64(in))
	}
	slices.Sort(due)
	return due
}

// text returns what a turn sends to the host.
func (t Turn) text(host string, last bool) wire.Text {
	switch {
	case t.Connect:
		return wire.Connect(host)
	case t.URL != "":
		return wire.Request(fill(t.URL, host), host, t.Body, last)
	}
	return wire.Message(t.Up, t.Down)
}
