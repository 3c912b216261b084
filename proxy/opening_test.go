package proxy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// inside opens a tunnel to o of which nothing has come yet.
func (r *rig) inside(o *origin) *wire {
	r.t.Helper()
	client := r.client()
	client.send(connectTo(o.addr))
	client.want(established)
	return client
}

// inner is a request as a client sends it in a tunnel to o.
func (o *origin) inner(method, path, more string) string {
	if !strings.Contains(more, "\r\n\r\n") {
		more += "\r\n"
	}
	return method + " " + path + " HTTP/1.1\r\nHost: " + o.addr + "\r\n" + more
}

// getInside has a client in its tunnel do one GET, as origin.exchange does.
func (o *origin) getInside(c, up *wire) *wire {
	o.t.Helper()
	c.send(o.inner("GET", "/in", ""))
	if up == nil {
		up = o.accept()
	}
	up.want(o.inner("GET", "/in", ""))
	up.send(ok)
	c.want(ok)
	return up
}

// oneConnection has none opened ahead of need, however long the test takes.
func oneConnection(s *settings) { s.pool.Reuse = true }

func TestC8PlainHTTPInsideIsPooled(t *testing.T) {
	t.Parallel()
	t.Run("C8 the connection goes back after each exchange", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		first := r.inside(o)
		up := o.getInside(first, nil)
		r.idle(o, 1)
		second := r.inside(o)
		o.getInside(second, up)
		o.getInside(first, up)
		o.exchange(r.client(), up)
		o.getInside(second, up)
		o.served(1)
		eventually(t, "idle clients count as none that is served", func() bool { return !r.proxy.Busy() })
		if s := r.proxy.Stats(); s.Tunnels != 0 {
			t.Errorf("idle clients count as tunnels: %+v", s)
		}
	})
	t.Run("C8 a CONNECT for each call", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		var up *wire
		for range 300 {
			c := r.inside(o)
			up = o.getInside(c, up)
			_ = c.Close()
		}
		o.served(1)
	})
	t.Run("C8 right behind the CONNECT, in pieces, in a pipeline", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		up := (*wire)(nil)
		for i, request := range []string{
			o.inner("GET", "/1", "X: y\r\n"),
			o.inner("POST", "/2", "Content-Length: 3\r\n\r\nabc"),
			o.inner("PROPFIND", "/3?4", "") + o.inner("OPTIONS", "*", ""),
		} {
			c := r.client()
			if i == 0 {
				c.send(connectTo(o.addr) + request)
			} else {
				c.send(connectTo(o.addr))
				for _, b := range []byte(request) {
					c.send(string(b))
				}
			}
			c.want(established)
			if up == nil {
				up = o.accept()
			}
			parts := strings.SplitAfter(request, "\r\n\r\nOPTIONS")
			up.want(strings.TrimSuffix(parts[0], "OPTIONS"))
			up.send(ok)
			c.want(ok)
			if len(parts) == 2 {
				up.want("OPTIONS" + parts[1])
				up.send(ok)
				c.want(ok)
			}
		}
		o.served(1)
	})
	t.Run("C8 log and figures are the requests'", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		o.getInside(r.inside(o), nil)
		if rec := r.logged(1); rec.Method != "CONNECT" || rec.Status != 200 || rec.Error != "" || rec.Origin != o.addr {
			t.Errorf("logged %+v", rec)
		}
		if rec := r.logged(2); rec.Method != "GET" || rec.Path != "/in" || rec.Origin != "http://"+o.addr || rec.Status != 200 {
			t.Errorf("logged %+v", rec)
		}
		if n := r.stats(o).Tally[2]; n != 1 {
			t.Errorf("%d answers are counted", n)
		}
	})
	t.Run("C8 a WebSocket", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		c := r.inside(o)
		request := o.inner("GET", "/", "Upgrade: websocket\r\nConnection: Upgrade\r\n")
		c.send(request)
		up := o.accept() // the CONNECT's own
		up.head()
		const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
		up.send(switching)
		c.want(switching)
		c.send("ping")
		up.want("ping")
		up.send("pong")
		c.want("pong")
		o.served(1)
	})
	t.Run("C8 in a drain the answer says that it is the last", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, oneConnection), newOrigin(t)
		c := r.inside(o)
		up := o.getInside(c, nil)
		r.proxy.Drain()
		c.send(o.inner("GET", "/in", ""))
		up.want(o.inner("GET", "/in", ""))
		up.send(ok)
		c.want(strings.Replace(ok, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		c.end()
	})
}

