package proxy_test

import (
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

func TestAnswersAreCountedByClass(t *testing.T) {
	p, err := pool.New(pool.Config{PendingTimeout: time.Second, DialTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	o := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
	for _, status := range []int{0, 100, 200, 204, 301, 404, 500, 503, 599, 600, 999} {
		proxy.Answered(o, status)
	}
	if got := p.Snapshot().Total.Tally; got != [8]uint64{1, 1, 2, 1, 1, 3} {
		t.Errorf("got %v", got)
	}
}
