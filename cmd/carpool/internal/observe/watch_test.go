package observe

import (
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
)

// A life is a connection of a simulated app.
type life struct {
	to           netip.AddrPort
	port         uint16 // local
	opens, ends  time.Duration
	clientCloses bool // first, and so it is in TIME_WAIT
	waits        time.Duration
}

// A world is a source with connections that live as they are told to.
type world struct {
	lives []life
	tells bool // of each that ends
	loses int  // each so many-th of what it tells is lost; 0: none
	blind bool // it has no count of its own

	began  time.Time
	looked time.Duration
}

const timeWait = time.Minute

func (w *world) look() (view, error) {
	if w.began.IsZero() {
		w.began, w.looked = time.Now(), -1
	}
	now := time.Since(w.began)
	v := view{told: w.tells && w.loses == 0}
	for i, l := range w.lives {
		s := sockdiag.Socket{
			Src: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), l.port), Dst: l.to, State: sockdiag.Established, Cookie: uint64(2*i + 1),
			Informed: true, Connected: true, RTT: 2 * time.Millisecond,
		}
		if l.opens <= now {
			v.opened++
		}
		switch {
		case l.opens <= now && now < l.ends:
			v.sockets = append(v.sockets, s)
		case l.clientCloses && l.ends <= now && now < l.ends+l.waits:
			v.sockets = append(v.sockets, sockdiag.Socket{Src: s.Src, Dst: s.Dst, State: sockdiag.TimeWait, Waiting: true, Cookie: uint64(2*i + 2)})
		}
		if w.tells && l.ends > w.looked && l.ends <= now && (w.loses == 0 || i%w.loses != 0) {
			s.State = sockdiag.Closed
			v.ended = append(v.ended, s)
		}
	}
	w.looked = now
	if w.blind {
		v.opened = -1
	}
	return v, nil
}

func (w *world) close() {}

// load has an app open connections at random times in a minute. They last so long, and take the next local port of so
// many.
func load(r *rand.Rand, to string, n int, lasts time.Duration, clientCloses bool, ports int) []life {
	lives := make([]life, n)
	for i := range lives {
		at := time.Second + time.Duration(r.Int64N(int64(58*time.Second)))
		lives[i] = life{to: netip.MustParseAddrPort(to), port: uint16(20000 + i%ports), opens: at, ends: at + lasts, clientCloses: clientCloses, waits: timeWait}
	}
	return lives
}

// observed is the report of a minute.
func observed(t *testing.T, w *world) (r Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		seen, err := watch(context.Background(), w, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r = seen.report(options{})
	})
	return r
}

func (r Report) at(addr string) Destination {
	for _, d := range r.Destinations {
		if d.Address.String() == addr {
			return d
		}
	}
	return Destination{}
}

// within reports whether a figure is what it should be, give or take a share of that.
func within(got, want, share float64) bool { return math.Abs(got-want) <= want*share }

func TestEachConnectionIsCountedOnce(t *testing.T) {
	lives := func() []life {
		r := rand.New(rand.NewPCG(1, 2))
		all := load(r, "10.9.0.1:80", 3000, 2*time.Millisecond, false, 3000) // the server closes first
		all = append(all, load(r, "10.9.0.2:80", 1200, 5*time.Millisecond, false, 1200)...)
		all = append(all, load(r, "10.9.0.3:8080", 600, 10*time.Millisecond, true, 600)...) // the client does
		all = append(all, load(r, "10.9.0.4:80", 40, 15*time.Second, true, 40)...)
		for i := range 5 { // kept open all the time
			all = append(all, life{to: netip.MustParseAddrPort("10.9.0.5:80"), port: uint16(1000 + i), opens: -time.Second, ends: time.Hour})
		}
		return all
	}
	want := map[string]float64{"10.9.0.1:80": 3000, "10.9.0.2:80": 1200, "10.9.0.3:8080": 600, "10.9.0.4:80": 40, "10.9.0.5:80": 0}
	for name, c := range map[string]struct {
		world   world
		counted string
		share   float64 // by how much counts may be wrong
	}{
		"the kernel tells of each":             {world{tells: true}, countedAll, 0},
		"the kernel tells, and counts nothing": {world{tells: true, blind: true}, countedAll, 0},
		"a third of what it tells is lost":     {world{tells: true, loses: 3}, countedScaled, 0.1},
	} {
		c.world.lives = lives()
		r := observed(t, &c.world)
		if r.Counted != c.counted || r.Unplaced != 0 || r.Verdict != gain {
			t.Errorf("%s: counted %q, %d unplaced, verdict %q", name, r.Counted, r.Unplaced, r.Verdict)
		}
		for addr, n := range want {
			if d := r.at(addr); !within(d.Opened, n, c.share) {
				t.Errorf("%s: %s: %.1f connections a minute, want %.0f", name, addr, d.Opened, n)
			}
		}
		if d := r.at("10.9.0.5:80"); d.Kept != 5 || d.AtOnce != 5 || d.Saved != 0 {
			t.Errorf("%s: what is kept open: %+v", name, d)
		}
	}
}

