package load

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// An exchange that is sent late has its lateness in its latency: that is the correction for coordinated omission.
func TestLatencyCountsFromWhenAnExchangeWasDue(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := make([]byte, 100)
		for {
			if _, err := io.ReadFull(c, in); err != nil {
				return
			}
			a, _, _ := wire.Read(in)
			answer, _ := wire.AppendAnswer(nil, a)
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	g, err := New(Spec{Proxy: netip.MustParseAddrPort(l.Addr().String()), Hosts: []string{"a"}, Turns: []Turn{{Up: 100, Down: wire.IDLen}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Do(Command{Clients: 1, AtLeast: 1}); err != nil {
		t.Fatal(err)
	}
	g.result.Latency.Reset()
	g.closed = false
	g.begin(g.now() - int64(time.Hour))
	for g.outstanding > 0 {
		if err := g.step(time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if got := time.Duration(g.result.Latency.Percentile(1)); g.result.Latency.Count() != 1 || got < 9*time.Minute {
		t.Errorf("%d exchanges, the slowest took %v", g.result.Latency.Count(), got)
	}
}
