package sock_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func TestAPeerThatAcknowledgesNothingIsTold(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	if err := c.SetUserTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	testkit.Write(t, c, "heard")
	testkit.Read(t, peer, "heard")
	testkit.Eventually(t, "it is acknowledged", func() bool { return c.Unacknowledged() == 0 })
	testkit.Vanish(t, peer)
	testkit.Write(t, c, "unheard")
	start := time.Now()
	testkit.Eventually(t, "the silence is seen", func() bool { return c.Unacknowledged() > 100*time.Millisecond })
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("after %v", took)
	}
}

// A stream that flows for a long time in one direction acknowledges nothing,
// for there is nothing to acknowledge; then the first packet the other way
// waits for its acknowledgement, as all do.
func TestAPeerThatHasJustSentSomethingIsNotSilent(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		<-tick.C
		testkit.Write(t, peer, "news")
		testkit.Read(t, c, "news")
	}
	testkit.Vanish(t, peer)
	testkit.Write(t, c, "a word at last")
	if d := c.Unacknowledged(); d > 200*time.Millisecond {
		t.Errorf("silent for %v, it says", d)
	}
}

// A closed window is probed, and the kernel at the other end answers only so
// many probes.
func TestAPeerThatOnlyDoesNotReadIsNotSilent(t *testing.T) {
	t.Parallel()
	c, peer := dialled(t)
	written := testkit.In(func() error { _, err := c.Write(make([]byte, 32<<20)); return err })
	testkit.Eventually(t, "the write waits", func() bool { return c.Parks() > 0 })
	start := time.Now()
	testkit.Eventually(t, "time passes", func() bool {
		if d := c.Unacknowledged(); d > 0 {
			t.Fatalf("silent for %v after %v", d, time.Since(start))
		}
		return time.Since(start) > 1200*time.Millisecond
	})
	_ = peer.Close()
	if testkit.Await(t, "the write ends", written) == nil {
		t.Error("it succeeded")
	}
}

// probeSoon shortens the time between keep-alive probes, which it does not turn
// on: an accepted connection has them.
func probeSoon(t *testing.T, c *sock.Conn) {
	t.Helper()
	for _, o := range [...]int{syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT} {
		if err := syscall.SetsockoptInt(c.FD(), syscall.IPPROTO_TCP, o, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAClientThatHasVanishedIsFoundOut(t *testing.T) {
	t.Parallel()
	c, peer := acceptedQuiet(t)
	probeSoon(t, c)
	testkit.Vanish(t, peer)
	read := testkit.In(func() error { _, err := c.Read(make([]byte, 1)); return err })
	if err := testkit.Await(t, "the read ends", read); !sock.TimedOut(err) {
		t.Errorf("got %v", err)
	}
}

// C10: both clients have sent their end. One is there and waits; of the other
// its kernel has forgotten everything, and says so to a probe.
func TestAClientThatIsGoneIsToldFromOneThatHalfClosed(t *testing.T) {
	t.Parallel()
	there, waiting := acceptedQuiet(t)
	gone, closed := acceptedQuiet(t)
	raw, err := closed.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { // how long a closed socket waits for our end
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_LINGER2, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*sock.Conn{there, gone} {
		probeSoon(t, c)
	}
	if err := waiting.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	testkit.Eventually(t, "both ends are seen", func() bool { return there.PeerGone() && gone.PeerGone() })
	testkit.Eventually(t, "one is gone", gone.Broken)
	if there.Broken() {
		t.Error("the other is taken for gone")
	}
	testkit.Write(t, there, "answer")
	testkit.Read(t, waiting, "answer")
}