// C8: Host inside names the CONNECT's authority, or is refused (RFC 9112 section
// 3.2.2).
func TestC8WhatRequestsInsideMayName(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	other := newOrigin(t)
	port := o.addr[strings.LastIndexByte(o.addr, ':')+1:]
	var up *wire
	for name, c := range map[string]struct{ sent, forwarded string }{
		"C8 Host as the CONNECT has it":      {"GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n", ""},
		"C8 Host without a port":             {"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", ""},
		"C8 HTTP/1.0 without Host":           {"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n"},
		"C8 a fragment":                      {"GET /a#b HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n", "GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n"},
		"C8 a path that looks like a target": {"GET //x/http://y/ HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n", ""},
		"C8 what is for one hop":             {"GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\nProxy-Authorization: x\r\nX: y\r\n\r\n", "GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\nX: y\r\n\r\n"},
	} {
		client := r.inside(o)
		client.send(c.sent)
		if up == nil {
			up = o.accept()
		}
		if c.forwarded == "" {
			c.forwarded = c.sent
		}
		up.want(c.forwarded)
		up.send(ok)
		if got := client.head(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, c := range map[string]struct {
		first, then string // then is for a client that has spoken HTTP
		status      int
	}{
		"C8 another host":              {"GET / HTTP/1.1\r\nHost: other.test:" + port + "\r\n\r\n", "", 421},
		"C8 another port":              {"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", "", 421},
		"C8 another address":           {"GET / HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n", "", 421},
		"C8 an empty Host":             {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "", 421},
		"C8 an odd Host":               {"GET / HTTP/1.1\r\nHost: a@127.0.0.1:" + port + "\r\n\r\n", "", 421},
		"C8 no Host":                   {"GET / HTTP/1.1\r\n\r\n", "", 400},
		"C8 two Hosts":                 {"GET / HTTP/1.1\r\nHost: " + o.addr + "\r\nHost: " + o.addr + "\r\n\r\n", "", 400},
		"C8 both lengths":              {o.inner("POST", "/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), "", 400},
		"C8 CONNECT again":             {"", connectTo(other.addr), 400},
		"C8 CONNECT again to the same": {"", connectTo(o.addr), 400},
		"C8 absolute-form of another":  {"", other.get("/"), 421},
		"C8 absolute-form with TLS":    {"", strings.Replace(o.get("/"), "http:", "https:", 1), 421},
		"C8 a target that is no path":  {"", "GET a HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n", 400},
		"C8 HTTP/2.0 after HTTP/1":     {"", "GET / HTTP/2.0\r\nHost: " + o.addr + "\r\n\r\n", 505},
		"C8 a bare LF":                 {"", "GET / HTTP/1.1\nHost: " + o.addr + "\r\n\r\n", 400},
	} {
		client := r.inside(o)
		if c.first == "" {
			o.getInside(client, up)
		}
		client.send(c.first + c.then)
		if body := client.refused(c.status); c.status == 421 && !strings.Contains(body, "Host") {
			t.Errorf("%s: %q", name, body)
		}
	}
	client := r.inside(o)
	o.getInside(client, up)
	client.send(o.get("/absolute"))
	up.want(o.inner("GET", "/absolute", ""))
	up.send(ok)
	client.want(ok)
	o.served(1)
	other.served(0)
}

// What is no HTTP goes through a connection that has never carried HTTP, whether
// one that has is idle or not. The bytes are those that came.
func TestC9WhatIsNoHTTPIsATunnel(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{
		"C9 TLS":                       "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"C9 HTTP/2":                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"C9 four letters":              "PING",
		"C9 a line":                    "GET key\r\n",
		"C9 an empty line":             "\r\n",
		"C9 SSH":                       "SSH-2.0-OpenSSH_9.9\r\n",
		"C9 RTSP":                      "OPTIONS rtsp://camera/ RTSP/1.0\r\n\r\n",
		"C9 Redis":                     "*1\r\n$4\r\nPING\r\n",
		"C9 HTTP/0.9":                  "GET /\r\n",
		"C9 HTTP/2.0":                  "GET / HTTP/2.0\r\n\r\n",
		"C9 lower case":                "get / HTTP/1.1\r\n\r\n",
		"C9 an unknown method":         "BREW / HTTP/1.1\r\nHost: pot\r\n\r\n",
		"C9 a proxy at the other end":  "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
		"C9 absolute-form for a proxy": "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"C9 a binary target":           "GET /\x00\x01 HTTP/1.1\r\n\r\n",
	} {
		for _, idle := range []bool{false, true} {
			r, o := start(t), newOrigin(t)
			if idle {
				o.exchange(r.client(), nil)
				r.idle(o, 1)
			}
			client := r.inside(o)
			client.send(said)
			up := o.accept()
			up.want(said)
			up.send("answer")
			client.want("answer")
			if s := r.proxy.Stats(); s.Tunnels != 1 {
				t.Errorf("%s: %d tunnels", name, s.Tunnels)
			}
			if idle && r.stats(o).Idle != 1 {
				t.Errorf("%s: the idle connection is gone", name)
			}
			_ = client.Close()
			up.end()
			r.stop()
		}
	}
}

// What a tunnel carried is remembered: for the next, a connection that has carried
// nothing is there before the client speaks, or one that is idle is enough.
func TestTheNextTunnelIsTakenForWhatTheLastWas(t *testing.T) {
	t.Parallel()
	r, o := start(t, oneConnection), newOrigin(t)
	o.getInside(r.inside(o), nil)
	r.idle(o, 1)
	late := r.inside(o)
	o.served(1)
	late.send("\x16\x03\x01")
	o.accept().want("\x16\x03\x01")
	tls := r.inside(o)
	next := o.accept() // before a word is said
	next.send("hello")
	tls.want("hello")
	http := r.inside(o)
	o.getInside(http, o.accept())
	r.inside(o)
	o.served(4)
}

// It is remembered while the tunnel is open.
func TestATunnelThatLastsIsRememberedToo(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	client, up := tunnel(r, o)
	client.send("\x16\x03\x01")
	up.want("\x16\x03\x01")
	o.exchange(r.client(), nil)
	r.idle(o, 1)
	tunnel(r, o) // not the idle one
	o.served(3)
}

// A client that has begun what may be a request gets a tunnel when it does not go
// on, so nobody waits for the other for ever.
func TestC8WhoBeginsAndDoesNotGoOn(t *testing.T) {
	t.Parallel()
	for name, idle := range map[string]bool{"C8 on a new connection": false, "C8 where one is idle": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(s *settings) { s.proxy.ClientHeaderTimeout = 50 * time.Millisecond })
			o := newOrigin(t)
			if idle {
				o.exchange(r.client(), nil)
				r.idle(o, 1)
			}
			client := r.inside(o)
			client.send("GET /half")
			up := o.accept()
			up.want("GET /half")
			up.send("what?")
			client.want("what?")
			client.send(" HTTP/1.1\r\n")
			up.want(" HTTP/1.1\r\n")
		})
	}
	t.Run("C8 the upstream speaks", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.inside(o)
		client.send("GET")
		up := o.accept()
		up.send("hello")
		client.want("hello")
		up.want("GET")
		client.send(" / HTTP/1.1\r\n\r\n")
		up.want(" / HTTP/1.1\r\n\r\n")
	})
	t.Run("C8 it ends its side", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client := r.inside(o)
		client.send("GET")
		client.shut()
		up := o.accept()
		up.want("GET")
		up.end()
		up.send("bye")
		_ = up.Close()
		client.want("bye")
		client.end()
	})
	t.Run("C8 a request that does not end", func(t *testing.T) {
		t.Parallel()
		r := start(t, func(s *settings) { s.proxy.ClientHeaderTimeout = 50 * time.Millisecond })
		o := newOrigin(t)
		client := r.inside(o)
		client.send("GET / HTTP/1.1\r\nHost")
		client.refused(408)
	})
	t.Run("C8 a line that does not end", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, func(s *settings) { s.proxy.MaxHeaderBytes = 1 << 10 }), newOrigin(t)
		client := r.inside(o)
		client.send("GET /" + strings.Repeat("a", 1<<10))
		client.refused(414)
	})
}

