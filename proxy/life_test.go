package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/sock"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

func TestFullOfClients(t *testing.T) {
	t.Parallel()
	three := func(s *settings) { s.proxy.MaxClients = 3 }
	t.Run("who is idle makes room", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, three), newOrigin(t)
		var clients []*wire
		var up *wire
		for i := range 10 {
			clients = append(clients, r.client())
			up = o.exchange(clients[i], up)
			if n := r.proxy.Stats().Clients; n > 4 { // one may be on its way out
				t.Errorf("%d clients are open", n)
			}
		}
		eventually(t, "there is room for one more", func() bool { return r.proxy.Stats().Clients <= 2 })
		o.exchange(clients[9], up)
		o.served(1) // an idle upstream connection makes no room for clients
	})
	t.Run("who is served is not cut off", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, three), newOrigin(t)
		release := make(chan struct{})
		o.handle(func(up *wire) {
			for {
				head, err := tryHead(up)
				if err != nil {
					return
				}
				if strings.HasPrefix(head, "GET /slow") {
					<-release
				}
				_ = up.trySend(ok)
			}
		})
		var clients []*wire
		for i := range 3 {
			clients = append(clients, r.client())
			clients[i].send(o.get("/slow"))
		}
		eventually(t, "three are served", func() bool { return r.stats(o).InUse == 3 })
		late := r.client()
		late.send(o.get("/late"))
		close(release)
		for _, c := range append(clients, late) {
			c.want(ok)
		}
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	idle, busy := r.client(), r.client()
	up := o.exchange(idle, nil)
	busy.send(o.get("/"))
	up.want(o.forwarded("GET", "/", ""))
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
	busy.want("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
	r.proxy.Drain()
	if !r.proxy.Busy() {
		t.Error("an exchange is open, and the proxy is not busy")
	}
	up.send("ok")
	busy.want("ok") // its head promised to go on, so it does
	const last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
	for _, c := range []*wire{busy, idle, r.client()} {
		c.send(o.get("/last"))
		up.want(o.forwarded("GET", "/last", ""))
		up.send(ok)
		c.want(last)
		c.end()
	}
	c := r.client()
	c.send("GET http://" + testkit.Refused(t).String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	c.refused(502)
	eventually(t, "the proxy is not busy", func() bool { return !r.proxy.Busy() })
	o.served(1)
}

// A panic, here of a hook, ends one connection and nothing else.
func TestPanicsAreContained(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var faults []string
	r := start(t, func(s *settings) {
		s.proxy.Log = func(rec *proxy.Record) {
			if strings.HasPrefix(rec.Path, "/panic") {
				panic("this is a test")
			}
		}
		s.proxy.Fault = func(what string, err error) {
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, what+": "+err.Error())
		}
	})
	o := newOrigin(t)
	var up *wire
	for _, path := range []string{"/panic", "/fine", "/panic/upgrade", "/panic/half", "/fine"} {
		c := r.client()
		c.send(o.request("GET", path, upgradeFields))
		if up == nil {
			up = o.accept()
		}
		up.head()
		switch path {
		case "/panic/upgrade":
			up.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
			_ = up.Close()
			up = nil
		case "/panic/half":
			up.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
			_ = up.Close()
			up = nil
		default:
			up.send(ok)
			c.want(ok)
			_ = up.Close() // an Upgrade that was declined
			up = nil
		}
		if path != "/fine" {
			_, _ = c.rest()
			c.cut()
			_ = c.Close()
		}
	}
	eventually(t, "nothing is open", func() bool { return !r.proxy.Busy() })
	if n := r.proxy.Stats().Panics; n != 3 {
		t.Errorf("%d panics are counted", n)
	}
	if len(faults) != 3 || !strings.Contains(faults[0], "this is a test") {
		t.Errorf("told of %q", faults)
	}
	r.free(o)
}

// sessionGoroutines counts the goroutines that serve clients.
func sessionGoroutines() int {
	return len(testkit.Goroutines("proxy.(*session).serve("))
}

// Idle clients cost no goroutine after a while, and it makes no difference to
// them. Not parallel: it counts goroutines.
func TestIdleClientsSleep(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("sessions do not sleep here")
	}
	r, o := start(t, func(s *settings) { s.proxy.MaxClients, s.pool.Reuse = 51, true }), newOrigin(t)
	up := (*wire)(nil)
	clients := make([]*wire, 50)
	for i := range clients {
		clients[i] = r.client()
		up = o.exchange(clients[i], up)
	}
	asleep := func() { t.Helper(); eventually(t, "all sleep", func() bool { return sessionGoroutines() == 0 }) }
	asleep()
	for i, c := range clients {
		up = o.exchange(c, up)
		if i == 0 {
			asleep() // so that this one is surely idle longest
		}
	}
	asleep()
	_ = clients[49].Close() // noticed, though nobody reads
	eventually(t, "one less is open", func() bool { return r.proxy.Stats().Clients == 49 })
	clients[48].reset()
	eventually(t, "two less are open", func() bool { return r.proxy.Stats().Clients == 48 })
	// Who sleeps can be evicted, longest idle first.
	for i := range 3 {
		c := r.client()
		up = o.exchange(c, up)
		if i == 2 {
			clients[0].end()
		}
	}
	o.exchange(clients[2], up)
	o.served(1)
	asleep() // and be closed
}