// What the app closes first is in TIME_WAIT for a minute, so that looks alone find it.
func TestLooksAloneFindWhatTheAppCloses(t *testing.T) {
	r := observed(t, &world{lives: load(rand.New(rand.NewPCG(3, 4)), "10.9.0.3:80", 2000, time.Millisecond, true, 2000)})
	if d := r.at("10.9.0.3:80"); d.Opened != 2000 || d.TimeWait != 2000 || r.Counted != countedLooks || r.Unseen != 0 {
		t.Errorf("%+v, counted %q, %d unseen", d, r.Counted, r.Unseen)
	}
}

// What the server closes first leaves nothing. The kernel's own count says how many there were.
func TestTheKernelsCountStandsForWhatLooksMiss(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	all := load(r, "10.9.0.1:80", 3000, 5*time.Millisecond, false, 3000)
	all = append(all, load(r, "10.9.0.3:80", 1000, time.Millisecond, true, 1000)...)
	got := observed(t, &world{lives: all})
	if d := got.at("10.9.0.1:80"); !within(d.Opened, 3000, 0.001) || got.Counted != countedScaled || got.Unseen < 2000 {
		t.Errorf("%+v, counted %q, %d unseen", d, got.Counted, got.Unseen)
	}
	if d := got.at("10.9.0.3:80"); d.Opened != 1000 {
		t.Errorf("what was found by TIME_WAIT is scaled, too: %+v", d)
	}
	// None is found at all: where they led is not known, and that is said.
	nowhere := make([]life, 50)
	for i := range nowhere {
		at := time.Duration(i)*time.Second + 150*time.Millisecond // between two looks
		nowhere[i] = life{to: netip.MustParseAddrPort("10.9.0.1:80"), port: 1, opens: at, ends: at + time.Millisecond}
	}
	if got := observed(t, &world{lives: nowhere}); got.Unplaced != 50 || got.Verdict != nothing || got.Counted != countedScaled {
		t.Errorf("%+v", got)
	}
}

// A local port is taken again, and the kernel tells of an end only after it was seen in TIME_WAIT.
func TestConnectionsWithTheSameEndsAreToldApart(t *testing.T) {
	all := load(rand.New(rand.NewPCG(7, 8)), "10.9.0.3:80", 600, 3*time.Millisecond, true, 600)
	for i := range all { // one after the other, on two ports
		all[i].port = uint16(1 + i%2)
		all[i].opens = time.Second + time.Duration(i)*90*time.Millisecond
		all[i].ends = all[i].opens + 3*time.Millisecond
		all[i].waits = 170 * time.Millisecond
	}
	if d := observed(t, &world{lives: all, tells: true}).at("10.9.0.3:80"); d.Opened != 600 {
		t.Errorf("%+v", d)
	}

	now := time.Now()
	tally := newTally(now)
	open := sockdiag.Socket{Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("10.0.0.2:80"), State: sockdiag.Established, Cookie: 1}
	waiting, ended := open, open
	waiting.State, waiting.Waiting, waiting.Cookie = sockdiag.TimeWait, true, 2
	ended.State = sockdiag.Closed
	halfway := waiting
	halfway.State = 5 // FIN_WAIT2: the peer has not closed yet
	again := open
	again.Cookie = 3
	for i, step := range []struct {
		view view
		want int
	}{
		{view{}, 0},
		{view{sockets: []sockdiag.Socket{halfway}}, 1},
		{view{sockets: []sockdiag.Socket{waiting}, ended: []sockdiag.Socket{ended}}, 1}, // late
		{view{sockets: []sockdiag.Socket{again}}, 2},
		{view{ended: []sockdiag.Socket{again}}, 2},
	} {
		tally.add(now, step.view)
		if got := tally.to[open.Dst]; got != nil && got.opened != step.want || got == nil && step.want > 0 {
			t.Errorf("step %d: %+v, want %d", i, got, step.want)
		}
	}
}

func TestWhatIsNoConnectionOfTheAppsIsNotCounted(t *testing.T) {
	now := time.Now()
	tally := newTally(now)
	socket := func(src, dst string, state sockdiag.State) sockdiag.Socket {
		return sockdiag.Socket{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), State: state, Cookie: 1, Informed: true, Connected: true}
	}
	refused := socket("10.0.0.1:5000", "10.9.0.9:80", sockdiag.Closed)
	refused.Connected = false
	tally.add(now, view{})
	tally.add(now, view{
		sockets: []sockdiag.Socket{
			socket("0.0.0.0:8080", "0.0.0.0:0", sockdiag.Listen),
			socket("10.0.0.1:8080", "10.9.0.1:40000", sockdiag.Established), // inbound
			socket("10.0.0.1:5001", "10.9.0.9:80", sockdiag.SynSent),
			socket("10.0.0.1:5002", "10.0.0.1:9000", sockdiag.Established), // the pod itself
			socket("127.0.0.1:5003", "127.0.0.1:3128", sockdiag.Established),
		},
		ended: []sockdiag.Socket{refused},
	})
	if r := tally.report(options{}); len(r.Destinations) != 0 || r.Verdict != idle {
		t.Errorf("%+v", r)
	}
	if r := tally.report(options{loopback: true}); len(r.Destinations) != 2 {
		t.Errorf("with --loopback: %+v", r.Destinations)
	}
}
