package sock_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

func watcher(t *testing.T) (*sock.Watcher, chan uint64) {
	t.Helper()
	gone := make(chan uint64, 1000)
	w, err := sock.NewWatcher(func(id uint64) { gone <- id })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w, gone
}

// silent ends the watch and sees to it that nothing else was told.
func silent(t *testing.T, w *sock.Watcher, gone chan uint64) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if len(gone) > 0 {
		t.Errorf("also told of %d", <-gone)
	}
}

func add(t *testing.T, w *sock.Watcher, c *sock.Conn, id uint64) {
	t.Helper()
	if err := w.Add(c, id); err != nil {
		t.Fatal(err)
	}
}

func TestAWatcherTellsOfHangUps(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"FIN":        func(c *net.TCPConn) { _ = c.Close() },
		"half-close": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"RST":        func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w, gone := watcher(t)
			const id = 1<<63 | 7
			c, peer := dialled(t)
			add(t, w, c, id)
			end(peer)
			if got := testkit.Await(t, "the hang-up is told", gone); got != id {
				t.Errorf("told of %#x", got)
			}
			silent(t, w, gone)
		})
	}
}

func TestAWatcherTellsOfAHangUpThatCameBefore(t *testing.T) {
	w, gone := watcher(t)
	c, peer := dialled(t)
	_ = peer.Close()
	testkit.Eventually(t, "the end arrives", c.PeerGone)
	add(t, w, c, 5)
	if got := testkit.Await(t, "the hang-up is told", gone); got != 5 {
		t.Errorf("told of %d", got)
	}
	silent(t, w, gone)
}

func TestAWatcherKeepsQuietAboutBytesAndConnectionsClosedHere(t *testing.T) {
	w, gone := watcher(t)
	noisy, noisyPeer := dialled(t)
	closed, closedPeer := dialled(t)
	last, lastPeer := dialled(t)
	for id, c := range []*sock.Conn{noisy, closed, last} {
		add(t, w, c, uint64(id))
	}
	testkit.Write(t, noisyPeer, "bytes")
	testkit.Read(t, noisy, "bytes")
	testkit.Write(t, noisyPeer, "more bytes")
	testkit.Eventually(t, "more bytes arrive", func() bool { some, _ := noisy.Pending(); return some })
	_ = closed.Close()
	_ = closedPeer.Close()
	_ = lastPeer.Close()
	// Events come in order, so what there was of the others would be here.
	if got := testkit.Await(t, "the hang-up is told", gone); got != 2 {
		t.Errorf("told of %d", got)
	}
	silent(t, w, gone)
}

func TestAWatcherTellsOfManyHangUpsAtOnce(t *testing.T) {
	const n = 300
	w, gone := watcher(t)
	var peers []*net.TCPConn
	for id := range uint64(n) {
		c, peer := dialled(t)
		add(t, w, c, id)
		peers = append(peers, peer)
	}
	for _, p := range peers {
		_ = p.Close()
	}
	seen := map[uint64]int{}
	for range n {
		seen[testkit.Await(t, fmt.Sprintf("hang-up %d of %d", len(seen), n), gone)]++
	}
	if len(seen) != n {
		t.Errorf("%d connections were told of", len(seen))
	}
	silent(t, w, gone)
}

func TestAConnectionIsWatchedWhileItIsUsed(t *testing.T) {
	w, gone := watcher(t)
	c, peer := dialled(t)
	add(t, w, c, 9)
	for range 100 {
		testkit.Write(t, c, "ping")
		testkit.Read(t, peer, "ping")
		testkit.Write(t, peer, "pong")
		testkit.Read(t, c, "pong")
	}
	_ = peer.Close()
	if got := testkit.Await(t, "the hang-up is told", gone); got != 9 {
		t.Errorf("told of %d", got)
	}
	silent(t, w, gone)
}

func TestAnArmedWatcherTellsOnceOfBytesOrAnEnd(t *testing.T) {
	for name, happen := range map[string]func(*net.TCPConn){
		"bytes": func(c *net.TCPConn) { _, _ = c.Write([]byte("x")) },
		"FIN":   func(c *net.TCPConn) { _ = c.CloseWrite() },
		"RST":   func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w, woken := watcher(t)
			c, peer := acceptedQuiet(t)
			if err := w.Arm(c, 7); err != nil {
				t.Fatal(err)
			}
			happen(peer)
			if got := testkit.Await(t, "it is told", woken); got != 7 {
				t.Errorf("told of %d", got)
			}
			_, _ = peer.Write([]byte("more"))
			silent(t, w, woken)
			_ = c.Close()
		})
	}
}

func TestAWatcherIsArmedAgainAndAgain(t *testing.T) {
	w, woken := watcher(t)
	c, peer := acceptedQuiet(t)
	for id := range uint64(20) {
		if id%2 == 0 { // bytes that are there already count
			testkit.Write(t, peer, "x")
			testkit.Eventually(t, "bytes wait", func() bool { some, _ := c.Pending(); return some })
		}
		if err := w.Arm(c, id); err != nil {
			t.Fatal(err)
		}
		if id%2 == 1 {
			testkit.Write(t, peer, "x")
		}
		if got := testkit.Await(t, "it is told", woken); got != id {
			t.Fatalf("told of %d, not %d", got, id)
		}
		testkit.Read(t, c, "x")
	}
	silent(t, w, woken)
}
