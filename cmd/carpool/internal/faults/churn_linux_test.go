package faults_test

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

var x17Requests = flag.Int("x17", 5000, "how many requests TestX17 makes, each on a connection of its own")

// A client that opens a connection for each request is whom carpool is for. It
// must not wear out the ports: neither towards the upstream nor on loopback,
// where each of its connections leaves a port in TIME_WAIT behind.
func TestX17ClientThatOpensAConnectionEach(t *testing.T) {
	requests := *x17Requests
	switch {
	case testing.Short():
		requests = min(requests, 500)
	case testkit.Race:
		requests = min(requests, 2000)
	}
	const workers = 16
	up := newPlain(t)
	c := carpooltest.Start(t)
	request := carpooltest.Head("GET", "http://"+up.Addr().String()+"/", "Connection: close")
	var next, failed atomic.Int64
	var work sync.WaitGroup
	begin := time.Now()
	for range workers {
		work.Go(func() {
			buffer := make([]byte, 4096)
			for next.Add(1) <= int64(requests) {
				if err := onceRaw(c.Proxy, request, buffer); err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	took := time.Since(begin)
	t.Logf("%d requests, %d failed, %.0f/s, %d upstream connections; %s",
		requests, failed.Load(), float64(requests)/took.Seconds(), up.accepted.Load(), socketStates(t))
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed", n, requests)
	}
	if n := up.accepted.Load(); n >= 100 {
		t.Errorf("%d upstream connections", n)
	}
	if n := c.Metric("carpool_client_connections_accepted_total"); int(n) != requests {
		t.Errorf("%v client connections for %d requests", n, requests)
	}
}

// onceRaw does a request on a connection of its own, with as little as it takes:
// the client shares the machine with what is tested.
func onceRaw(addr, request string, buffer []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	n := 0
	for {
		k, err := c.Read(buffer[n:])
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := string(buffer[:n]); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\nok") {
		return fmt.Errorf("the answer is %q", got)
	}
	return nil
}

// socketStates is what the kernel says of all of the machine's sockets.
func socketStates(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "TCP: ")
	line, _, _ := strings.Cut(rest, "\n")
	return "sockets: " + line
}

// plain is an upstream that answers "ok" and does next to nothing else.
type plain struct {
	net.Listener
	accepted atomic.Int64
	work     sync.WaitGroup
	conns    sync.Map
}

func newPlain(t testing.TB) *plain {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plain{Listener: l}
	p.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			p.conns.Store(c, nil)
			p.work.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		p.work.Wait()
	})
	return p
}

