package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// C10: what a tunnel sends to an upstream that has vanished is not acknowledged,
// which is found in seconds. One that is slow to read is not taken for it.
func TestC10AnUpstreamThatVanishesEndsItsTunnel(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			const dead = time.Second
			r, o := start(t, func(s *settings) { s.pool.DeadTimeout = dead }), newOrigin(t)
			slow, _ := open(r, o)
			full := testkit.In(func() error { return slow.trySend(strings.Repeat("x", 16<<20)) })
			client, up := open(r, o)
			testkit.Vanish(t, tcp(up.Conn))
			client.send("anybody?")
			client.cut()
			r.closedFor(o, pool.PeerDead)
			if rec := r.logged(1); !strings.Contains(rec.Detail, "UPSTREAM_DEAD_TIMEOUT") {
				t.Errorf("logged %+v", rec)
			}
			select {
			case err := <-full:
				t.Fatalf("the slow one has ended: %v", err)
			default:
			}
			r.stop()
			<-full
		})
	}
}
