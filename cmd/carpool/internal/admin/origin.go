package admin

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/carpoolproxy/carpool/cmd/carpool/internal/config"
	"github.com/carpoolproxy/carpool/cmd/carpool/internal/logs"
	"github.com/carpoolproxy/carpool/pool"
)

// OriginState is the answer to GET /origin?url=[scheme://]host[:port]: what the pool has for an origin. It is for those
// inside the pod, and nothing is looked up for it.
type OriginState struct {
	// State is starting, ready or draining.
	State  string `json:"state"`
	Origin string `json:"origin"`
	// Known is false if nothing has gone there of late; then all below is zero.
	Known bool `json:"known"`
	// InUse, Idle and Waiting are how many connections there are, and how many requests wait for one.
	InUse   int `json:"in_use"`
	Idle    int `json:"idle"`
	Waiting int `json:"waiting"`
	// Opened and Reused count requests on a new connection and on a kept one, DialErrors connections that could not be
	// opened, Closed those closed, by reason.
	Opened     uint64                 `json:"opened"`
	Reused     uint64                 `json:"reused"`
	DialErrors uint64                 `json:"dial_errors"`
	Closed     map[pool.Reason]uint64 `json:"closed,omitempty"`
	// Keeps says that connections are kept. IdleLimit is after how many seconds the upstream was seen to close idle
	// ones, IdleHint for how many it said last that they may idle; 0 is unknown.
	Keeps     bool    `json:"keeps"`
	IdleLimit float64 `json:"idle_limit_seconds"`
	IdleHint  float64 `json:"idle_hint_seconds"`
	// Next is where the next request goes, if an address is known, NextIdle whether on a connection that is there, and
	// Why what speaks for it.
	Next     string `json:"next,omitempty"`
	NextIdle bool   `json:"next_idle"`
	Why      string `json:"why,omitempty"`
	// Addrs are the addresses, at most 16 of AddrsTotal.
	Addrs      []AddrState `json:"addrs,omitempty"`
	AddrsTotal int         `json:"addrs_total"`
	// Stale says that the addresses are past their time because the name servers fail. LookUp is what the last look-up
	// has failed with.
	Stale  bool   `json:"stale"`
	LookUp string `json:"look_up_error,omitempty"`
}

// AddrState is one address of an origin.
type AddrState struct {
	Addr netip.Addr `json:"addr"`
	Open int        `json:"open"`
	// Benched is why no request goes there for now, for so many seconds; "" if that is not so.
	Benched    string  `json:"benched,omitempty"`
	BenchedFor float64 `json:"benched_for_seconds,omitempty"`
	// Leaving says that the name does not have the address any more.
	Leaving bool `json:"leaving,omitempty"`
}

// maxAddrs is how many addresses an OriginState has.
const maxAddrs = 16

// origin answers with an OriginState.
func (s *Server) origin(w http.ResponseWriter, r *http.Request, from Sources) {
	if reason := whyNot(r, "/origin?url=http://orders/"); reason != "" {
		http.Error(w, reason, http.StatusForbidden)
		return
	}
	var o config.Origin
	if err := o.UnmarshalText([]byte(r.URL.Query().Get("url"))); err != nil {
		http.Error(w, "url: "+err.Error(), http.StatusBadRequest)
		return
	}
	state := OriginState{State: s.stateName(), Origin: o.String()}
	key := pool.Key(o)
	if from.Route != nil {
		key = from.Route(key)
	}
	if x, ok := from.Pool.Inspect(key); ok {
		state.fill(&x)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state)
}

func (s *OriginState) fill(x *pool.Inspection) {
	s.Known = true
	s.InUse, s.Idle, s.Waiting = x.InUse, x.Idle, x.Waiting
	s.Opened, s.Reused, s.DialErrors, s.Closed = x.Opened, x.Reused, x.DialErrors, x.Closed
	s.Keeps, s.IdleLimit, s.IdleHint = x.Keeps, x.IdleLimit.Seconds(), x.Hint.Seconds()
	if x.Next.Addr.IsValid() {
		s.Next, s.NextIdle, s.Why = x.Next.Addr.String(), x.Next.Idle, x.Next.Why
	}
	s.AddrsTotal = x.Next.Total
	for _, a := range x.Next.Addrs[:min(len(x.Next.Addrs), maxAddrs)] {
		s.Addrs = append(s.Addrs, AddrState{a.Addr, a.Open, a.Benched, a.BenchedFor.Seconds(), a.Leaving})
	}
	if s.Stale = x.Name.Stale; x.Name.Err != nil {
		s.LookUp = logs.Text(x.Name.Err.Error())
	}
}
