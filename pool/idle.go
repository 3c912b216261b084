package pool

import (
	"time"

	"github.com/carpoolproxy/carpool/internal/list"
)

// idleConns are the idle connections of an origin, and the choice among them.
// The zero value is ready. The origin's mutex guards it.
//
// They are in the order of their use over all addresses, not in a list for each:
// that is what the choice goes by. Which of them lead to an address is known by
// its endpoint.
type idleConns struct {
	free   list.List[*Lease] // most recently used first
	pinned list.List[*Lease] // likewise, and each for one borrower alone
}

func (s *idleConns) len() int { return s.free.Len() + s.pinned.Len() }

// put makes a connection idle.
func (s *idleConns) put(l *Lease, now time.Duration) {
	l.idleSince = now
	if l.pinned {
		s.pinned.PushFront(&l.node)
	} else {
		s.free.PushFront(&l.node)
	}
}

// pick takes the connection that was used last of those that the request may
// have; nil if there is none.
func (s *idleConns) pick(t *Ticket, now time.Duration, m *manners) *Lease {
	if !t.takesUsed() || !m.keeps(now) {
		return nil
	}
	n, rest := s.free.Front(), m.rest(t.Replayable, now)
	for n != nil && now-n.Value.idleSince < rest {
		n = n.Next()
	}
	if n == nil || now-n.Value.idleSince > m.usable(n.Value.hint, t.Replayable) {
		return nil
	}
	l := n.Value
	if !t.Replayable {
		l = youngest(n, now, m)
	}
	s.free.Remove(&l.node)
	l.idled, l.reused = now-l.idleSince, l.requests > 0
	return l
}

// fewUsedLast is how many connections a request that cannot be sent twice
// chooses from.
const fewUsedLast = 4

// youngest returns the connection that was opened last of the few that were used
// last, from n on, which a request that cannot be sent twice may have. In a
// rollout the servers that end are those that have been there for long.
func youngest(n *list.Node[*Lease], now time.Duration, m *manners) *Lease {
	youngest := n.Value
	for range fewUsedLast - 1 {
		if n = n.Next(); n == nil || now-n.Value.idleSince > m.usable(n.Value.hint, false) {
			break
		}
		if n.Value.id > youngest.id {
			youngest = n.Value
		}
	}
	return youngest
}

// takePinned takes a pinned connection, if it is still there.
func (s *idleConns) takePinned(l *Lease) bool {
	if !s.pinned.Has(&l.node) {
		return false
	}
	s.pinned.Remove(&l.node)
	return true
}

// surplus takes the connection that others used longest ago if there are more
// than most of them.
func (s *idleConns) surplus(most int) *Lease {
	if s.free.Len() <= most {
		return nil
	}
	back := s.free.Back()
	s.free.Remove(back)
	return back.Value
}

// longest returns the connection that has been idle longest, nil if none is idle.
func (s *idleConns) longest() *Lease {
	a, b := s.free.Back(), s.pinned.Back()
	switch {
	case a == nil && b == nil:
		return nil
	case a == nil || b != nil && b.Value.idleSince < a.Value.idleSince:
		return b.Value
	}
	return a.Value
}

// takeLongest takes the connection that has been idle longest, nil if none is.
func (s *idleConns) takeLongest() *Lease {
	l := s.longest()
	if l != nil {
		l.node.Leave()
	}
	return l
}

// unwanted is an idle connection that was taken to be closed.
type unwanted struct {
	lease  *Lease
	reason Reason
}

// takeFor takes those for which why returns a reason, longest idle first.
func (s *idleConns) takeFor(why func(*Lease) Reason) (gone []unwanted) {
	for _, in := range [...]*list.List[*Lease]{&s.free, &s.pinned} {
		for n := in.Back(); n != nil; {
			prev := n.Prev()
			if reason := why(n.Value); reason != "" {
				in.Remove(n)
				gone = append(gone, unwanted{n.Value, reason})
			}
			n = prev
		}
	}
	return gone
}
