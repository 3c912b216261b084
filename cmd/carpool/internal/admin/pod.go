package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
)

// What is told of the pod as a whole, which is not carpool's doing.
var (
	bypassing      = desc("bypass_connections", "Open connections of the pod to ports of plain HTTP that carpool did not make.", "port")
	tcpSockets     = desc("pod_tcp_sockets", "TCP sockets of the pod that are not closed, listening ones included.")
	timeWait       = desc("pod_time_wait_sockets", "Closed TCP connections of the pod whose local ports are not free yet.")
	ephemeralPorts = desc("pod_ephemeral_ports", "Local ports that the pod has for connections to one destination.")
)

// Bypass is where the figures on the pod come from.
type Bypass interface{ Snapshot() bypass.Snapshot }

// podCollector looks at the pod at each scrape. What could not be found out is left out.
type podCollector struct{ bypass Bypass }

// Describe implements prometheus.Collector.
func (c *podCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bypassing, tcpSockets, timeWait, ephemeralPorts} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *podCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.bypass.Snapshot()
	for _, p := range s.Ports {
		gauge(ch, bypassing, float64(p.Count), strconv.Itoa(int(p.Port)))
	}
	if s.Sockets.Known {
		gauge(ch, tcpSockets, float64(s.Sockets.InUse))
		gauge(ch, timeWait, float64(s.Sockets.TimeWait))
		gauge(ch, ephemeralPorts, float64(s.Sockets.EphemeralPorts))
	}
}