// C8: the connection that a CONNECT has opened has carried nothing when the client
// speaks a moment later. That it dies then says nothing of kept connections.
func TestC8TheConnectionOfTheConnectIsNew(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	c := r.client()
	c.send(connectTo(o.addr) + o.inner("GET", "/", ""))
	c.want(established)
	up := o.accept()
	up.want(o.inner("GET", "/", ""))
	_ = up.Close()
	c.problem(502)
	if n := r.proxy.Stats().Retries; n != 0 {
		t.Errorf("it was sent again %d times", n)
	}
	if s := r.stats(o); s.Closed[pool.ClosedOnReuse] != 0 || s.Closed[pool.BadAnswer] != 1 {
		t.Errorf("closed %v", s.Closed)
	}
	o.served(1)
}

// C8: connections that carried nothing are as good as kept ones to other clients.
func TestC8TheConnectionOfAConnectIsAKeptOneToOthers(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	first := r.client()
	first.send(connectTo(o.addr) + "GET") // which is HTTP, or not
	first.want(established)
	up := o.accept()
	first.send(" / HTTP/1.1\r\nHost: other.test\r\n\r\n")
	first.refused(421) // nothing was sent on it
	r.idle(o, 1)
	second := r.client()
	second.send(o.get("/"))
	up.want(o.forwarded("GET", "/", ""))
	_ = up.Close()
	up = o.accept()
	up.want(o.forwarded("GET", "/", ""))
	up.send(ok)
	second.want(ok)
	if n := r.proxy.Stats().Retries; n != 1 {
		t.Errorf("it was sent again %d times", n)
	}
}

