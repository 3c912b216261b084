package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// secondWait is how long the addresses of one family wait for those of the other
	// (RFC 8305 section 3).
	secondWait = 50 * time.Millisecond
	// lateWait is how much longer a look-up that has an answer waits for the rest.
	lateWait = 2 * time.Second
)

// walkAt is when a look-up without an answer begins another walk over the full
// names: a packet may be lost, a name server dead. Each begins with another
// server. What a server is silent about is asked again after resolv.conf's
// timeout, too, but that is five seconds.
var walkAt = [...]time.Duration{0, 300 * time.Millisecond, time.Second}

// found is what a look-up has come to.
type found struct {
	full   string // the full name that has answered; "" is none
	four   family
	six    family
	late   <-chan family // brings what was not waited for; nil if there is nothing
	spared int           // queries that remembering the full name has spared
	err    error         // a *net.DNSError, a Resolver's or of a panic
}

// family is what was found of one family of addresses.
type family struct {
	kind   dnsmessage.Type
	asked  bool // it is known whether there are addresses
	addrs  []netip.Addr
	ttl    time.Duration
	nobody bool  // there is no such name, whatever is asked of it
	err    error // why it is not known
}

// memo is what is remembered of a name's last look-up: the full name that has
// answered, or "". If it fails now the look-up has failed.
type memo struct {
	full  string
	first bool // ask for it before the others
}

// lookUp finds the addresses of a host.
func (ns *Names) lookUp(ctx context.Context, host string, known memo) found {
	if r := ns.cfg.Resolver; r != nil {
		addrs, err := r.LookupNetIP(ctx, "ip", host)
		if err != nil || len(addrs) == 0 {
			return found{err: cmpErr(err, notFound(host))}
		}
		return listed(addrs)
	}
	how := ns.system.order.get()
	if how == onlyServers {
		return ns.search(ctx, host, known)
	}
	file := found{err: notFound(host)}
	if addrs := ns.system.hosts.get().find(host); len(addrs) > 0 {
		file = listed(addrs)
	}
	if how == onlyFiles || how == filesFirst && file.err == nil {
		return file
	}
	f := ns.search(ctx, host, known)
	if f.err != nil && file.err == nil {
		return file
	}
	return f
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// listed is an answer that a list has, rather than a name server.
func listed(addrs []netip.Addr) (f found) {
	f.four.asked, f.six.asked = true, true
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			f.four.addrs = append(f.four.addrs, a)
		} else {
			f.six.addrs = append(f.six.addrs, a)
		}
	}
	return f
}

// search asks the name servers.
func (ns *Names) search(ctx context.Context, host string, known memo) found {
	conf := ns.system.resolv.get()
	s := &search{ns: ns, conf: &conf, host: host, names: conf.full(host), known: known.full, servers: ns.health.order(conf.servers)}
	spared := 0
	if i := slices.Index(s.names, known.full); i > 0 && known.first {
		spared = 2 * i
		s.names = slices.Insert(slices.Delete(s.names, i, i+1), 0, known.full)
	}
	if conf.rotate {
		n := int(ns.turn.Add(1)) % len(s.servers)
		s.servers = slices.Concat(s.servers[n:], s.servers[:n])
	}
	f := s.run(ctx)
	if f.err == nil && f.full == known.full {
		f.spared = spared
	}
	return f
}

// search is one look-up by name servers.
type search struct {
	ns      *Names
	conf    *resolvConf
	host    string
	names   []string         // full ones, in the order in which they are asked
	known   string           // one of them, or ""
	servers []netip.AddrPort // in the order in which they are asked
}

// ended is what one walk has come to.
type ended struct {
	walk int
	found
}

// run walks until one walk has addresses, and leaves it to ctx to end that walk:
// there may be more to come. That a name has none is believed of the server that
// comes first, or once that has failed, or was silent for as long as resolv.conf
// says: the others may be there for other names.
func (s *search) run(ctx context.Context) found {
	results := make(chan ended, len(walkAt))
	var stop []context.CancelFunc
	next := time.NewTimer(0)
	defer next.Stop()
	running, firstRuns, best := 0, true, found{err: timedOut(s.host)}
	for {
		select {
		case <-next.C:
			n := len(stop)
			walkCtx, end := context.WithCancel(ctx)
			stop = append(stop, end)
			s.ns.work.Go(func() { results <- ended{n, s.walk(walkCtx, n)} })
			running++
			if n+1 < len(walkAt) {
				next.Reset(walkAt[n+1] - walkAt[n])
			}
		case r := <-results:
			running--
			firstRuns = firstRuns && r.walk != 0
			if r.err == nil {
				for i, end := range stop {
					if i != r.walk {
						end()
					}
				}
				return r.found
			}
			if isNotFound(r.err) || r.walk == 0 && !isNotFound(best.err) {
				best = r.found
			}
			alike := s.servers[r.walk%len(s.servers)] == s.servers[0]
			if running == 0 || isNotFound(best.err) && (!firstRuns || alike && isNotFound(r.err)) {
				for _, end := range stop {
					end()
				}
				return best
			}
		}
	}
}

// walk asks for one full name after the other, beginning with the n-th server.
func (s *search) walk(ctx context.Context, n int) (f found) {
	defer func() {
		if r := recover(); r != nil {
			f = found{err: s.ns.caught("a look-up", r)}
		}
	}()
	w := &walk{search: s}
	w.first.Store(int32(n % len(s.servers)))
	var failed error
	for _, name := range s.names {
		f := w.step(ctx, name)
		switch {
		case f.err == nil:
			return f
		case isNotFound(f.err):
			continue
		case name == s.known, ctx.Err() != nil:
			return f
		}
		failed = f.err
	}
	return found{err: cmpErr(failed, notFound(s.host))}
}

