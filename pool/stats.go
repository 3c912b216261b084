package pool

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/histogram"
	"github.com/carpoolproxy/carpool/pool/names"
)

// Stats are the figures of one origin. Times are sums.
type Stats struct {
	// Opened and Reused count exchanges on a new connection, and on one that
	// was there.
	Opened, Reused uint64
	// DialErrors counts connections that could not be opened.
	DialErrors uint64
	// Closed counts connections closed, by reason.
	Closed map[Reason]uint64
	// HandshakeTime was spent on opening connections, name resolution and TLS
	// included; SavedTime is what the reused ones would have cost on top, about:
	// what opening one usually took by then.
	HandshakeTime, SavedTime time.Duration
	// Handshake is what opening a connection usually takes now; 0 before the
	// first, and in sums.
	Handshake time.Duration
	// Tally counts what borrowers tell by Origin.Tally. The pool gives it no
	// meaning.
	Tally [8]uint64
	// Shared is how many connections carry many requests at a time (HTTP/2) now, and
	// Streams how many they carry. GoAways, Resets and Pings count what servers have
	// said of these: that they take no more requests, and that one is over, or was
	// ended here; and how often they were asked for a sign of life.
	Shared, Streams        int
	GoAways, Resets, Pings uint64
	// SparesMade counts spare tunnels, SparesUsed those of them that a tunnel got, and
	// SparesUnused those that were closed without.
	SparesMade, SparesUsed, SparesUnused uint64
	// InUse, Idle and Waiting are how many there are now.
	InUse, Idle, Waiting int
	// Spares is how many of the idle connections are spare tunnels.
	Spares int
	// Warm is how many connections are to be open before they are needed, as Pool.Warm
	// was told, and WarmOpen how many of these there are.
	Warm, WarmOpen int
	// IdleLimit is after how long the upstream was seen to close idle
	// connections; 0 if that is not known.
	IdleLimit time.Duration
}

func (s *Stats) add(t *Stats) {
	s.Opened += t.Opened
	s.Reused += t.Reused
	s.DialErrors += t.DialErrors
	s.HandshakeTime += t.HandshakeTime
	s.SavedTime += t.SavedTime
	s.SparesMade += t.SparesMade
	s.SparesUsed += t.SparesUsed
	s.SparesUnused += t.SparesUnused
	s.Spares += t.Spares
	s.InUse += t.InUse
	s.Idle += t.Idle
	s.Waiting += t.Waiting
	s.Shared += t.Shared
	s.Streams += t.Streams
	s.GoAways += t.GoAways
	s.Resets += t.Resets
	s.Pings += t.Pings
	s.Warm += t.Warm
	s.WarmOpen += t.WarmOpen
	for i, n := range t.Tally {
		s.Tally[i] += n
	}
	for r, n := range t.Closed {
		if s.Closed == nil {
			s.Closed = map[Reason]uint64{}
		}
		s.Closed[r] += n
	}
}

// OriginStats are the figures of the origin called Origin. Those beyond the
// first few hundred are together called "other".
type OriginStats struct {
	Origin string
	// Way is how connections get there; Directly for "other".
	Way Way
	Stats
	// Addrs are the addresses that its connections lead to, or have led to
	// lately; nil for "other".
	Addrs []AddrStats
}

// Snapshot is a copy of a pool's figures.
type Snapshot struct {
	Origins []OriginStats
	// Total adds up all origins, those too that have been forgotten for lack of
	// use and are in Origins no more. Its IdleLimit and Handshake are 0.
	Total Stats
	// Waits is how long requests waited for a connection, Dials how long it took
	// to open one.
	Waits, Dials histogram.Snapshot
	// MaxConns, MaxConnsPerHost and MaxPendingPerHost are the limits in force, as
	// in Config.
	MaxConns, MaxConnsPerHost, MaxPendingPerHost int
	// DNS are the figures of all names.
	DNS names.Stats
	// Panics counts contained faults.
	Panics uint64
}

// Snapshot returns the pool's figures as they are now.
func (p *Pool) Snapshot() Snapshot {
	s := Snapshot{
		Waits: p.waits.Snapshot(), Dials: p.dials.Snapshot(),
		MaxConns: p.cfg.MaxConns, MaxConnsPerHost: p.cfg.MaxConnsPerHost, MaxPendingPerHost: p.cfg.MaxPendingPerHost,
		DNS: p.names.Stats(), Panics: p.panics.Load(),
	}
	var other Stats
	p.mu.Lock()
	other.add(&p.known.other)
	s.Total.add(&p.known.gone)
	origins := p.allLocked() // under the same lock, or one forgotten meanwhile would be in neither
	p.mu.Unlock()
	unlabelled := other.Opened > 0
	for _, o := range origins {
		t, addrs := o.snapshot()
		if o.label == "" {
			unlabelled = true
			other.add(&t)
		} else {
			s.Total.add(&t)
			s.Origins = append(s.Origins, OriginStats{o.label, o.key.Way, t, addrs})
		}
	}
	s.Total.add(&other)
	if unlabelled {
		s.Origins = append(s.Origins, OriginStats{"other", Directly, other, nil})
	}
	return s
}

func (o *Origin) snapshot() (Stats, []AddrStats) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s Stats
	s.add(&o.stats)
	s.Idle, s.Waiting = o.idle.len(), o.queue.waiting.Len()
	s.InUse, s.Spares = o.open-s.Idle, o.idle.ready.Len()
	o.sharedFiguresLocked(&s)
	s.Warm = o.warmth.want
	s.WarmOpen = min(s.Warm, o.openLocked())
	s.IdleLimit, s.Handshake = o.manners.limit.learned, o.setup.value
	for i := range s.Tally {
		s.Tally[i] = o.tally[i].Load()
	}
	return s, o.endpoints.snapshot(o.pool.now())
}
