package proxy_test

import (
	"io"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/proxy"
)

// joined makes the two kinds of connection on which bytes go both ways
// without being looked at.
var joined = map[string]func(*rig, *origin) (client, up *wire){"CONNECT": tunnel, "Upgrade": websocket}

// tunnelled counts the tunnels and upgraded connections to o.
func (r *rig) tunnelled(o *origin) int { return r.proxy.Stats().Tunnels + r.stats(o).InUse }

// C10: one side has ended, the other is silent.
func TestC10HalfClosedAndSilent(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		for who, leave := range map[string]func(client, up *wire) (left *wire){
			"the client closed":          func(client, up *wire) *wire { _ = client.Close(); return up },
			"the client ended its side":  func(client, up *wire) *wire { client.shut(); return up },
			"the upstream closed":        func(client, up *wire) *wire { _ = up.Close(); return client },
			"the upstream ended its own": func(client, up *wire) *wire { up.shut(); return client },
		} {
			t.Run("C10 "+kind+", "+who, func(t *testing.T) {
				t.Parallel()
				r := start(t, func(s *settings) { s.proxy.TunnelHalfClosedTimeout = 300 * time.Millisecond })
				o := newOrigin(t)
				client, up := open(r, o)
				left := leave(client, up)
				left.end()
				eventually(t, "nothing is left of it", func() bool { return r.tunnelled(o) == 0 && !r.proxy.Busy() })
				eventually(t, "no client is left", func() bool { return r.proxy.Stats().Clients == 0 })
				eventually(t, "who is left is told", func() bool { return left.trySend("anybody?") != nil })
				if rec := r.logged(1); rec.Detail == "" || rec.Error != "" {
					t.Errorf("logged as %+v", rec)
				}
			})
		}
	}
}

// C10: without a limit a client that has reset its connection after its end is
// noticed although nobody reads from it. That is what a keep-alive probe finds
// where a client is gone.
func TestC10TheClientIsResetBehindItsEnd(t *testing.T) {
	if !proxy.SeesResets {
		t.Skip("not on this system")
	}
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			client.shut()
			up.end()
			client.reset()
			eventually(t, "nothing is left of it", func() bool { return r.tunnelled(o) == 0 })
		})
	}
}

// C10: both sides have ended, and what the client has sent is still on its way to an
// upstream that takes its time.
func TestC10BothSidesEndBeforeAllHasArrived(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			const size = 8 << 20
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			if err := tcp(up.Conn).SetReadBuffer(16 << 10); err != nil { // or all of it is there soon
				t.Fatal(err)
			}
			up.shut()
			client.end()
			sent := push(client, newNoise(size))
			for left := size; left > 0; left -= size / 16 {
				if left == size/2 {
					check(t, sent)
					client.shut()
				}
				if left <= size/2 {
					<-time.After(2 * proxy.SweepPeriod)
				}
				if err := up.drain(io.Discard, size/16); err != nil {
					t.Fatalf("%d bytes of %d are missing: %v", left, size, err)
				}
			}
			up.end()
		})
	}
}

// C10: a drain does not wait for what is half-closed and silent, and waits for
// it again when it moves.
func TestC10ASilentHalfIsNotBusy(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			client.shut()
			up.end()
			if !r.proxy.Busy() {
				t.Error("a tunnel that moved a moment ago is not busy")
			}
			eventually(t, "it is not busy", func() bool { return !r.proxy.Busy() })
			other := r.client() // a silent tunnel takes nothing from the others
			other.send(o.get("/"))
			next := o.accept()
			next.head()
			if !r.proxy.Busy() {
				t.Error("a request is open")
			}
			next.send(ok)
			other.want(ok)
			eventually(t, "it is not busy", func() bool { return !r.proxy.Busy() })
			up.send("after all")
			client.want("after all")
			eventually(t, "it is busy", r.proxy.Busy)
			_ = up.Close()
			client.end()
		})
	}
}

// C10: a tunnel that is open both ways may be silent for ever.
func TestC10SilenceOfBothSidesIsNoEnd(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(s *settings) { s.proxy.TunnelHalfClosedTimeout = time.Millisecond })
			o := newOrigin(t)
			client, up := open(r, o)
			client.silence(6 * proxy.SweepPeriod)
			if !r.proxy.Busy() {
				t.Error("it is not busy")
			}
			up.send("still here")
			client.want("still here")
		})
	}
}

// C10: bytes renew the time.
func TestC10HowLongATunnelIsSilent(t *testing.T) {
	var f proxy.Flow
	for i, step := range []struct {
		do   func()
		at   time.Duration
		want time.Duration
	}{
		{func() {}, 100, 100}, // open both ways
		{func() {}, 200, 200},
		{f.Move, 300, 0},
		{func() {}, 350, 50},
		{f.End, 400, 0}, // one side has ended
		{func() {}, 450, 50},
		{func() {}, 500, 100},
		{f.Move, 600, 0},
		{func() {}, 700, 100},
		{func() {}, 900, 300},
		{func() { f.Move(); f.Move() }, 1000, 0},
		{func() {}, 1100, 100},
	} {
		step.do()
		if got := f.Silence(step.at); got != step.want {
			t.Errorf("step %d: silent for %v, want %v", i, got, step.want)
		}
	}
}
