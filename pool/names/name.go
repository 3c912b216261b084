package names

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Name is a handle of a host. It is safe for concurrent use, and works after
// Release too, for whoever still has it.
type Name struct {
	entry   *entry
	changed func(*Set)
}

// Host returns the host, in lower case.
func (n *Name) Host() string { return n.entry.host }

// Set returns the addresses as far as they are known, without waiting; nil if they
// are not, or no longer.
func (n *Name) Set() *Set { return n.entry.set.Load() }

// Use tells that the name is in use, so that its addresses are kept up to date.
// It costs as much as reading a variable.
func (n *Name) Use() {
	switch e := n.entry; e.use.Load() {
	case idle:
		e.use.CompareAndSwap(idle, inUse)
	case asleep:
		e.wake()
	}
}

// Wait returns the addresses, and looks the name up if they are not known. The
// error is a *net.DNSError, a Resolver's, or that of ctx, the end of which ends
// only the wait.
func (n *Name) Wait(ctx context.Context) (*Set, error) {
	e := n.entry
	n.Use()
	if s := e.set.Load(); s != nil {
		if !e.fixed {
			e.ns.count.saved.Add(1)
		}
		if e.stale.Load() {
			e.ns.count.stale.Add(1)
		}
		return s, nil
	}
	f, s, err := e.join()
	if s != nil || err != nil {
		return s, err
	}
	return e.await(ctx, f)
}

// Rest returns addresses that s does not have because they were not waited for,
// nil if there are none or they do not come within d or before ctx ends.
func (n *Name) Rest(ctx context.Context, s *Set, d time.Duration) []netip.Addr {
	e := n.entry
	if s.whole {
		return nil
	}
	f := e.under()
	if f != nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-f.landed:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.last.Addrs), func(a netip.Addr) bool { return slices.Contains(s.Addrs, a) })
}

// Suspect tells that an address could not be connected to, or that a connection
// was reset: the name is looked up again at once, or a second after the last
// time. It does not wait for that.
func (n *Name) Suspect() {
	e := n.entry
	if e.set.Load() == nil { // the next Wait looks it up
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.fixed:
	case e.flight != nil: // it may have been answered before that happened
		e.suspect = e.suspect || e.flight.begun
	default:
		e.startLocked(time.Until(e.began.Add(suspectAfter)))
	}
}

// Release gives the handle back. changed may be called once more, if it is about
// to be.
func (n *Name) Release() { n.entry.ns.release(n) }
