package proxy_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/carpoolproxy/carpool/internal/testkit"
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

// X5: behind the address of a Service one pod has ended, and for a moment some dials
// are led to it still. A request that it has failed goes to a pod that lives.
func TestX5APodHasEndedAndItsServiceLeadsToItStill(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"GET": "", "PUT": "Content-Length: 5\r\n\r\nhello"} {
		t.Run("X5 "+name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t)
			var ended atomic.Bool
			r := start(t, func(s *settings) {
				s.pool.CheckAddr = func(netip.AddrPort) error {
					if ended.Load() {
						return syscall.ECONNREFUSED
					}
					return nil
				}
			})
			clients, pods := [2]*wire{r.client(), r.client()}, [2]*wire{}
			for i, client := range clients {
				client.send(o.get("/"))
				pods[i] = o.accept()
				pods[i].want(o.forwarded("GET", "/", ""))
			}
			for i, client := range clients {
				pods[i].send(ok)
				client.want(ok)
			}
			r.idle(o, 2)
			ended.Store(true)
			asked := make(chan *wire, 2)
			for _, pod := range pods {
				go func() {
					if pod.fill() == nil {
						asked <- pod
					}
				}()
			}
			clients[0].send(o.request(name, "/", more))
			first := testkit.Await(t, "one pod is asked", asked)
			_ = first.Close()
			second := testkit.Await(t, "the other is asked", asked)
			second.want(o.forwarded(name, "/", more))
			second.send(ok)
			clients[0].want(ok)
			if n := r.proxy.Stats().Retries; n != 1 || first == second {
				t.Errorf("%d retries", n)
			}
		})
	}
}
