package status

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpoolproxy/carpool/pool"
)

// traffic is a pool that opens a connection and reuses it nine times, each
// second since its start.
func traffic() func() pool.Snapshot {
	start := time.Now()
	return func() pool.Snapshot {
		n := uint64(time.Since(start) / time.Second)
		return pool.Snapshot{Total: pool.Stats{Opened: n, Reused: 9 * n}}
	}
}

func TestRatesAreWhatHappenedInTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Sources{Pool: traffic(), Proxy: calm})
		defer p.Close()
		time.Sleep(30*time.Second + time.Millisecond)
		synctest.Wait()
		rates := p.history.rates()
		if n := len(rates); n != 4 {
			t.Fatalf("%d rates after half a minute", n)
		}
		if first, last := rates[0], rates[3]; first.opened != 0 || last.opened != 30 || last.exchanges != 300 {
			t.Errorf("at the start %+v, after half a minute %+v", first, last)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		rates = p.history.rates()
		if last := rates[len(rates)-1]; last.opened != 60 || last.exchanges != 600 {
			t.Errorf("in the last minute %+v", last)
		}
	})
}

func TestTheHistoryIsAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Sources{Pool: traffic(), Proxy: calm})
		defer p.Close()
		time.Sleep(5*time.Hour + time.Millisecond)
		synctest.Wait()
		rates := p.history.rates()
		if n := len(rates); n != 60*perMinute+1 {
			t.Errorf("%d rates", n)
		}
		if n := cap(p.history.ring); n > 2*maxSamples {
			t.Errorf("there is room for %d samples", n)
		}
		for i, r := range rates {
			if r.opened != 60 || r.exchanges != 600 {
				t.Fatalf("%+v", r)
			}
			if i > 0 && r.at.Sub(rates[i-1].at) != samplePeriod {
				t.Fatalf("%v after %v", r.at, rates[i-1].at)
			}
		}
		if passed := time.Since(rates[0].at).Round(time.Minute); passed != time.Hour {
			t.Errorf("the oldest is from %v ago", passed)
		}
	})
}

func TestNoSampleIsTakenAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := New(Sources{Pool: func() pool.Snapshot { asked++; return pool.Snapshot{} }, Proxy: calm})
		time.Sleep(samplePeriod + time.Millisecond)
		p.Close()
		time.Sleep(10 * samplePeriod)
		if asked != 2 {
			t.Errorf("the pool was asked %d times", asked)
		}
	})
}
