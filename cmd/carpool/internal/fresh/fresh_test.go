package fresh_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/fresh"
)

func TestAValueIsFoundOutOnceInAWhileForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		found := 0
		v := fresh.New(time.Second, func() int {
			found++ // the race detector sees if this happens twice at a time
			return found
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for range 30 {
					v.Get()
					time.Sleep(time.Second / 10)
				}
			})
		}
		all.Wait()
		if found != 3 { // in 3 seconds
			t.Errorf("it was found out %d times", found)
		}
		time.Sleep(time.Second)
		if got := v.Get(); got != 4 {
			t.Errorf("after a while it is still number %d", got)
		}
	})
}
