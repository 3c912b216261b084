package proxy

import (
	"testing"

	"github.com/carpoolproxy/carpool/pool"
)

func TestAnswersAreCountedByClass(t *testing.T) {
	p, err := pool.New(pool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := p.Origin(pool.Lookup{Host: []byte("a.test"), Port: 80})
	for _, status := range []int{0, 100, 200, 204, 301, 404, 500, 503, 599, 600, 999} {
		countAnswer(o, status)
	}
	if got := p.Snapshot().Total.Tally; got != [8]uint64{1, 1, 2, 1, 1, 3} {
		t.Errorf("got %v", got)
	}
}
