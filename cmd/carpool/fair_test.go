package main

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pour is an upstream that sends, or takes, without end and as fast as it can.
type pour struct {
	net.Listener
	moved atomic.Int64 // bytes
	work  sync.WaitGroup
	conns sync.Map
}

func newPour(t testing.TB, sends bool) *pour {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pour{Listener: l}
	p.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Store(conn, nil)
			p.work.Go(func() { p.flow(conn, sends) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		p.work.Wait()
	})
	return p
}

func (p *pour) flow(conn net.Conn, sends bool) {
	buffer := make([]byte, 64<<10)
	if sends {
		if _, err := conn.Read(buffer); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n"); err != nil {
			return
		}
	}
	move := conn.Read
	if sends {
		move = conn.Write
	}
	for {
		n, err := move(buffer)
		if err != nil {
			return
		}
		p.moved.Add(int64(n))
	}
}

// On one thread an endless transfer whose both ends are always ready never has
// to wait, and so would never let anybody else on the thread.
func TestX22EndlessTransfersStarveNobody(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	for name, sends := range map[string]bool{"download": true, "upload": false} {
		t.Run(name, func(t *testing.T) {
			endless := newPour(t, sends)
			c := startCarpool(t, "GOMAXPROCS=1", "CARPOOL_DRAIN_TIMEOUT=0")
			bulk := c.dial()
			var work sync.WaitGroup
			defer work.Wait()
			defer bulk.Close()
			url := "http://" + endless.Addr().String() + "/"
			if sends {
				_ = bulk.send("GET", url)
				work.Go(func() { copyForever(io.Discard, bulk.Conn) })
			} else {
				_ = bulk.send("POST", url, "Content-Length: 9000000000000000000")
				work.Go(func() { copyForever(bulk.Conn, zeros{}) })
			}
			eventually(t, "the transfer flows", func() bool { return endless.moved.Load() > 32<<20 })
			kept := c.dial()
			for range 50 {
				before := endless.moved.Load()
				r, err := kept.ask("GET", up.URL+"/")
				want(t, http.StatusOK, r, err)
				r, err = once(c.proxy, "GET", up.URL+"/")
				want(t, http.StatusOK, r, err)
				if c.status("/healthz") != 200 {
					t.Fatal("/healthz does not answer")
				}
				eventually(t, "the transfer goes on", func() bool { return endless.moved.Load() > before })
			}
		})
	}
}

// copyForever copies until an end is closed, without deadlines or shortcuts.
func copyForever(to io.Writer, from io.Reader) {
	if c, ok := to.(net.Conn); ok {
		_ = c.SetDeadline(time.Time{})
	}
	if c, ok := from.(net.Conn); ok {
		_ = c.SetDeadline(time.Time{})
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