// serve relies on getting one request at a time, and on none being longer than
// its buffer: carpool waits for the answer before it sends another.
func (p *plain) serve(c net.Conn) {
	defer p.conns.Delete(c)
	defer c.Close()
	buffer := make([]byte, 32<<10)
	n := 0
	for {
		k, err := c.Read(buffer[n:])
		if err != nil {
			return
		}
		n += k
		head, body, ok := strings.Cut(string(buffer[:n]), "\r\n\r\n")
		length := 0
		if _, value, ok := strings.Cut(head, "Content-Length: "); ok {
			_, _ = fmt.Sscan(value, &length)
		}
		if !ok || len(body) < length {
			continue
		}
		n = 0
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// Both ends of the clients' connections are on this machine: carpool's in its
// process, the clients' in the test's.
func TestX15IdleClientsAreServedAndCostLittle(t *testing.T) {
	clients := 10_000
	if testing.Short() || testkit.Race {
		clients = 1000
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(clients*5/3 + 100); limit.Cur < need { // carpool keeps two fifths for upstreams
		t.Skipf("may open %d files (of at most %d), and %d are needed", limit.Cur, limit.Max, need)
	}
	up := newPlain(t)
	c := carpooltest.Start(t, "CARPOOL_BALANCE=reuse")
	url := "http://" + up.Addr().String() + "/"
	r, err := carpooltest.Once(c.Proxy, "GET", url)
	carpooltest.Want(t, http.StatusOK, r, err)
	before := c.Pss(t)
	// Long ones, so that a buffer that is kept for each client can be seen.
	const body = 16 << 10
	request := carpooltest.Head("PUT", url, fmt.Sprint("Content-Length: ", body)) + strings.Repeat("x", body)
	var all []net.Conn
	defer func() {
		for _, conn := range all {
			_ = conn.Close()
		}
	}()
	for n := range clients {
		conn, err := net.Dial("tcp", c.Proxy)
		if err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		all = append(all, conn)
		askRaw(t, n, conn, request)
	}
	if n := c.Metric("carpool_client_connections"); int(n) != clients {
		t.Errorf("%v of %d clients are connected", n, clients)
	}
	each := (c.Pss(t) - before) / clients
	t.Logf("%d idle clients take %d bytes of carpool's memory each", clients, each)
	if each > 10<<10 && !testkit.Race {
		t.Errorf("an idle client takes %d bytes", each)
	}
	for n, conn := range all {
		askRaw(t, n, conn, request)
	}
	if n := up.accepted.Load(); n > 10 {
		t.Errorf("%d upstream connections for requests one after the other", n)
	}
}

// askRaw has a client do a request on its connection.
func askRaw(t testing.TB, n int, c net.Conn, request string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatalf("client %d: %v", n, err)
	}
	var buffer [512]byte
	for k := 0; !strings.HasSuffix(string(buffer[:k]), "\r\n\r\nok"); {
		m, err := c.Read(buffer[k:])
		if err != nil {
			t.Fatalf("client %d: after %q: %v", n, buffer[:k], err)
		}
		k += m
	}
	if !strings.HasPrefix(string(buffer[:]), "HTTP/1.1 200 ") {
		t.Fatalf("client %d is answered %q", n, buffer)
	}
}

// What a client with a CONNECT takes while it is idle: with plain HTTP in it, it is
// like any other; as a tunnel it has an upstream connection besides. Neither has a
// goroutine after a while.
func TestX15IdleTunnelsCostLittle(t *testing.T) {
	clients := 2000
	if testing.Short() || testkit.Race {
		clients = 200
	}
	up := newPlain(t)
	addr := up.Addr().String()
	for name, kind := range map[string]struct {
		limit int
		ask   func(net.Conn)
	}{
		"plain HTTP": {10 << 10, func(conn net.Conn) {
			askRaw(t, 0, conn, "GET / HTTP/1.1\r\nHost: "+addr+"\r\n\r\n")
		}},
		"a tunnel": {6<<10 + 512, func(conn net.Conn) { // the upstream takes anything that ends like a head
			askRaw(t, 0, conn, "BREW / HTTP/1.1\r\nHost: "+addr+"\r\n\r\n")
		}},
	} {
		t.Run("X15 "+name, func(t *testing.T) {
			c := carpooltest.Start(t)
			var all []net.Conn
			defer func() {
				for _, conn := range all {
					_ = conn.Close()
				}
			}()
			open := func() {
				conn, err := net.Dial("tcp", c.Proxy)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, conn)
				_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
				if _, err := io.WriteString(conn, "CONNECT "+addr+" HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				answer := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
				if _, err := io.ReadFull(conn, answer); err != nil || string(answer[:13]) != "HTTP/1.1 200 " {
					t.Fatalf("%q, %v", answer, err)
				}
				kind.ask(conn)
			}
			for range 20 {
				open()
			}
			before := c.Pss(t)
			for range clients {
				open()
			}
			each, least := 0, math.MaxInt
			defer func() {
				t.Logf("%s: %d of them take %d bytes of carpool's memory each, %d at least", name, clients, each, least)
			}()
			testkit.Eventually(t, "they take little", func() bool { // when they sleep
				each = (c.Pss(t) - before) / clients
				least = min(least, each)
				return each <= kind.limit || testkit.Race
			})
			for _, conn := range all {
				kind.ask(conn)
			}
		})
	}
}
