package proxy_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/proxy"
)

// took checks that the phases of an exchange are its duration, and that these took
// time and no others, except the steps before TCP and after it.
func took(t *testing.T, rec proxy.Record, some ...proxy.Phase) {
	t.Helper()
	sum, want := time.Duration(0), map[proxy.Phase]bool{}
	for _, p := range some {
		want[p] = true
	}
	for i, d := range rec.Phases {
		sum += d
		switch p := proxy.Phase(i); {
		case p == proxy.PhaseDNS, p == proxy.PhaseTLS, p == proxy.PhaseWait && want[proxy.PhaseConnect]:
		case d < 0, want[p] != (d > 0):
			t.Errorf("%s took %v", p, d)
		}
	}
	if sum != rec.Duration {
		t.Errorf("%v add up to %v, not to %v", rec.Phases, sum, rec.Duration)
	}
}

func TestPhasesAddUpToTheDuration(t *testing.T) {
	t.Parallel()
	if spoken("connect") {
		t.Skip("the CONNECT opens the connections")
	}
	t.Run("on a new connection, then on a kept one", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		c := r.client()
		o.exchange(c, o.exchange(c, nil))
		took(t, r.logged(1), proxy.PhaseConnect, proxy.PhaseFirstByte, proxy.PhaseRest)
		took(t, r.logged(2), proxy.PhaseFirstByte, proxy.PhaseRest)
	})
	t.Run("a wait for one that comes free", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, func(s *settings) { s.pool.MaxConnsPerHost = 1 }), newOrigin(t)
		first, second := r.client(), r.client()
		first.send(o.get("/1"))
		up := o.accept()
		up.head()
		second.send(o.get("/2"))
		eventually(t, "the second waits", func() bool { return r.stats(o).Waiting == 1 })
		up.send(ok)
		up.head()
		up.send(ok)
		second.want(ok)
		took(t, r.logged(2), proxy.PhaseWait, proxy.PhaseFirstByte, proxy.PhaseRest)
	})
	t.Run("an upstream that cannot be connected to", func(t *testing.T) {
		t.Parallel()
		r := start(t)
		c := r.client()
		c.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
		c.problem(502)
		took(t, r.logged(1), proxy.PhaseConnect, proxy.PhaseRest)
	})
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		c := r.client()
		c.send(o.get("/"))
		up := o.accept()
		up.head()
		_ = up.Close()
		c.problem(502)
		took(t, r.logged(1), proxy.PhaseConnect, proxy.PhaseFirstByte, proxy.PhaseRest)
	})
	t.Run("a request that is sent twice", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		c := r.client()
		up := o.exchange(c, nil)
		c.send(o.get("/"))
		up.head()
		eventually(t, "it waits for a while", func() bool { return r.proxy.Stats().InFlight == 1 })
		_ = up.Close()
		up = o.accept()
		up.head()
		up.send(ok)
		c.want(ok)
		rec := r.logged(2)
		took(t, rec, proxy.PhaseConnect, proxy.PhaseFirstByte, proxy.PhaseRest)
		if !rec.Retried {
			t.Error("it was not")
		}
	})
	t.Run("a tunnel", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		c, up := tunnel(r, o)
		_ = c.Close()
		_ = up.Close()
		took(t, r.logged(1), proxy.PhaseConnect, proxy.PhaseRest)
	})
}

func TestTimingsAreOfWhatAskedForAConnection(t *testing.T) {
	t.Parallel()
	if spoken("connect") {
		t.Skip("the CONNECT opens the connections")
	}
	r, o := start(t), newOrigin(t)
	c := r.client()
	up := o.exchange(c, nil)
	o.exchange(c, up)
	c.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
	c.problem(502)
	c.send("GET / HTTP/1.1\r\nHost: here\r\n\r\n") // which is for no upstream
	c.refused(400)
	odd, peer := tunnel(r, newOrigin(t))
	_ = odd.Close()
	_ = peer.Close()
	upgraded := r.client()
	upgraded.send(o.request("GET", "/", "Upgrade: websocket\r\nConnection: Upgrade\r\n"))
	peer = o.accept()
	peer.head()
	peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	upgraded.head()
	_ = upgraded.Close()
	_ = peer.Close()
	r.logged(6)
	s := r.proxy.Stats()
	for ph, want := range map[proxy.Phase]uint64{proxy.PhaseConnect: 2, proxy.PhaseTLS: 0, proxy.PhaseFirstByte: 2, proxy.PhaseRest: 3} {
		if got := s.Phases[ph].Count; got != want && (ph != proxy.PhaseTLS || !spoken("tls")) {
			t.Errorf("%d took time of %s, want %d", got, ph, want)
		}
	}
	sum := time.Duration(0)
	for _, p := range s.Phases {
		sum += p.Sum
	}
	if s.Durations.Count != 3 || s.Durations.Sum != sum {
		t.Errorf("%d took %v, and their phases %v; want 3", s.Durations.Count, s.Durations.Sum, sum)
	}
}

func TestServerTimingIsThereOnDemand(t *testing.T) {
	t.Parallel()
	const own = "HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 2\r\n\r\nok"
	timing := regexp.MustCompile(`^Server-Timing: (carpool-(wait|dns|connect|tls|first_byte);dur=\d+\.\d{3}(, )?)+$`)
	for name, on := range map[string]bool{"on": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := start(t, func(s *settings) { s.proxy.ServerTiming = on }), newOrigin(t)
			found := func(head string) (n int) {
				for _, line := range strings.Split(head, "\r\n") {
					if timing.MatchString(line) {
						n++
					}
				}
				return n
			}
			want := 0
			if on {
				want = 1
			}
			c := r.client()
			c.send(o.get("/"))
			up := o.accept()
			up.head()
			up.send("HTTP/1.1 103 Early Hints\r\n\r\n" + own)
			if early := c.head(); found(early) != 0 {
				t.Errorf("a 1xx has it: %q", early)
			}
			_, head, _ := c.reply()
			if found(head) != want || !strings.Contains(head, "\r\nServer-Timing: db;dur=5\r\n") || strings.Contains(head, "rest") {
				t.Errorf("%q", head)
			}
			if on && !strings.Contains(head, "carpool-first_byte;dur=") {
				t.Errorf("%q", head)
			}
			c.send(o.get("/"))
			up.head()
			up.send("HTTP/1.1 garbage\r\n\r\n")
			if head, _ := c.problem(502); found(head) != want {
				t.Errorf("%q", head)
			}
		})
	}
}
