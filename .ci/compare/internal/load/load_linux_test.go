package load_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/ci/compare/internal/load"
	"github.com/carpoolproxy/carpool/ci/compare/internal/wire"
)

// serve answers what comes on connections of a listener, and returns its address.
func serve(t *testing.T, each func(c net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				each(c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// answering answers each request as answer says, until that is nothing.
func answering(answer func(a wire.Asked) string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			text := answer(wire.Asked{Size: wire.Small, ID: []byte(r.Header.Get(wire.IDHeader)), Last: r.Close})
			if _, err := io.WriteString(c, text); err != nil || text == "" || r.Close {
				return
			}
		}
	}
}

func right(a wire.Asked) string {
	b, _ := wire.AppendAnswer(nil, a)
	return string(b)
}

func do(t *testing.T, spec load.Spec, c load.Command) *load.Result {
	t.Helper()
	g, err := load.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Do(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var get = []load.Turn{{URL: "http://{host}/items", Want: wire.Small}}

func TestAClosedLoopKeepsItsConnections(t *testing.T) {
	at := serve(t, answering(right))
	r := do(t, load.Spec{Proxy: at, Hosts: []string{"a", "b"}, Turns: get}, load.Command{Clients: 5, AtLeast: 200})
	if r.Done < 200 || r.Failed() > 0 || r.Opened != 5 || r.Lost != 0 {
		t.Errorf("%d done, %v, %d connections, %d lost", r.Done, r.Errors, r.Opened, r.Lost)
	}
	if r.Latency.Count() != uint64(r.Done) || r.Elapsed <= 0 {
		t.Errorf("%d latencies of %d exchanges in %v", r.Latency.Count(), r.Done, r.Elapsed)
	}
}

func TestAClientThatClosesHasAConnectionForEachExchange(t *testing.T) {
	at := serve(t, answering(right))
	r := do(t, load.Spec{Proxy: at, Hosts: []string{"a"}, Turns: get, End: load.ByServer}, load.Command{Clients: 3, AtLeast: 50})
	if r.Done < 50 || r.Failed() > 0 || r.Opened != r.Done {
		t.Errorf("%d done, %v, %d connections", r.Done, r.Errors, r.Opened)
	}
}

func TestWrongAnswersAreCounted(t *testing.T) {
	for what, answer := range map[string]func(a wire.Asked) string{
		"another id":                         func(a wire.Asked) string { return strings.ReplaceAll(right(a), string(a.ID), "ffffffffffffffff") },
		"status 502":                         func(a wire.Asked) string { return strings.Replace(right(a), "200 OK", "502 Bad", 1) },
		"a body of 65 bytes":                 func(a wire.Asked) string { return strings.Replace(right(a), "Length: 64", "Length: 65", 1) },
		"closed before the answer was whole": func(wire.Asked) string { return "" },
		"bytes behind an answer":             func(a wire.Asked) string { return right(a) + "x" },
	} {
		at := serve(t, answering(answer))
		r := do(t, load.Spec{Proxy: at, Hosts: []string{"a"}, Turns: get}, load.Command{Clients: 1, AtLeast: 3})
		if r.Errors[what] == 0 {
			t.Errorf("%s: %v, %d done", what, r.Errors, r.Done)
		}
	}
}

func TestAnOpenLoopMakesEachExchangeThatWasDue(t *testing.T) {
	at := serve(t, answering(right))
	r := do(t, load.Spec{Proxy: at, Hosts: []string{"a"}, Turns: get},
		load.Command{Clients: 2, Rate: 500, For: 200 * time.Millisecond, Seed: 7})
	if r.Done != 100 || r.Failed() > 0 || r.Late.Count() != 100 || r.Latency.Count() != 100 {
		t.Errorf("%d done, %v, %d with lateness, %d with latency", r.Done, r.Errors, r.Late.Count(), r.Latency.Count())
	}
}

func TestASeedDeterminesTheSchedule(t *testing.T) {
	a, b, c := load.Schedule(1000, time.Second, 1), load.Schedule(1000, time.Second, 1), load.Schedule(1000, time.Second, 2)
	if len(a) != 1000 || fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(c) {
		t.Errorf("%d, %v", len(a), a[:3])
	}
	for i := range a {
		if a[i] < 0 || a[i] >= int64(time.Second) || i > 0 && a[i] < a[i-1] {
			t.Fatalf("due %d: %d", i, a[i])
		}
	}
}

func TestOnceOpensConnectionsThatThenStandIdle(t *testing.T) {
	at := serve(t, answering(right))
	g, err := load.New(load.Spec{Proxy: at, Hosts: []string{"a"}, Turns: get})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ clients, more int }{{40, 40}, {100, 60}, {100, 0}} {
		r, err := g.Do(load.Command{Clients: c.clients, Once: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Done != c.more || r.Failed() > 0 || r.Opened != c.more {
			t.Errorf("to %d: %d done, %v, %d connections", c.clients, r.Done, r.Errors, r.Opened)
		}
	}
}
