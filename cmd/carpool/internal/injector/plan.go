package injector

import (
	"crypto/x509"
	"slices"
	"time"
)

// overlap is how long both authorities are published before a new certificate is
// served, and again before the old one's is taken away. Replicas look every few
// seconds, and one that cannot is not ready by then.
const overlap = time.Hour

// state is what the Secret has.
//
//	current              all is well
//	current, next        the next authority is published, and not used yet
//	current, previous    the next one has become current; replicas may still serve the previous one
type state struct {
	current, next *generation
	previous      *x509.Certificate // an authority
	since         time.Time         // of the last change; zero: not known
}

// authorities are those to publish.
func (s state) authorities() (all []*x509.Certificate) {
	for _, g := range []*generation{s.current, s.next} {
		if g != nil {
			all = append(all, g.authority)
		}
	}
	if s.previous != nil {
		all = append(all, s.previous)
	}
	return all
}

// facts are what a plan depends on, besides the state.
type facts struct {
	host string
	now  time.Time
	// serving is what this replica serves, or nil: a Secret that was emptied gets it back.
	serving *generation
	// settled reports whether an authority has been published for long enough that all
	// API servers have seen it.
	settled func(*x509.Certificate) bool
	make    func(host string, now time.Time) (*generation, error)
}

// plan returns the state that is to follow, one step at a time, and whether it
// differs.
func plan(s state, f facts) (state, bool, error) {
	waited := !s.since.IsZero() && !f.now.Before(s.since.Add(overlap))
	next := s
	next.since = f.now
	switch {
	case !s.current.isFor(f.host, f.now) && f.serving.isFor(f.host, f.now):
		next.current = f.serving
	case !s.current.isFor(f.host, f.now) && s.next.isFor(f.host, f.now):
		next.current, next.next = s.next, nil
	case !s.current.isFor(f.host, f.now):
		made, err := f.make(f.host, f.now)
		if err != nil {
			return s, false, err
		}
		next = state{current: made, since: f.now}
	case s.next != nil && !s.next.isFor(f.host, f.now):
		next.next = nil
	case s.next != nil:
		if !waited || !f.settled(s.next.authority) {
			return s.dated(f.now)
		}
		next.current, next.next, next.previous = s.next, nil, s.current.authority
	case s.previous != nil:
		if !waited {
			return s.dated(f.now)
		}
		next.previous = nil
	case s.current.isDue(f.now):
		made, err := f.make(f.host, f.now)
		if err != nil {
			return s, false, err
		}
		next.next = made
	default:
		return s, false, nil
	}
	return next, true, nil
}

// dated gives a state its time, if that got lost: what waits for it waited for ever
// otherwise.
func (s state) dated(now time.Time) (state, bool, error) {
	if !s.since.IsZero() && !s.since.After(now.Add(skew)) {
		return s, false, nil
	}
	s.since = now
	return s, true, nil
}

// Keys of the Secret.
const (
	keyAuthority, keyCert, keyKey            = "ca.crt", "tls.crt", "tls.key"
	nextAuthority, nextCert, nextKey         = "next-ca.crt", "next-tls.crt", "next-tls.key"
	previousAuthority, sinceKey, sinceLayout = "previous-ca.crt", "since", time.RFC3339
)

// read returns what a Secret says; what cannot be read is not there.
func read(data map[string][]byte) (s state) {
	s.current, _ = parse(data[keyAuthority], data[keyCert], data[keyKey])
	s.next, _ = parse(data[nextAuthority], data[nextCert], data[nextKey])
	if all := certificates(data[previousAuthority]); len(all) > 0 {
		s.previous = all[0]
	}
	s.since, _ = time.Parse(sinceLayout, string(data[sinceKey]))
	return s
}

// data returns a state as a Secret has it.
func (s state) data() map[string][]byte {
	data := map[string][]byte{sinceKey: []byte(s.since.UTC().Format(sinceLayout))}
	if g := s.current; g != nil {
		data[keyAuthority], data[keyCert], data[keyKey] = g.authorityPEM, g.certPEM, g.keyPEM
	}
	if g := s.next; g != nil {
		data[nextAuthority], data[nextCert], data[nextKey] = g.authorityPEM, g.certPEM, g.keyPEM
	}
	if s.previous != nil {
		data[previousAuthority] = encode("CERTIFICATE", s.previous.Raw)
	}
	return data
}

// bundle writes authorities as a caBundle has them.
func bundle(all []*x509.Certificate) (text []byte) {
	for _, c := range all {
		text = append(text, encode("CERTIFICATE", c.Raw)...)
	}
	return text
}

// alike reports whether two lists have the same certificates.
func alike(a, b []*x509.Certificate) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c *x509.Certificate) bool { return !trusts(b, c) })
}

func trusts(all []*x509.Certificate, one *x509.Certificate) bool {
	return slices.ContainsFunc(all, func(c *x509.Certificate) bool { return same(c, one) })
}
