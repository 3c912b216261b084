package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/bypass"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/memory"
)

// What is told of the pod and the container, which is not carpool's doing.
var (
	memoryLimit    = desc("memory_limit_bytes", "Memory limit of the container; 0: no limit.")
	memoryUsed     = desc("memory_used_bytes", "Memory of the container that the kernel cannot take back; 0 without a limit.")
	shedding       = desc("shedding", "1 while new requests are refused because memory is short, otherwise 0.")
	shed           = desc("requests_shed_total", "Requests and tunnels refused because memory was short.")
	bypassing      = desc("bypass_connections", "Open connections of the pod to ports of plain HTTP that carpool did not make.", "port")
	bypassed       = desc("bypass_time_wait_sockets", "Connections of the pod to ports of plain HTTP that carpool did not make and that the app has closed within the last minute, at least.", "port")
	tcpSockets     = desc("pod_tcp_sockets", "TCP sockets of the pod that are not closed, listening ones included.")
	timeWait       = desc("pod_time_wait_sockets", "Closed TCP connections of the pod whose local ports are not free yet.")
	ephemeralPorts = desc("pod_ephemeral_ports", "Local ports that the pod has for connections to one destination.")
)

// Bypass and Memory are where the figures on the pod and the container come from.
type (
	Bypass interface{ Snapshot() bypass.Snapshot }
	Memory interface{ Stats() memory.Stats }
)

// podCollector looks at the pod at each scrape. What could not be found out is left out.
type podCollector struct {
	bypass Bypass
	memory Memory
}

// Describe implements prometheus.Collector.
func (c *podCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		bypassing, bypassed, tcpSockets, timeWait, ephemeralPorts, memoryLimit, memoryUsed, shedding, shed,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *podCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.bypass.Snapshot()
	for _, p := range s.Ports {
		gauge(ch, bypassing, float64(p.Count), strconv.Itoa(int(p.Port)))
		gauge(ch, bypassed, float64(p.Ended), strconv.Itoa(int(p.Port)))
	}
	if s.Sockets.Known {
		gauge(ch, tcpSockets, float64(s.Sockets.InUse))
		gauge(ch, timeWait, float64(s.Sockets.TimeWait))
		gauge(ch, ephemeralPorts, float64(s.Sockets.EphemeralPorts))
	}
	m := c.memory.Stats()
	gauge(ch, memoryLimit, float64(m.Limit))
	gauge(ch, memoryUsed, float64(m.Used))
	now := 0.0
	if m.Shedding {
		now = 1
	}
	gauge(ch, shedding, now)
	counter(ch, shed, float64(m.Refused))
}
