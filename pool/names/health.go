package names

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// deadAfter is for how long a name server is silent, and deadQueries to how many
	// queries, before the others are asked first. The system's resolver goes to the
	// next server after as long.
	deadAfter   = 5 * time.Second
	deadQueries = 3
	// deadFor is for how long it comes last then. It is one look-up that finds out
	// that it is still dead.
	deadFor = 30 * time.Second
	// noSign is what a query has to have waited for its silence to say anything.
	noSign = 250 * time.Millisecond
	// maxSilent bounds the servers that are kept in mind.
	maxSilent = 16
)

// silence is what is known of a server since it answered last.
type silence struct {
	since   time.Time // when the first query was sent that has no answer
	queries int
	until   time.Time // it comes last until then
}

// health keeps in mind which name servers are silent, so that not every look-up
// waits for a dead one. The zero value is ready, and it is safe for concurrent
// use.
type health struct {
	mu      sync.Mutex
	servers map[netip.AddrPort]*silence
}

// spoke notes an answer.
func (h *health) spoke(a netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.servers, a)
}

// silent notes a query, sent at that time, that has got no answer.
func (h *health) silent(a netip.AddrPort, sent time.Time) {
	now := time.Now()
	if now.Sub(sent) < noSign {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.servers[a]
	if s == nil {
		if h.servers == nil || len(h.servers) >= maxSilent {
			h.servers = map[netip.AddrPort]*silence{}
		}
		s = &silence{since: sent}
		h.servers[a] = s
	}
	s.queries++
	if s.queries >= deadQueries && now.Sub(s.since) >= deadAfter {
		s.until = now.Add(deadFor)
	}
}

// order returns the servers with the dead ones last.
func (h *health) order(list []netip.AddrPort) []netip.AddrPort {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.servers) == 0 {
		return list
	}
	rank := func(a netip.AddrPort) int {
		if s := h.servers[a]; s != nil && now.Before(s.until) {
			return 1
		}
		return 0
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b netip.AddrPort) int { return rank(a) - rank(b) })
	return list
}