// Requests that come just as a session falls asleep are served like others.
func TestRequestsMeetSessionsThatFallAsleep(t *testing.T) {
	t.Parallel()
	r, o := start(t), newOrigin(t)
	o.handle(func(up *wire) {
		for {
			head, err := tryHead(up)
			if err != nil || up.trySend(answer(strings.Fields(head)[1])) != nil {
				return
			}
		}
	})
	var clients sync.WaitGroup
	for i := range 100 {
		c := r.client()
		clients.Go(func() {
			for k := range 2 {
				path := fmt.Sprintf("/%d/%d", i, k)
				if err := c.trySend(o.get(path)); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				if status, _, body := c.reply(); status != 200 || body != path {
					t.Errorf("%s was answered %d %q", path, status, body)
					return
				}
				// Sessions fall asleep after about a second.
				<-time.After(900*time.Millisecond + rand.N(400*time.Millisecond))
			}
		})
	}
	clients.Wait()
}

// A client that ends its sending side with its request is answered all the
// same, if that is done at once. Not parallel: at once is a matter of load.
func TestHalfClosedClients(t *testing.T) {
	r, o := start(t), newOrigin(t)
	fresh, used := r.client(), r.client()
	up := o.exchange(used, nil)
	for _, c := range []*wire{fresh, used} {
		c.send(o.get("/"))
		c.shut()
		up.head()
		up.send(ok)
		c.want(ok)
		c.end()
	}
}

// A client whose connection authenticates keeps it while it sleeps.
func TestIdleClientsSleepWithWhatIsTheirs(t *testing.T) {
	if !sock.CanWatch {
		t.Skip("sessions do not sleep here")
	}
	r, o := start(t), newOrigin(t)
	client := r.client()
	client.send(o.request("GET", "/", "Authorization: NTLM abc\r\n"))
	up := o.accept()
	up.head()
	up.send(ok)
	client.want(ok)
	eventually(t, "it sleeps", func() bool { return sessionGoroutines() == 0 })
	o.exchange(client, up)
	eventually(t, "it sleeps", func() bool { return sessionGoroutines() == 0 })
	_ = client.Close()
	up.end()
	r.closedFor(o, pool.Pinned)
}

// stuck is a resolver that never answers.
type stuck struct{ asked chan struct{} }

func (s stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Close returns although everything there is to be open is open, and leaves
// nothing behind. Not parallel: it counts descriptors.
func TestCloseWithEverythingOpen(t *testing.T) {
	before := len(testkit.Descriptors())
	t.Cleanup(func() { // after all else
		eventually(t, "no descriptor is left", func() bool { return len(testkit.Descriptors()) <= before })
	})
	resolver := stuck{make(chan struct{}, 2)}
	r := start(t, func(s *settings) { s.pool.Resolver = resolver; s.pool.MaxConnsPerHost = 6 })
	o := newOrigin(t)
	open := everything(t, r, o, resolver)
	r.stop()
	for name, w := range open {
		if _, err := w.rest(); err != nil && !isReset(err) {
			t.Errorf("%s is not cut off: %v", name, err)
		}
		_ = w.Close()
	}
	eventually(t, "no goroutine is left", func() bool {
		return len(testkit.Goroutines("carpool/proxy.", "carpool/pool.", "elazarl/goproxy.")) == 0
	})
}

// everything opens one of each thing that can be open, and returns the ends.
func everything(t *testing.T, r *rig, o *origin, resolver stuck) map[string]*wire {
	t.Helper()
	open := map[string]*wire{}
	client := func(name, request string) *wire {
		c := r.client()
		c.send(request)
		open[name] = c
		return c
	}
	var up *wire
	open["an idle client"] = r.client()
	open["the upstream of an idle connection"] = o.exchange(open["an idle client"], nil)
	client("half a head", "GET http://"+o.addr+"/ HT")
	client("half a body", o.request("POST", "/", "Content-Length: 10\r\n\r\nhalf"))
	open["the upstream of an idle connection"].head() // it is not idle any more
	c := client("half an answer", o.get("/"))
	up = o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	c.take(10)
	open["the upstream of half an answer"] = up
	client("a slow reader", o.get("/"))
	up = o.accept()
	up.head()
	up.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
	pushUntilStuck(t, up, newNoise(1<<30))
	open["the upstream of a slow reader"] = up
	open["a websocket"], open["the upstream of a websocket"] = websocket(r, o)
	open["a tunnel"], open["the upstream of a tunnel"] = tunnel(r, o)
	client("one that waits for an answer", o.get("/"))
	open["the upstream that thinks"] = o.accept()
	client("one that waits for a connection", o.get("/"))
	r.waiting(o, 1)
	client("one that waits for a name", "GET http://name.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
	<-resolver.asked
	client("a tunnel that waits for a name", connectTo("other.test:443"))
	<-resolver.asked
	c = client("one that is left to read its answer", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	c.problem(400)
	return open
}

// Close in the middle of everything: start checks that nothing is lost.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	for i := range 10 {
		o := newOrigin(t)
		o.handle(erratic)
		r := start(t, func(s *settings) { s.pool.MaxConnsPerHost = 1 + i })
		var clients sync.WaitGroup
		for k := range 12 {
			clients.Go(func() {
				for n := k; ; n++ {
					c, err := net.Dial("tcp", r.addr)
					if err != nil {
						return
					}
					w := &wire{t: t, name: "client", Conn: c}
					if n%4 == 0 {
						_ = w.trySend(connectTo(o.addr) + "GET /tunnel/ HTTP/1.1\r\n\r\n")
						_, _ = tryHead(w)
					} else {
						whim(w, o, k, n)
					}
					_ = c.Close()
				}
			})
		}
		r.logged(20 * (i + 1))
		r.stop()
		clients.Wait()
	}
}

// Serve says so when the proxy was closed before.
func TestServeAfterClose(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.stop()
	l, err := sock.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.proxy.Serve(l, proxy.Lane{}); !errors.Is(err, proxy.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := l.Close(); err == nil {
		t.Error("Serve has not closed the listener")
	}
}
