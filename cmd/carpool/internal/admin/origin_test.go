package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/pool/names"
)

// knowing is a pool that has something for one origin.
type knowing struct {
	fakePool
	key pool.Key
	has pool.Inspection
}

func (k *knowing) Inspect(of pool.Key) (pool.Inspection, bool) { return k.has, of == k.key }

func TestWhatThereIsForAnOriginIsToldInsideThePod(t *testing.T) {
	t.Parallel()
	s, err := admin.Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := &knowing{key: pool.Key{TLS: true, Host: "orders", Port: 443}}
	p.has.Idle, p.has.Opened, p.has.Reused, p.has.IdleLimit, p.has.Keeps = 2, 3, 40, 5*time.Second, true
	p.has.Closed = map[pool.Reason]uint64{pool.MaxAge: 1}
	p.has.Next.Addr, p.has.Next.Idle, p.has.Next.Why, p.has.Next.Total = netip.MustParseAddr("10.0.0.7"), true, "why", 64
	p.has.Next.Addrs = make([]pool.AddrStats, 64)
	p.has.Next.Addrs[0] = pool.AddrStats{Addr: netip.MustParseAddr("10.0.0.7"), Open: 2, Benched: "it failed", BenchedFor: time.Second}
	p.has.Name = names.Explanation{Stale: true, Err: errors.New("a\nline" + strings.Repeat("x", 10_000))}
	s.Serve(admin.Sources{
		Pool: p, Proxy: &fakeProxy{}, Bypass: bypass.New(nil, nil), Memory: fakeMemory{}, Log: fakeLog{},
		MaxConns: admin.DefaultConnections, Quit: func() {},
	})
	ask := func(query, host string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "http://"+s.Addr().String()+"/origin"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	for query, want := range map[string]int{"": 400, "?url=": 400, "?url=ftp://orders/": 400, "?url=http://a%20b/": 400, "?url=https://ORDERS": 200, "?url=other:8080": 200} {
		if status, body := ask(query, ""); status != want {
			t.Errorf("%q: %d, %q", query, status, body)
		}
	}
	if status, body := ask("?url=https://orders", "evil.example"); status != 403 || !strings.Contains(body, "http://127.0.0.1:9128/origin?url=") {
		t.Errorf("for a page from elsewhere: %d, %q", status, body)
	}
	_, body := ask("?url=other:8080", "")
	var got admin.OriginState
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Known || got.Origin != "http://other:8080" || got.State != "starting" {
		t.Errorf("of nothing: %s, %v", body, err)
	}
	s.Ready()
	_, body = ask("?url=https://orders:443", "")
	got = admin.OriginState{}
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(body) > 8<<10 {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if !got.Known || got.State != "ready" || got.Idle != 2 || got.Opened != 3 || got.Reused != 40 || got.IdleLimit != 5 || !got.Keeps ||
		got.Closed[pool.MaxAge] != 1 || got.Next != "10.0.0.7" || !got.NextIdle || got.AddrsTotal != 64 || len(got.Addrs) != 16 ||
		got.Addrs[0].BenchedFor != 1 || !got.Stale || strings.Contains(got.LookUp, "\n") {
		t.Errorf("%s", body)
	}
}
