package check

import (
	"context"
	"fmt"

	"github.com/carpoolproxy/carpool/pool"
)

// Hop is whether the request goes out through the next hop.
type Hop struct {
	// Hop is the next hop that is set.
	Hop string `json:"next_hop"`
	// Taken says that the request goes there, Relayed that it is sent in absolute-form, not through a tunnel.
	Taken   bool `json:"taken"`
	Relayed bool `json:"relayed"`
}

// hop tells which way out is taken, if there are two.
func (t *trip) hop(context.Context) found {
	if t.cfg.NextProxy.Host == "" {
		return found{}
	}
	h := Hop{Hop: t.cfg.NextProxy.String(), Taken: t.origin.Key().Way != pool.Directly, Relayed: t.relayed()}
	line := "past the next hop, which CARPOOL_NEXT_NO_PROXY is for"
	switch {
	case h.Relayed:
		line = fmt.Sprintf("through the next hop %s (CARPOOL_NEXT_PROXY), which finds the upstream: all below is about the hop", h.Hop)
	case h.Taken:
		line = fmt.Sprintf("through a tunnel that the next hop %s opens (CARPOOL_NEXT_PROXY): name and addresses are the hop's", h.Hop)
	}
	return found{lines: []string{line}, facts: h}
}

// relayed reports whether the request is sent to the next hop in absolute-form.
func (t *trip) relayed() bool { return t.origin.Key().Way == pool.ToHop }
