package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What a CONNECT costs: a tunnel for each exchange, as clients without keep-alive
// make them, and bytes on a tunnel that stands. Client and upstream are in the
// same process, so the figures are good for comparing two builds.

func BenchmarkTunnelEach(b *testing.B) {
	addr, open := tunnels(b)
	answer := make([]byte, len(small))
	b.ReportAllocs()
	for b.Loop() {
		c := open()
		if _, err := c.Write([]byte("ask")); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			b.Fatal(addr, err)
		}
		_ = c.Close()
	}
}

func BenchmarkTunnelBytes(b *testing.B) {
	_, open := tunnels(b)
	c := open()
	defer c.Close()
	answer := make([]byte, len(small))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write([]byte("ask")); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// What SPARE_TUNNELS saves where an upstream is some way off: here it takes 20 ms to
// open a connection. The time is from CONNECT to the first answer inside.
func BenchmarkSpareTunnels(b *testing.B) {
	const far = 20 * time.Millisecond
	for _, n := range []int{0, 1} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, open := tunnels(b, func(s *settings) {
				s.pool.SpareTunnels = n
				s.pool.CheckAddr = func(netip.AddrPort) error {
					if !calledBy("stillAllowed") {
						time.Sleep(far)
					}
					return nil
				}
			})
			answer := make([]byte, len(small))
			exchange := func() {
				c := open()
				if _, err := c.Write([]byte("ask")); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
			}
			exchange()
			exchange()
			for b.Loop() {
				b.StopTimer()
				time.Sleep(2 * far) // tunnels come one after the other, not at once
				b.StartTimer()
				exchange()
			}
		})
	}
}

// calledBy reports whether a function of this name is among the callers.
func calledBy(name string) bool {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "."+name) || !more {
			return more
		}
	}
}

// tunnels returns an upstream that answers each three bytes, and what opens a
// tunnel to it.
func tunnels(b *testing.B, change ...func(*settings)) (addr string, open func() net.Conn) {
	r := start(b, append(change, func(s *settings) { s.proxy.Log, s.proxy.LogAll = nil, false })...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := make([]byte, 3); ; {
					if _, err := io.ReadFull(c, in); err != nil {
						return
					}
					if _, err := io.WriteString(c, small); err != nil {
						return
					}
				}
			}()
		}
	}()
	addr = l.Addr().String()
	return addr, func() net.Conn {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(c, "CONNECT "+addr+" HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		head := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
		if _, err := io.ReadFull(c, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 200 ") {
			b.Fatalf("%q, %v", head, err)
		}
		return c
	}
}
