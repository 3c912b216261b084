package admin_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/admin"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/pool"
	"github.com/carpoolproxy/carpool/proxy"
)

// Sources of which each has a figure for each metric.
type (
	busyPool   struct{ fakePool }
	busyProxy  struct{ loops }
	busyBypass struct{}
)

func (*busyPool) Snapshot() pool.Snapshot {
	return pool.Snapshot{Origins: []pool.OriginStats{{
		Origin: "http://a.test", Stats: pool.Stats{Warm: 2, WarmOpen: 1, SparesMade: 1, Closed: map[pool.Reason]uint64{pool.PeerDead: 2}},
	}}}
}

func (*busyProxy) Stats() proxy.Stats {
	return proxy.Stats{Errors: map[string]uint64{"dns_timeout": 3}, Rules: []proxy.RuleStats{{Rule: "deny_hosts", Refused: 2}},
		HopErrors: map[string]uint64{"dns_timeout": 1},
		Lanes:     []proxy.LaneStats{{Port: 9001, Requests: 5}}}
}

func (busyBypass) Snapshot() bypass.Snapshot {
	return bypass.Snapshot{Ports: []bypass.PortCount{{Port: 80, Count: 4}}, Sockets: bypass.Sockets{Known: true}}
}

// What a line of the table says of its metric is what arrives, and Prometheus'
// own rules for names are kept.
func TestEachLineOfTheTableOfMetricsIsExported(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(admin.NewCollector(admin.Sources{
		Pool: &busyPool{}, Proxy: &busyProxy{}, Bypass: busyBypass{}, Memory: fakeMemory{}, Log: fakeLog{}, Certs: fakeCerts{},
	}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]int{} // index in families
	for i, f := range families {
		exported[f.GetName()] = i
	}
	table := admin.Table()
	if len(table) != len(exported) {
		t.Errorf("%d lines, %d metrics", len(table), len(exported))
	}
	for _, line := range table {
		i, ok := exported["carpool_"+line.Name]
		if !ok {
			t.Errorf("%s has no value", line.Name)
			continue
		}
		f := families[i]
		switch kind := strings.ToLower(f.GetType().String()); {
		case kind != line.Kind:
			t.Errorf("%s is a %s, the table says %s", line.Name, kind, line.Kind)
		case len(f.GetMetric()[0].GetLabel()) != line.Labels:
			t.Errorf("%s has %v, the table says %d labels", line.Name, f.GetMetric()[0].GetLabel(), line.Labels)
		}
		if strings.HasSuffix(line.Name, "_total") != (line.Kind == "counter") {
			t.Errorf("%s is a %s: counters, and only they, end in _total", line.Name, line.Kind)
		}
		if !strings.HasSuffix(f.GetHelp(), ".") || strings.ContainsAny(f.GetHelp(), "\n\"") {
			t.Errorf("the help of %s is no plain sentence: %q", line.Name, f.GetHelp())
		}
	}
}
