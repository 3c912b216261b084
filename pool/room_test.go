package pool_test

import (
	"io"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// answers has the upstream answer on a connection.
func answers(t testing.TB, l *pool.Lease, peer net.Conn) {
	t.Helper()
	testkit.Write(t, peer, "x")
	var b sock.Buffer
	if err := l.Fill(&b); err != nil {
		t.Fatal(err)
	}
	b.Release()
}

// fresh opens a connection.
func fresh(t testing.TB, u *upstream, o *pool.Origin) (*pool.Lease, *net.TCPConn) {
	t.Helper()
	l := acquire(t, o, pool.Ticket{Fresh: true})
	return l, u.next()
}

// stalls makes a request wait for long enough, and has room made for it if need
// be. It reports whether that was so.
func stalls(l *pool.Lease) bool {
	l.WaitedSince(pool.RarelyAfter / 2)
	makeRoom := l.Stalled()
	if makeRoom != nil {
		makeRoom()
	}
	return makeRoom != nil
}

// closed checks that the pool has closed a connection.
func closed(t testing.TB, peer net.Conn) {
	t.Helper()
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

func TestP27IdleConnectionsMakeRoomForOneThatStalls(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	idle := fill(t, u, o, 3)
	l, _ := fresh(t, u, o)
	if l.Stalled() != nil {
		t.Error("at once")
	}
	if !stalls(l) {
		t.Fatal("no room is made")
	}
	for _, peer := range idle {
		closed(t, peer)
	}
	closedFor(t, p, pool.MakesRoom, 3)
	if stalls(l) {
		t.Error("again, of nothing")
	}
	l.Discard(pool.ClientGone)
}

func TestP27NoRoomIsMadeForOneThatWasAnswered(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	fill(t, u, o, 1)
	l, peer := fresh(t, u, o)
	answers(t, l, peer)
	if stalls(l) {
		t.Error("room is made")
	}
	l.Discard(pool.ClientGone)
}

func TestP27OnlyConnectionsToTheSameAddressMakeRoom(t *testing.T) {
	p, o, first, second := twoAddresses(t, 0)
	fill(t, first, o, 1)
	l := acquire(t, o, pool.Ticket{Fresh: true, Avoid: first.addr.Addr()})
	second.next()
	if stalls(l) {
		t.Error("room is made elsewhere")
	}
	l.Discard(pool.ClientGone)
	if s := stats(t, p); s.Idle != 1 {
		t.Errorf("%d idle", s.Idle)
	}
}

// None is idle when the sweeper looks, for others take turns on the only
// connection that is served.
func TestP27ABusyConnectionMakesRoomWhenItComesBack(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	busy, peer := fresh(t, u, o)
	answers(t, busy, peer)
	l, _ := fresh(t, u, o)
	if stalls(l) {
		t.Error("room is made of nothing")
	}
	busy.Release()
	closed(t, peer)
	closedFor(t, p, pool.MakesRoom, 1)

	busy, peer = fresh(t, u, o) // one was enough
	answers(t, busy, peer)
	busy.Release()
	closedFor(t, p, pool.MakesRoom, 1)
	l.Discard(pool.ClientGone)
}

// A request that has got its answer, or gone, needs no room any more.
func TestP27RoomIsNotMadeTooLate(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	for name, end := range map[string]func(*pool.Lease, net.Conn){
		"gone":     func(l *pool.Lease, _ net.Conn) { l.Discard(pool.ClientGone) },
		"answered": func(l *pool.Lease, peer net.Conn) { answers(t, l, peer); l.Discard(pool.ClientGone) },
	} {
		busy, peer := fresh(t, u, o)
		answers(t, busy, peer)
		l, peer := fresh(t, u, o)
		stalls(l)
		end(l, peer)
		busy.Release()
		if s := stats(t, p); s.Idle != 1 || s.Closed[pool.MakesRoom] > 0 {
			t.Errorf("%s: %d idle, closed %v", name, s.Idle, s.Closed)
		}
		acquire(t, o, pool.Ticket{Replayable: true}).Discard(pool.ClientGone)
	}
}

func TestP27ACrowdedServerIsLearned(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	first, served := fresh(t, u, o)
	answers(t, first, served)
	first.Release()
	for range pool.EnoughTrials {
		if o.Bound() != 0 {
			t.Fatal("learned already")
		}
		l, peer := fresh(t, u, o)
		if !stalls(l) {
			t.Fatal("no room is made")
		}
		closed(t, served)
		answers(t, l, peer)
		l.Release()
		served = peer
	}
	if n := o.Bound(); n != 1 {
		t.Fatalf("a bound of %d", n)
	}

	// From now on one that comes back makes room at once.
	l := acquire(t, o, pool.Ticket{Replayable: true})
	other, peer := fresh(t, u, o)
	l.Release()
	closed(t, served)
	answers(t, other, peer)
	other.Release()
	if s := stats(t, p); s.Idle != 1 {
		t.Errorf("%d idle", s.Idle)
	}

	// And an idle one as soon as a new one is used.
	l, last := fresh(t, u, o)
	closed(t, peer)
	answers(t, l, last)
	l.Release()
}

// Nothing waits for a bound: one more stream than the server takes, or a bound
// that is wrong, keeps no request from its connection.
func TestP27ABoundMakesNoRequestWait(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	o.Crowd(1)
	var leases []*pool.Lease
	for range 5 {
		l, peer := fresh(t, u, o)
		answers(t, l, peer)
		leases = append(leases, l)
	}
	if n := o.Bound(); n != 5 {
		t.Errorf("a bound of %d, 5 are served at a time", n)
	}
	for _, l := range leases {
		l.Release()
	}
	if s := stats(t, p); s.Idle != 5 {
		t.Errorf("%d idle", s.Idle)
	}
}

func TestP27AHandshakeThatStallsIsGivenRoom(t *testing.T) {
	u := newUpstream(t)
	p := newPool(t)
	o := u.origin(p)
	idle := fill(t, u, o, 2)
	o.RoomFor(u.addr)
	for _, peer := range idle {
		closed(t, peer)
	}
	closedFor(t, p, pool.MakesRoom, 2)
}