// C8: a CONNECT is no request. Those inside count when they come.
func TestC8AConnectDoesNotCountInTheRateOfRequests(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	o.exchange(r.client(), nil)
	r.idle(o, 1)
	for range 10 {
		r.inside(o)
	}
	at := netip.MustParseAddrPort(o.addr)
	x, err := r.pool.Origin(pool.Lookup{Host: []byte(at.Addr().String()), Port: at.Port()}).Explain(t.Context(), true)
	if err != nil || len(x.Addrs) != 1 {
		t.Fatalf("%+v, %v", x, err)
	}
	// One request in ten seconds lets three connections be warm for a minute.
	if n := x.Addrs[0].InTurn; n > 4 {
		t.Errorf("%d connections are used in turn for one request", n)
	}
}

// Nobody has said a word, and one is gone.
func TestC7EndsBeforeAnyoneSpoke(t *testing.T) {
	t.Parallel()
	for where, idle := range map[string]bool{"on a new connection": false, "where one is idle": true} {
		for what, leave := range map[string]func(*wire){
			"closes": func(c *wire) { _ = c.Close() },
			"resets": (*wire).reset,
		} {
			t.Run("C7 the client "+what+" "+where, func(t *testing.T) {
				t.Parallel()
				r := start(t, func(s *settings) { s.proxy.TunnelHalfClosedTimeout = 100 * time.Millisecond })
				o := newOrigin(t)
				if idle {
					o.exchange(r.client(), nil)
					r.idle(o, 1)
				}
				leave(r.inside(o))
				eventually(t, "nothing is left", func() bool {
					return r.proxy.Stats().Tunnels == 0 && r.stats(o).InUse == 0 && !r.proxy.Busy()
				})
				if idle && r.stats(o).Idle != 1 {
					t.Error("the idle connection has gone with it")
				}
			})
		}
	}
	t.Run("C7 the upstream closes", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		_ = up.Close()
		client.end()
	})
	t.Run("C7 the upstream resets", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		up.reset()
		if _, err := client.rest(); !isReset(err) {
			t.Errorf("the client sees %v", err)
		}
	})
	t.Run("C7 the idle connection closes: nobody has lost anything", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		up := o.exchange(r.client(), nil)
		r.idle(o, 1)
		client := r.inside(o)
		_ = up.Close()
		r.idle(o, 0)
		o.getInside(client, nil)
	})
	t.Run("C7 the proxy ends", func(t *testing.T) {
		t.Parallel()
		r, o := start(t), newOrigin(t)
		client, up := tunnel(r, o)
		half := r.inside(o)
		half.send("GET")
		r.stop()
		for _, w := range []*wire{client, up, half} {
			w.cut()
		}
	})
}

