package faults_test

import (
	"net"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/carpooltest"
	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/internal/testkit/nameserver"
)

// X2: with all name servers gone new connections to what is known are opened on,
// and the log and the metrics say so, once.
func TestX2TheNameServersAreGone(t *testing.T) {
	t.Parallel()
	u := carpooltest.NewUpstream(t)
	_, port, _ := net.SplitHostPort(u.Listener.Addr().String())
	s := nameserver.New(t)
	s.Set("orders.shop.test.", time.Second, "127.0.0.1")
	c := carpooltest.Run(t, "CARPOOL_RESOLV_CONF="+s.ResolvConf("search x.test shop.test", "options ndots:5"),
		"CARPOOL_DNS_MIN_TTL=1s", "CARPOOL_DNS_TIMEOUT=1s", "CARPOOL_MAX_IDLE_PER_HOST=0")
	ask := func() {
		t.Helper()
		r, err := carpooltest.Once(c.Proxy, "GET", "http://orders:"+port+"/")
		carpooltest.Want(t, 200, r, err)
	}
	ask()
	s.Stop()
	const begins, ends = "the name servers fail: the last addresses of a host are used on (CARPOOL_DNS_STALE)", "the name servers answer again for a host"
	testkit.Eventually(t, "old addresses are used", func() bool {
		ask()
		return c.Log.Line(begins) != nil && c.Metric("carpool_dns_names_stale") == 1
	})
	s.Start()
	testkit.Eventually(t, "it is over", func() bool {
		ask()
		return c.Log.Line(ends) != nil && c.Metric("carpool_dns_names_stale") == 0
	})
	lines := map[any]int{}
	for _, l := range c.Log.Lines() {
		lines[l["msg"]]++
		if l["msg"] == begins && (l["host"] != "orders" || l["error"] == nil) {
			t.Errorf("the log says %v", l)
		}
	}
	if lines[begins] != 1 || lines[ends] != 1 {
		t.Errorf("told %d and %d times:\n%s", lines[begins], lines[ends], c.Log)
	}
	failed, saved, known := c.Metric("carpool_dns_lookups_failed_total"), c.Metric("carpool_dns_lookups_saved_total"), c.Metric("carpool_dns_names")
	if failed == 0 || saved == 0 || known != 1 {
		t.Errorf("%v look-ups failed, %v were saved, %v names are known", failed, saved, known)
	}
}
