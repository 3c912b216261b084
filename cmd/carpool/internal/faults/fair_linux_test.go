package faults_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// source is a file that is sent over and over. The kernel does it, without a
// copy, so that who takes the bytes is the slower one.
type source struct {
	*os.File
}

func newSource(t testing.TB) source {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "zeros"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	return source{f}
}

// pour sends without end.
func (s source) pour(c *net.TCPConn) {
	f, err := os.Open(s.Name())
	if err != nil {
		return
	}
	defer f.Close()
	for {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return
		}
		if _, err := c.ReadFrom(f); err != nil {
			return
		}
	}
}

// swallow takes bytes without end, and counts them. The kernel throws them away
// without a copy (tcp(7), MSG_TRUNC).
func swallow(c *net.TCPConn, count *atomic.Int64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	buffer := make([]byte, 1<<20)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			var errno error
			n, _, errno = syscall.Recvfrom(int(fd), buffer, syscall.MSG_TRUNC)
			return errno != syscall.EAGAIN
		})
		if err != nil || n <= 0 {
			return
		}
		count.Add(int64(n))
	}
}

// endless is an upstream whose answers, or requests, never end.
func endless(t testing.TB, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var conns sync.Map
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			work.Go(func() { serve(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		work.Wait()
	})
	return "http://" + l.Addr().String() + "/"
}

// On one thread a transfer whose both ends are always ready never has to wait,
// and so would never let anybody else on the thread.
func TestX22EndlessTransfersStarveNobody(t *testing.T) {
	const length = "Content-Length: 9000000000000000000"
	zeros := newSource(t)
	directions := map[string]func(t *testing.T, bulk *carpooltest.Client, moved *atomic.Int64){
		"download": func(t *testing.T, bulk *carpooltest.Client, moved *atomic.Int64) {
			url := endless(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+length+"\r\n\r\n")
				zeros.pour(c)
			})
			_ = bulk.Send("GET", url)
			_ = bulk.SetDeadline(time.Time{})
			swallow(bulk.Conn.(*net.TCPConn), moved)
		},
		"upload": func(t *testing.T, bulk *carpooltest.Client, moved *atomic.Int64) {
			url := endless(t, func(c *net.TCPConn) { swallow(c, moved) })
			_ = bulk.Send("POST", url, length)
			_ = bulk.SetDeadline(time.Time{})
			zeros.pour(bulk.Conn.(*net.TCPConn))
		},
	}
	up := carpooltest.NewUpstream(t)
	for name, transfer := range directions {
		t.Run(name, func(t *testing.T) {
			c := carpooltest.Start(t, "GOMAXPROCS=1", "CARPOOL_DRAIN_TIMEOUT=0")
			bulk, kept := c.Dial(), c.Dial()
			var moved atomic.Int64
			var work sync.WaitGroup
			defer work.Wait()
			defer bulk.Close()
			work.Go(func() { transfer(t, bulk, &moved) })
			testkit.Eventually(t, "the transfer flows", func() bool { return moved.Load() > 64<<20 })
			for range 20 {
				before := moved.Load()
				r, err := kept.Ask("GET", up.URL+"/")
				carpooltest.Want(t, http.StatusOK, r, err)
				r, err = carpooltest.Once(c.Proxy, "GET", up.URL+"/")
				carpooltest.Want(t, http.StatusOK, r, err)
				if c.Status("/healthz") != 200 {
					t.Fatal("/healthz does not answer")
				}
				testkit.Eventually(t, "the transfer goes on", func() bool { return moved.Load() > before })
			}
		})
	}
}
