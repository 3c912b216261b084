package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/proxy"
)

// dozers open a tunnel, and have its client say something that is no HTTP, or an
// upgraded connection.
var dozers = map[string]func(*rig, *origin) (client, up *wire){
	"CONNECT": func(r *rig, o *origin) (client, up *wire) {
		client, up = tunnel(r, o)
		client.send("\x16\x03")
		up.want("\x16\x03")
		return client, up
	},
	"Upgrade": websocket,
}

// ways counts the goroutines of tunnels' directions.
func ways() int { return len(testkit.Goroutines("proxy.(*way).", "proxy.(*opening).")) }

// wantWays waits until there are so many of them.
func wantWays(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d directions are awake", want), func() bool { return ways() == want })
}

// X15: a tunnel that is silent costs no goroutine after a while, and it makes no
// difference to it. Not parallel: it counts goroutines.
func TestX15SilentTunnelsSleep(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("nobody sleeps here")
	}
	var cases []func()
	for kind, open := range dozers {
		for name, wake := range map[string]func(t *testing.T, r *rig, o *origin, client, up *wire){
			"bytes, both ways": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				client.send("ping")
				up.want("ping")
				up.send("pong")
				client.want("pong")
				wantWays(t, 0)
				up.send("again")
				client.want("again")
			},
			"the client ends its side": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				client.shut()
				up.end()
				wantWays(t, 0) // the other direction sleeps on
				up.send("the rest")
				client.want("the rest")
				_ = up.Close()
				client.end()
			},
			"the upstream ends its own": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				up.shut()
				client.end()
				wantWays(t, 0)
				client.send("the rest")
				up.want("the rest")
				_ = client.Close()
				up.end()
			},
			"the client resets": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				client.reset()
				up.cut()
			},
			"the upstream resets": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				up.reset()
				client.cut()
			},
			"the proxy is closed": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				r.stop()
				client.cut()
				up.cut()
			},
			"bytes that came as it was cut": func(t *testing.T, r *rig, o *origin, client, up *wire) {
				up.send("last words")
				_ = up.Close()
				client.want("last words")
				client.end()
				client.reset()
			},
		} {
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			cases = append(cases, func() {
				t.Log("X15", kind, name)
				if !r.proxy.Busy() {
					t.Error("a tunnel that sleeps is not busy")
				}
				wake(t, r, o, client, up)
				_, _ = client.Close(), up.Close()
				eventually(t, "nothing is left of it", func() bool { return r.tunnelled(o) == 0 && !r.proxy.Busy() })
				if rec := r.logged(1); rec.Error != "" {
					t.Errorf("logged %+v", rec)
				}
			})
		}
	}
	wantWays(t, 0)
	for _, c := range cases {
		c()
	}
	wantWays(t, 0)
}

// C10: the limits count on while a tunnel sleeps. Not parallel: it counts goroutines.
func TestC10ATunnelThatSleepsEnds(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("nobody sleeps here")
	}
	const limit = 12 * proxy.SweepPeriod
	var cases []func()
	for kind, open := range dozers {
		for name, c := range map[string]struct {
			set    func(*settings)
			leave  func(client, up *wire)
			detail string
		}{
			"open both ways": {
				func(s *settings) { s.proxy.TunnelIdleTimeout = limit },
				func(client, up *wire) {}, "TUNNEL_IDLE_TIMEOUT",
			},
			"half-closed": {
				func(s *settings) { s.proxy.TunnelHalfClosedTimeout = limit },
				func(client, up *wire) { client.shut(); up.end() }, "TUNNEL_HALF_CLOSED_TIMEOUT",
			},
		} {
			r, o := start(t, c.set), newOrigin(t)
			client, up := open(r, o)
			c.leave(client, up)
			cases = append(cases, func() {
				t.Log("C10", kind, name)
				client.cut()
				up.cut()
				if rec := r.logged(1); !strings.Contains(rec.Detail, c.detail) {
					t.Errorf("logged %+v", rec)
				}
			})
		}
	}
	wantWays(t, 0)
	for _, c := range cases {
		c()
	}
}

// C10: nobody writes to what sleeps, so a client that was reset behind its end is
// noticed by the sweeper. Not parallel: it counts goroutines.
func TestC10AResetBehindTheEndWakesATunnel(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("nobody sleeps here")
	}
	for kind, open := range dozers {
		t.Run("C10 "+kind, func(t *testing.T) {
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			client.shut()
			up.end()
			wantWays(t, 0)
			client.reset()
			eventually(t, "nothing is left of it", func() bool { return r.tunnelled(o) == 0 })
			up.cut()
		})
	}
}

// Bytes that come just as a direction falls asleep arrive, in order.
func TestX15BytesMeetTunnelsThatFallAsleep(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	o.handle(func(up *wire) { // an echo
		buf := make([]byte, 1<<10)
		for {
			n, err := up.Read(buf)
			if err != nil || up.trySend(string(buf[:n])) != nil {
				return
			}
		}
	})
	var clients sync.WaitGroup
	for i := range 100 {
		c := r.inside(o)
		clients.Go(func() {
			for k := range 4 {
				word := fmt.Sprintf("~%d/%d", i, k)
				if err := c.trySend(word); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				if got := c.take(len(word)); got != word {
					t.Errorf("%q came back as %q", word, got)
					return
				}
				// They fall asleep after about a second.
				<-time.After(900*time.Millisecond + rand.N(500*time.Millisecond))
			}
		})
	}
	clients.Wait()
}

// One direction is stuck, for nobody reads there. The other may sleep; what is stuck
// goes on where it was. Not parallel: it counts goroutines.
func TestX15OneDirectionSleepsWhileTheOtherIsStuck(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("nobody sleeps here")
	}
	for kind, open := range dozers {
		t.Run("X15 "+kind, func(t *testing.T) {
			r, o := start(t), newOrigin(t)
			client, up := open(r, o)
			const size = 32 << 20
			sent := testkit.In(func() error { return up.trySend(strings.Repeat("x", size)) })
			wantWays(t, 1)
			client.send("are you there?")
			up.want("are you there?")
			wantWays(t, 1)
			for left := size; left > 0; left -= 1 << 20 {
				client.take(1 << 20)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			wantWays(t, 0)
		})
	}
}
