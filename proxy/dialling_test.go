package proxy_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
)

// namesOf is a resolver that has the same addresses for each name.
type namesOf []netip.Addr

func (n namesOf) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return n, nil }

// X4: the address that has just failed is the last to be tried again.
func TestX4RetryTakesAnotherAddress(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("no second loopback address here")
	}
	first := newOrigin(t)
	port := netip.MustParseAddrPort(first.addr).Port()
	second := newOriginAt(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), port).String())
	r := start(t, func(s *settings) {
		s.pool.Resolver = namesOf{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.5")}
	})
	first.addr = fmt.Sprint("retry.test:", port)
	client := r.client()
	up := first.exchange(client, nil)
	r.idle(first, 1)
	client.send(first.get("/"))
	up.head()
	_ = up.Close()
	again := second.accept()
	again.want(first.forwarded("GET", "/", ""))
	again.send(ok)
	client.want(ok)
}

// X5: a dial that is refused once costs no request, whatever its method, for
// nothing was sent.
func TestX5RefusedOnce(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		t.Run("X5 "+method, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			var tried atomic.Int64
			r := start(t, func(s *settings) {
				// As if nothing listened at the first try.
				s.pool.CheckAddr = func(netip.AddrPort) error {
					if tried.Add(1) == 1 {
						return syscall.ECONNREFUSED
					}
					return nil
				}
			})
			client := r.client()
			client.send(o.request(method, "/", "Content-Length: 5\r\n\r\nhello"))
			up := o.accept()
			up.want(o.forwarded(method, "/", "Content-Length: 5\r\n\r\nhello"))
			up.send(ok)
			client.want(ok)
			if n := tried.Load(); n != 2 {
				t.Errorf("%d tries", n)
			}
		})
	}
}
