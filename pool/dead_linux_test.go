package pool_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// X21 of the catalogue.
func TestAnUpstreamThatVanishesIsNoticedInSeconds(t *testing.T) {
	t.Parallel()
	p, o, first, second := twoAddresses(t, time.Second)
	l := acquire(t, o, pool.Ticket{})
	testkit.Vanish(t, first.next())
	fill(t, first, o, 2)
	o.Avoid(first.addr.Addr(), 0)
	other := fill(t, second, o, 1)
	o.Avoid(second.addr.Addr(), 0)

	start := time.Now()
	testkit.Write(t, l, "request")
	var b sock.Buffer
	err := l.Fill(&b)
	if took := time.Since(start); pool.Dead(err, pool.BadAnswer) != pool.PeerDead || took > 5*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	l.Discard(pool.Dead(err, pool.BadAnswer))
	s := stats(t, p)
	if s.Closed[pool.PeerDead] != 1 || s.Closed[pool.PeerDeadToo] != 2 || s.Idle != 1 {
		t.Errorf("%d idle, closed %v", s.Idle, s.Closed)
	}
	again := acquire(t, o, pool.Ticket{})
	if !joins(again, other[0]) {
		t.Error("the connection to the other address was not kept")
	}
	again.Release()
}

// The same with nothing under way: keep-alive probes notice.
func TestAnIdleUpstreamThatVanishesIsNoticedInSeconds(t *testing.T) {
	t.Parallel()
	const deadTimeout = 2 * time.Second
	p, o, first, _ := twoAddresses(t, deadTimeout)
	peer := fill(t, first, o, 1)[0]
	o.PassTime(deadTimeout) // a close that the end of a dead one would agree with
	_ = peer.Close()
	closedFor(t, p, pool.UpstreamClosed, 1)

	testkit.Vanish(t, fill(t, first, o, 3)[1])
	start := time.Now()
	testkit.Eventually(t, "all to the dead address are retired", func() bool { return stats(t, p).Idle == 0 })
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("after %v", took)
	}
	s := stats(t, p)
	if s.Closed[pool.PeerDead] != 1 || s.Closed[pool.PeerDeadToo] != 2 || s.IdleLimit != 0 {
		t.Errorf("closed %v, learned %v", s.Closed, s.IdleLimit)
	}
	l := acquire(t, o, pool.Ticket{})
	if l.Addr() == first.addr {
		t.Error("the dead address is tried first")
	}
	l.Release()
}

// TCP's own limit cannot tell a peer that does not read from a dead one.
func TestAPatientLeaseOutlivesASlowReaderAndTellsOfADeadOne(t *testing.T) {
	t.Parallel()
	const deadTimeout = 500 * ms
	u := newUpstream(t)
	p := newPool(t, func(c *pool.Config) { c.DeadTimeout = deadTimeout })
	l := acquire(t, u.origin(p), pool.Ticket{})
	peer := u.next()
	l.SetPatient(true)
	start := time.Now()
	written := testkit.In(func() error { _, err := l.Write(make([]byte, 32<<20)); return err })
	testkit.Eventually(t, "time passes", func() bool {
		if l.Silent() {
			t.Fatal("taken for dead")
		}
		return time.Since(start) > 2*deadTimeout
	})
	select {
	case err := <-written:
		t.Fatalf("the write has ended: %v", err)
	default:
	}
	testkit.Vanish(t, peer)
	testkit.Eventually(t, "the silence is seen", l.Silent)
	l.Interrupt()
	if testkit.Await(t, "the write ends", written) == nil {
		t.Error("it succeeded")
	}
	l.Discard(pool.PeerDead)
}