// The client was told that it has a tunnel, and the connection for it cannot be had.
func TestC3ATunnelThatIsNeededLateAndCannotBeHad(t *testing.T) {
	t.Parallel()
	r := start(t, func(s *settings) { s.pool.MaxConns = 2; s.pool.PendingTimeout = 50 * time.Millisecond })
	o, busy := newOrigin(t), newOrigin(t)
	o.exchange(r.client(), nil)
	r.idle(o, 1)
	client := r.inside(o)
	tunnel(r, busy)
	for n := 3; n < 5; n++ { // nothing is idle any more
		other := r.client()
		other.send(busy.get("/"))
		if n == 3 {
			eventually(t, "the idle connection made room", func() bool { return r.stats(o).Idle == 0 })
			continue
		}
		other.problem(503)
	}
	client.send("\x16\x03\x01")
	if _, err := client.rest(); !isReset(err) {
		t.Errorf("the client sees %v, want a reset", err)
	}
	eventually(t, "it is logged", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.records[len(r.records)-1]
		return last.Method == "CONNECT" && last.Status == 503 && last.Error == "connection_limit_reached" && last.Detail != ""
	})
}

func TestConnectTunnelPortsAreNotLookedInto(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	r := start(t, func(s *settings) { s.proxy.ConnectTunnelPorts = []uint16{1, netip.MustParseAddrPort(o.addr).Port()} })
	o.exchange(r.client(), nil)
	r.idle(o, 1)
	client, up := tunnel(r, o)
	const request = "GET / HTTP/1.1\r\nHost: anything\r\nProxy-Connection: x\r\n\r\n"
	client.send(request)
	up.want(request)
	if n := r.proxy.Stats().Tunnels; n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

// A tunnel that is open both ways and silent ends where a limit is set.
func TestC10ASilentTunnelEndsWhereALimitIsSet(t *testing.T) {
	t.Parallel()
	for kind, open := range joined {
		t.Run("C10 "+kind, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(s *settings) { s.proxy.TunnelIdleTimeout = 3 * proxy.SweepPeriod })
			o := newOrigin(t)
			client, up := open(r, o)
			for range 12 { // bytes renew the time
				client.silence(proxy.SweepPeriod / 2)
				up.send("x")
				client.want("x")
			}
			client.cut()
			up.cut()
			if rec := r.logged(1); !strings.Contains(rec.Detail, "TUNNEL_IDLE_TIMEOUT") || rec.Received < 12 {
				t.Errorf("logged %+v", rec)
			}
		})
	}
}

// Not parallel: it counts goroutines. A client with HTTP in its tunnel is like any
// other: it may sleep, and holds nothing.
func TestC8AClientInItsTunnelSleeps(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("nobody sleeps here")
	}
	r, o := start(t), newOrigin(t)
	spoken, mute := r.inside(o), (*wire)(nil)
	up := o.getInside(spoken, nil)
	mute = r.inside(o)
	eventually(t, "both are asleep", func() bool { return sessionGoroutines() == 0 })
	o.getInside(spoken, up)
	o.getInside(mute, up)
	eventually(t, "both are asleep", func() bool { return sessionGoroutines() == 0 })
	tls := r.inside(o)
	eventually(t, "all are asleep", func() bool { return sessionGoroutines() == 0 })
	tls.send("\x16\x03\x01")
	o.accept().want("\x16\x03\x01")
}

// The idle connection that a CONNECT has looked at is none the worse for it.
func TestC8AConnectLeavesAnIdleConnectionAsItWas(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	up := o.exchange(r.client(), nil)
	r.idle(o, 1)
	before := r.stats(o)
	for range 10 {
		_ = r.inside(o)
	}
	after := r.stats(o)
	if after.Reused != before.Reused || after.Opened != before.Opened || after.Idle != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	o.exchange(r.client(), up)
	if n := r.stats(o).Closed[pool.ClosedOnReuse]; n != 0 {
		t.Errorf("%d connections were closed", n)
	}
}
