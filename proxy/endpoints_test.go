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

// X4: of two servers of a name the one that asks to be left alone is.
func TestX4RetryAfterMovesRequestsToOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("no second loopback address here")
	}
	busy := newOrigin(t)
	a := netip.MustParseAddrPort(busy.addr)
	second := netip.MustParseAddr("127.0.0.2")
	good := newOriginAt(t, netip.AddrPortFrom(second, a.Port()).String())
	r := start(t, func(s *settings) { s.pool.Resolver = namesOf{a.Addr(), second} })
	answer := func(text string) func(*wire) {
		return func(w *wire) {
			for w.fill() == nil {
				if strings.HasSuffix(string(w.in), "\r\n\r\n") {
					w.in = nil
					_ = w.trySend(text)
				}
			}
		}
	}
	busy.handle(answer("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"))
	good.handle(answer(ok))
	c := r.client()
	busy.addr = fmt.Sprint("two.hosts:", a.Port())
	get := func() string {
		c.send(busy.get("/"))
		status, _, _ := c.reply()
		if status == 503 {
			return "busy"
		}
		return "good"
	}
	eventually(t, "the busy one is asked", func() bool { return get() == "busy" })
	for range 50 {
		if get() == "busy" {
			t.Fatal("a server is asked again that wants to be left alone for a minute")
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
