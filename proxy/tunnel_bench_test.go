package proxy_test

import (
	"io"
	"net"
	"strings"
	"testing"
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

// tunnels returns an upstream that answers each three bytes, and what opens a
// tunnel to it.
func tunnels(b *testing.B) (addr string, open func() net.Conn) {
	r := start(b, func(s *settings) { s.proxy.Log, s.proxy.LogAll = nil, false })
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
