package observe

import (
	"net/netip"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
)

// A view is what one look has found.
type view struct {
	// sockets are those that there are, whatever state they are in.
	sockets []sockdiag.Socket
	// ended are those that have ended since the look before, if the source is told.
	ended []sockdiag.Socket
	// told says that the source is told of those that end, of all since the look before.
	told bool
	// opened is how many connections the kernel says were opened in the namespace so far, failed attempts left out;
	// -1: not known.
	opened int
}

// A tally counts the connections that were opened, each once, however often and in whatever state it is seen. It is for
// one goroutine.
type tally struct {
	began, last time.Time
	looks       int
	told        bool // of every end so far

	served map[uint16]bool    // local ports that somebody has listened on: what leads there is inbound
	known  map[ends]*sighting // the connections that were seen of late
	to     map[netip.AddrPort]*destination
	self   map[netip.Addr]bool // addresses of this namespace

	firstOpened, lastOpened int // the kernel's count; -1: not known
}

// ends are the two of a connection.
type ends struct{ src, dst netip.AddrPort }

// A sighting is what is known of a connection. The kernel calls it by one number while it is open and by another when it
// waits (mostly in TIME_WAIT); 0 is one that was not seen yet, or that has none.
type sighting struct {
	live, waiting uint64
	waits         bool // it was seen waiting
	fresh         bool // it was opened while looking
	at            time.Time
}

// A destination is what is known of where connections lead.
type destination struct {
	opened   int // while looking
	vanished int // opened while looking, and gone without TIME_WAIT: the other side has closed first
	atOnce   int // most that were open at a time
	kept     int // fewest that were open at a time
	timeWait int // waiting at the last look
	roundTrip
}

// roundTrip is an average.
type roundTrip struct {
	sum time.Duration
	n   int
}

func (r *roundTrip) add(s sockdiag.Socket) {
	if s.Informed && s.RTT > 0 {
		r.sum += s.RTT
		r.n++
	}
}

// mean is 0 if nothing was measured.
func (r roundTrip) mean() time.Duration { return r.sum / time.Duration(max(r.n, 1)) }

// forgetAfter is how long a connection may be neither there nor told of before it is forgotten. The kernel tells of an
// end a moment after it.
const forgetAfter = 2 * time.Second

func newTally(now time.Time) *tally {
	return &tally{
		began: now, last: now, told: true,
		served: map[uint16]bool{}, known: map[ends]*sighting{}, to: map[netip.AddrPort]*destination{}, self: map[netip.Addr]bool{},
	}
}

// add notes one look. What the first one finds was there before, and counts as open and not as opened.
func (t *tally) add(now time.Time, v view) {
	t.last = now
	for _, s := range v.sockets {
		if s.State == sockdiag.Listen {
			t.served[s.Src.Port()] = true
		} else {
			t.self[s.Src.Addr()] = true
		}
	}
	for _, s := range v.ended {
		t.sight(now, s)
	}
	open, waiting := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	for _, s := range v.sockets {
		if !t.sight(now, s) {
			continue
		}
		switch {
		case s.Waiting:
			waiting[s.Dst]++
		case s.State == sockdiag.Established:
			open[s.Dst]++
		}
	}
	for to, d := range t.to {
		d.atOnce = max(d.atOnce, open[to])
		d.timeWait = waiting[to]
		if t.looks == 0 {
			d.kept = open[to]
		}
		d.kept = min(d.kept, open[to])
	}
	t.forget(now)
	t.told = t.told && v.told
	t.lastOpened = v.opened
	if t.looks == 0 {
		t.firstOpened = v.opened
	}
	t.looks++
}

// sight notes a socket, and reports whether it is one end of a connection that was opened here.
func (t *tally) sight(now time.Time, s sockdiag.Socket) bool {
	attempt := s.State == sockdiag.SynSent || s.Informed && !s.Connected && s.State == sockdiag.Closed
	if s.State == sockdiag.Listen || attempt || s.Dst.Port() == 0 || t.served[s.Src.Port()] {
		return false
	}
	d := t.to[s.Dst]
	if d == nil {
		d = &destination{}
		t.to[s.Dst] = d
	}
	key := ends{s.Src, s.Dst}
	k := t.known[key]
	if k == nil || !k.is(s) {
		if k != nil {
			d.gone(k)
		}
		k = &sighting{fresh: t.looks > 0}
		t.known[key] = k
		if k.fresh {
			d.opened++
		}
		d.add(s)
	} else if s.State == sockdiag.Closed {
		d.add(s)
	}
	k.note(now, s)
	return true
}

// is reports whether a socket with the same ends is the same connection. A port can be taken again while its last
// connection is in TIME_WAIT.
func (k *sighting) is(s sockdiag.Socket) bool {
	switch {
	case s.Waiting:
		return !k.waits || k.waiting == s.Cookie
	case k.live == 0 && s.State == sockdiag.Closed:
		return true // told late: it was seen waiting already
	case k.live == 0:
		return !k.waits
	}
	return k.live == s.Cookie || s.Cookie == 0
}

func (k *sighting) note(now time.Time, s sockdiag.Socket) {
	k.at = now
	switch {
	case s.Waiting:
		k.waits, k.waiting = true, s.Cookie
	case s.Cookie != 0:
		k.live = s.Cookie
	}
}

// forget drops what has not been there for a while.
func (t *tally) forget(now time.Time) {
	for key, k := range t.known {
		if now.Sub(k.at) > forgetAfter {
			t.to[key.dst].gone(k)
			delete(t.known, key)
		}
	}
}

// gone notes that a connection is no more.
func (d *destination) gone(k *sighting) {
	if k.fresh && !k.waits {
		d.vanished++
	}
}

// unseen is how many connections the kernel says were opened beside those that were seen.
func (t *tally) unseen() int {
	if t.firstOpened < 0 || t.lastOpened < 0 || t.told {
		return 0
	}
	seen := 0
	for _, d := range t.to {
		seen += d.opened
	}
	return max(t.lastOpened-t.firstOpened-seen, 0)
}

// missed divides the unseen among the destinations. All of them were closed by the other side, or they would show in
// TIME_WAIT, and so they are like those that vanished. What nothing is like is left.
func (t *tally) missed() (to map[netip.AddrPort]float64, left int) {
	unseen := t.unseen()
	vanished := 0
	for key, k := range t.known {
		if k.at.Before(t.last) {
			t.to[key.dst].gone(k)
			delete(t.known, key)
		}
	}
	for _, d := range t.to {
		vanished += d.vanished
	}
	if unseen == 0 || vanished == 0 {
		return nil, unseen
	}
	to = map[netip.AddrPort]float64{}
	for a, d := range t.to {
		to[a] = float64(unseen) * float64(d.vanished) / float64(vanished)
	}
	return to, 0
}
