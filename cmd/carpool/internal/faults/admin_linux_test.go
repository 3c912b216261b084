package faults_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
)

// adminConnections opens so many connections to the admin listener, and sends
// something on each.
func adminConnections(t testing.TB, c *carpooltest.Carpool, n int, text string) (all []*carpooltest.Client) {
	t.Helper()
	for range n {
		cl, err := carpooltest.Dial(c.Admin)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cl.Close() })
		_ = cl.SetDeadline(time.Now().Add(testkit.Patience))
		_, _ = cl.Write([]byte(text)) // it may have had to go for another one
		all = append(all, cl)
	}
	return all
}

// X26: connections that ask for the metrics again and again and read nothing.
func TestX26ReadersThatDoNotReadCostLittle(t *testing.T) {
	t.Parallel()
	x := newCrossroads(t)
	c := carpooltest.Start(t)
	one := c.Dial()
	for n := range 300 { // long metrics
		r, err := one.Ask("GET", x.url(n, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	before := c.Peak(t)
	for _, path := range []string{"/metrics", "/"} {
		all := adminConnections(t, c, 300, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 50))
		if got := c.Status("/healthz"); got != http.StatusOK {
			t.Errorf("with so many connections /healthz says %d", got)
		}
		r, err := one.Ask("GET", x.url(0, "/"))
		carpooltest.Want(t, http.StatusOK, r, err)
		// The one that came first had to go for others, read or not.
		testkit.Eventually(t, "the first connection has ended", func() bool {
			_, err := all[0].Read(make([]byte, 64<<10))
			return err != nil
		})
	}
	most := 48 << 20
	if testkit.Race { // which takes several times the memory
		most *= 2
	}
	grown := c.Peak(t) - before
	t.Logf("they cost %d MiB", grown>>20)
	if int(grown) > most {
		t.Errorf("they cost %d MiB", grown>>20)
	}
	// The last ones read nothing either, and are given up.
	last := adminConnections(t, c, 1, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200))[0]
	begin := time.Now()
	testkit.Eventually(t, "a connection that reads nothing is given up", func() bool {
		_, err := last.Write([]byte("x"))
		return err != nil
	})
	t.Logf("after %v", time.Since(begin))
}

// X26: who scrapes in a loop gets what was gathered before, and waits for a turn.
func TestX26ScrapersInALoopTakeLittleOfTheProcessor(t *testing.T) {
	t.Parallel()
	c := carpooltest.Start(t)
	stop := make(chan struct{})
	var work sync.WaitGroup
	answers := make([]int, 20)
	begin := time.Now()
	for n := range answers {
		cl, err := carpooltest.Dial(c.Admin)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r, err := cl.Ask("GET", "/metrics", "Host: 127.0.0.1"); err != nil || r.StatusCode != 200 {
					t.Errorf("%v, %v", r, err)
					return
				}
				answers[n]++
			}
		})
	}
	for time.Since(begin) < 2*time.Second {
		if got := c.Status("/healthz"); got != 200 { // no probe waits behind them
			t.Errorf("/healthz says %d", got)
		}
	}
	close(stop)
	work.Wait()
	sum := 0
	for _, n := range answers {
		sum += n
	}
	// 50 a second have their turn; the first does not wait.
	if most := int(time.Since(begin)/(20*time.Millisecond)) + 1; sum > most || sum == 0 {
		t.Errorf("%d answers, want at most %d", sum, most)
	}
}

// X27: however many come to the admin listener, the app's connections stay.
func TestX27TheAdminListenerCostsTheAppNoConnection(t *testing.T) {
	t.Parallel()
	const files, idle = 128, 30
	up := carpooltest.NewUpstream(t)
	c := startWithFiles(t, files)
	var kept []*carpooltest.Client
	for range idle {
		cl := c.Dial()
		r, err := cl.Ask("GET", up.URL+"/")
		carpooltest.Want(t, http.StatusOK, r, err)
		kept = append(kept, cl)
	}
	adminConnections(t, c, 2*files, "GET /metrics HT")
	for range 5 {
		r, err := carpooltest.Once(c.Proxy, "GET", up.URL+"/")
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	for n, cl := range kept {
		if r, err := cl.Ask("GET", up.URL+"/"); err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("connection %d of the app: %v, %v", n, r, err)
		}
	}
	if got := c.Status("/healthz"); got != http.StatusOK {
		t.Errorf("/healthz says %d", got)
	}
}

// X27: an accept that fails for want of a descriptor costs one idle connection,
// not all, even if what it frees is taken by others.
func TestX27OneAcceptClosesOneIdleConnection(t *testing.T) {
	t.Parallel()
	const files = 24
	up := carpooltest.NewUpstream(t)
	c := startWithFiles(t, files)
	var kept []*carpooltest.Client
	for range 6 {
		cl := c.Dial()
		r, err := cl.Ask("GET", up.URL+"/")
		carpooltest.Want(t, http.StatusOK, r, err)
		kept = append(kept, cl)
	}
	adminConnections(t, c, 8, "GET /metrics HT")
	for range 2 {
		r, err := c.Dial().Ask("GET", up.URL+"/")
		carpooltest.Want(t, http.StatusOK, r, err)
	}
	lost := 0
	for _, cl := range kept {
		if r, err := cl.Ask("GET", up.URL+"/"); err != nil || r.StatusCode != http.StatusOK {
			lost++
		}
	}
	if lost > len(kept)/2 {
		t.Errorf("two new connections cost %d of %d idle ones", lost, len(kept))
	}
}
