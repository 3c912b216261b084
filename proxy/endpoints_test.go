package proxy_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/proxy"
)

// twoServers is a client of two servers of one name, which answer each request with
// a text of their own.
type twoServers struct {
	rig   *rig
	addrs [2]netip.Addr
	get   string
	c     *wire
}

func newTwoServers(t *testing.T, first, second string) *twoServers {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no second loopback address here")
	}
	a := newOrigin(t)
	at := netip.MustParseAddrPort(a.addr)
	two := &twoServers{addrs: [2]netip.Addr{at.Addr(), netip.MustParseAddr("127.0.0.2")}}
	b := newOriginAt(t, netip.AddrPortFrom(two.addrs[1], at.Port()).String())
	two.rig = start(t, func(s *settings) { s.pool.Resolver = namesOf(two.addrs[:]) })
	for o, text := range map[*origin]string{a: first, b: second} {
		o.handle(func(w *wire) {
			for w.fill() == nil {
				if strings.HasSuffix(string(w.in), "\r\n\r\n") {
					w.in = nil
					_ = w.trySend(text)
				}
			}
		})
	}
	a.addr = fmt.Sprint("two.hosts:", at.Port())
	two.get, two.c = a.get("/"), two.rig.client()
	return two
}

// ask does one request and returns the status of the answer.
func (two *twoServers) ask() int {
	two.c.send(two.get)
	status, _, _ := two.c.reply()
	return status
}

// benched says why no request goes to the first server, "" if that is not so.
func (two *twoServers) benched() string {
	for _, a := range two.rig.pool.Snapshot().Origins[0].Addrs {
		if a.Addr == two.addrs[0] {
			return a.Benched
		}
	}
	return ""
}

// X4: of two servers of a name the one that asks to be left alone is.
func TestX4RetryAfterMovesRequestsToOthers(t *testing.T) {
	t.Parallel()
	two := newTwoServers(t, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n", ok)
	eventually(t, "the busy one is asked", func() bool { return two.ask() == 503 })
	for range 50 {
		if two.ask() == 503 {
			t.Fatal("a server is asked again that wants to be left alone for a minute")
		}
	}
}

// X4: a 503 that does not say for how long is a failure like any other.
func TestX4A503WithoutRetryAfterIsAFailure(t *testing.T) {
	t.Parallel()
	for name, field := range map[string]string{
		"X4 no Retry-After": "", "X4 one of zero": "Retry-After: 0\r\n", "X4 one that is no time": "Retry-After: soon\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			two := newTwoServers(t, "HTTP/1.1 503 Service Unavailable\r\n"+field+"Content-Length: 0\r\n\r\n", ok)
			for failures := 0; failures < 2; {
				if two.ask() == 503 {
					failures++
				}
			}
			const requests = 200
			failures := 0
			for range requests {
				if two.ask() == 503 {
					failures++
				}
			}
			if failures > requests/4 {
				t.Errorf("%d of %d requests go to the server that fails", failures, requests)
			}
		})
	}
}

// X4: a 429 that does not say for how long is about the client.
func TestX4A429WithoutRetryAfterIsNoFailure(t *testing.T) {
	t.Parallel()
	two := newTwoServers(t, "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", ok)
	for limited := 0; limited < 20; {
		if two.ask() == 429 {
			limited++
		}
		if why := two.benched(); why != "" {
			t.Fatalf("after %d such answers the server is left alone: it %s", limited, why)
		}
	}
}

func TestHowLongAnUpstreamAsksToBeLeftAlone(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"X: 5":                        0,
		"Retry-After: 5":              5 * time.Second,
		"retry-after: 0":              0,
		"Retry-After: -1":             0,
		"Retry-After: soon":           0,
		"Retry-After: 99999999999999": 0,
		"Retry-After: Wed, 25 Nov 2026 12:00:30 GMT": 30 * time.Second,
		"Retry-After: Wed, 25 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := proxy.RetryAfter("HTTP/1.1 503 x\r\n"+field+"\r\n\r\n", now); got != want {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
}