// walk is one try to find the addresses.
type walk struct {
	*search
	first atomic.Int32 // the server that is asked first
}

// step asks for the addresses of one full name.
func (w *walk) step(ctx context.Context, name string) found {
	answers := make(chan family, 2)
	kinds := [][]dnsmessage.Type{{dnsmessage.TypeA}, {dnsmessage.TypeAAAA}}
	if w.conf.oneByOne {
		kinds = [][]dnsmessage.Type{{dnsmessage.TypeA, dnsmessage.TypeAAAA}}
	}
	for _, one := range kinds {
		w.ns.work.Go(func() {
			for _, kind := range one {
				answers <- w.query(ctx, question{name, kind})
			}
		})
	}
	a := <-answers
	if a.nobody {
		return found{err: notFound(w.host)}
	}
	var enough <-chan time.Time
	if len(a.addrs) > 0 {
		timer := time.NewTimer(secondWait)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case b := <-answers:
		return w.join(name, a, b)
	case <-enough:
		f := w.join(name, a)
		f.late = answers
		return f
	}
}

// join puts together what is known of a full name.
func (w *walk) join(name string, parts ...family) found {
	f := found{full: name, err: notFound(w.host)}
	for _, p := range parts {
		f.put(p)
		if p.err != nil {
			f.err = p.err
		}
	}
	if len(f.four.addrs)+len(f.six.addrs) > 0 {
		f.err = nil
	}
	return f
}

func (f *found) put(p family) {
	if p.kind == dnsmessage.TypeA {
		f.four = p
	} else {
		f.six = p
	}
}

// query asks one server after the other, until one has answered.
func (w *walk) query(ctx context.Context, q question) (f family) {
	defer func() {
		if r := recover(); r != nil {
			f = family{kind: q.kind, err: w.ns.caught("a look-up", r)}
		}
	}()
	var failed error = timedOut(w.host)
	for range w.conf.attempts {
		first := int(w.first.Load())
		for i := range w.servers {
			n := (first + i) % len(w.servers)
			r, err := w.ask(ctx, w.servers[n], q)
			switch {
			case err == nil && r.code == dnsmessage.RCodeNameError:
				return family{kind: q.kind, asked: true, nobody: true}
			case err == nil && r.code == dnsmessage.RCodeSuccess && !r.lame:
				return family{kind: q.kind, asked: true, addrs: ofKind(r.addrs, q.kind), ttl: r.ttl}
			case err == nil:
				err = misbehaving(w.host, w.servers[n], r)
			default:
				err = unreached(w.host, w.servers[n], err)
			}
			if failed = err; ctx.Err() != nil {
				return family{kind: q.kind, err: failed}
			}
			if isTimeout(err) && q.kind == dnsmessage.TypeA {
				w.first.CompareAndSwap(int32(n), int32((n+1)%len(w.servers)))
			}
		}
	}
	return family{kind: q.kind, err: failed}
}

// ask asks one server, and keeps in mind whether it speaks.
func (w *walk) ask(ctx context.Context, server netip.AddrPort, q question) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, w.conf.timeout)
	defer cancel()
	began := time.Now()
	r, err := w.ns.exchange(ctx, server, q, w.conf.onlyTCP)
	if err == nil {
		w.ns.health.spoke(server)
	} else if ctx.Err() != nil && q.kind == dnsmessage.TypeA {
		w.ns.health.silent(server, began)
	}
	if tell := w.ns.cfg.Asked; tell != nil {
		tell(newAsked(server, q, r, err, time.Since(began)))
	}
	return r, err
}

func ofKind(addrs []netip.Addr, kind dnsmessage.Type) []netip.Addr {
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return a.Is4() && kind != dnsmessage.TypeA || a.Is6() && kind == dnsmessage.TypeA
	})
}

func notFound(host string) error {
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func timedOut(host string) error {
	return &net.DNSError{Err: "no name server has answered in time", Name: host, IsTimeout: true, IsTemporary: true}
}

func misbehaving(host string, server netip.AddrPort, r reply) error {
	text := "the name server answers with " + strings.TrimPrefix(r.code.String(), "RCode")
	if r.lame {
		text = "the name server does not look names up"
	}
	return &net.DNSError{Err: text, Name: host, Server: server.String(), IsTemporary: true}
}

func unreached(host string, server netip.AddrPort, err error) error {
	var n net.Error
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
	if timeout {
		return &net.DNSError{Err: "the name server has not answered in time", Name: host, Server: server.String(), IsTimeout: true, IsTemporary: true}
	}
	return &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: host, Server: server.String(), IsTemporary: true}
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// addrs returns the addresses in the order in which they are to be tried.
func (f *found) addrs(source func(netip.Addr) netip.Addr) []netip.Addr {
	return prefer(slices.Concat(f.four.addrs, f.six.addrs), source)
}

// ttl returns for how long all addresses stand.
func (f *found) ttl() time.Duration {
	switch {
	case len(f.four.addrs) == 0:
		return f.six.ttl
	case len(f.six.addrs) == 0:
		return f.four.ttl
	}
	return min(f.four.ttl, f.six.ttl)
}
