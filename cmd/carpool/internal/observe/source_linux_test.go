package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest/netns"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/sockdiag"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// serve answers one byte on each connection, and closes it if it is to do so first. When that is done it waits for the
// client.
func serve(t *testing.T, addr string, closesFirst bool) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("."))
			if !closesFirst {
				_, _ = c.Read(make([]byte, 1))
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		done.Wait()
	})
}

// call opens so many connections, one after the other.
func call(t *testing.T, addr string, n int, serverClosesFirst bool) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if serverClosesFirst {
			_, err = io.Copy(io.Discard, c)
		} else {
			_, err = c.Read(make([]byte, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}

// looked is the source that it is, and tells when it has looked first and how many connections it was told of.
type looked struct {
	source
	once  sync.Once
	first chan struct{}
	told  atomic.Int64
}

func (l *looked) look() (view, error) {
	v, err := l.source.look()
	l.once.Do(func() { close(l.first) })
	for _, s := range v.ended {
		if s.Connected && (s.Dst.Port() == 80 || s.Dst.Port() == 8080) {
			l.told.Add(1)
		}
	}
	return v, err
}

// TestAKnownLoadIsCounted has real sockets: 400 connections that the client closes, 300 that a server does.
func TestAKnownLoadIsCounted(t *testing.T) {
	t.Parallel()
	if !netns.Own(t) {
		return
	}
	serve(t, "10.1.0.2:80", false)
	serve(t, "[fd00::2]:8080", true)
	for name, c := range map[string]struct {
		open    func() (source, error)
		counted string
	}{
		"told": {open, countedAll},
		"looks": {func() (source, error) {
			return &kernel{sockets: sockdiag.Query{States: sockdiag.Any, Info: true}.Dump}, nil
		}, countedScaled},
		"proc": {func() (source, error) { return &kernel{sockets: procSockets}, nil }, countedScaled},
	} {
		from, err := c.open()
		if err != nil {
			t.Fatal(err)
		}
		l := &looked{source: from, first: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		var seen *tally
		var done sync.WaitGroup
		done.Go(func() { seen, err = watch(ctx, l, time.Hour) })
		<-l.first
		call(t, "10.1.0.2:80", 400, false)
		call(t, "[fd00::2]:8080", 300, true)
		if c.counted == countedAll {
			testkit.Eventually(t, "each end is told", func() bool { return l.told.Load() == 700 })
		}
		cancel()
		done.Wait()
		from.close()
		if err != nil {
			t.Fatal(err)
		}
		r := seen.report(options{loopback: true})
		minutes := r.Seconds / 60
		client, server := r.at("10.1.0.2:80").Opened*minutes, r.at("[fd00::2]:8080").Opened*minutes
		total := client + server + float64(r.Unplaced)
		t.Logf("%s: %.1f and %.1f, %d unplaced, counted %q", name, client, server, r.Unplaced, r.Counted)
		if !within(client, 400, 0.1) || !within(total, 700, 0.1) || r.Counted != c.counted {
			t.Errorf("%s: %.1f and %.1f, %d unplaced, counted %q; want 400 and 300", name, client, server, r.Unplaced, r.Counted)
		}
		if name == "told" && (r.at("10.1.0.2:80").RoundTrip <= 0 || !within(server, 300, 1e-9)) {
			t.Errorf("%+v", r.Destinations)
		}
	}
}

func TestObserveAsACommand(t *testing.T) {
	t.Parallel()
	if !netns.Own(t) {
		return
	}
	var stdout, stderr bytes.Buffer
	if code := Run(context.Background(), []string{"--for", "1s", "--json"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("%d, %s", code, &stderr)
	}
	var r Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || r.Verdict != idle || r.Seconds < 1 {
		t.Errorf("%v, %s", err, &stdout)
	}
}

func TestTheKernelsCountIsRead(t *testing.T) {
	for text, want := range map[string]int{
		"Ip: a\nIp: 1\nTcp: RtoMin ActiveOpens AttemptFails\nTcp: 200 50 8\nUdp: x\n": 42,
		"Tcp: RtoMin\nTcp: 200\n": -1,
		"Tcp: ActiveOpens\n":      -1,
		"":                        -1,
	} {
		if got := parseOpened(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if connectionsOpened() < 0 {
		t.Error("it cannot be read here")
	}
}
