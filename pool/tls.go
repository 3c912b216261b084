package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// credentials are whom the pool trusts and as whom it comes.
type credentials struct {
	roots *x509.CertPool
	cert  *tls.Certificate
}

// config returns what connections to an origin are secured by, nil for none. It is
// the origin's identity in TLS: connections that were made by another one, and
// sessions that began on these, are not used.
func (c credentials) config(k Key, showTo func(Key) bool) *tls.Config {
	if !k.TLS {
		return nil
	}
	config := &tls.Config{
		ServerName:         trimDot(k.Host),
		RootCAs:            c.roots,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		// Small records at first would cost a system call each.
		DynamicRecordSizingDisabled: true,
	}
	shown := new(tls.Certificate) // none
	if c.cert != nil && showTo != nil && showTo(k) {
		shown = c.cert // whatever authorities the server names: it may know more than it says
	}
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if asked, ok := r.Context().Value(askedKey{}).(*bool); ok {
			*asked = true
		}
		return shown, nil
	}
	return config
}

type askedKey struct{}

// AskedError is why a handshake has failed in which the upstream has asked for a
// certificate. In TLS 1.2 it may say no more than that the handshake has.
type AskedError struct{ Err error }

func (e *AskedError) Error() string {
	return e.Err.Error() + " (it has asked for a client certificate)"
}
func (e *AskedError) Unwrap() error { return e.Err }

// handshake makes a handshake.
func handshake(ctx context.Context, t *tls.Conn) error {
	asked := false
	err := t.HandshakeContext(context.WithValue(ctx, askedKey{}, &asked))
	if err != nil && asked {
		return &AskedError{err}
	}
	return err
}

// SetTLS takes the place of Config.RootCAs and Config.Certificate. Connections that
// were made with what is replaced carry no further request: those that are idle are
// closed, those in use when their exchange is over. The origins of which nothing
// changes, because they are not in TLS or get no certificate, keep theirs. What is
// given is not to be changed afterwards.
func (p *Pool) SetTLS(roots *x509.CertPool, cert *tls.Certificate) {
	p.mu.Lock()
	old, c := p.credentials, credentials{roots, cert}
	p.credentials = c
	differs := func(k Key) bool {
		return k.TLS && (old.roots != roots || old.cert != cert && p.cfg.ShowTo != nil && p.cfg.ShowTo(k))
	}
	hop := p.cfg.Hop != nil && differs(p.cfg.Hop.Key)
	if hop {
		p.hopTLS = c.config(p.cfg.Hop.Key, p.cfg.ShowTo)
	}
	list := p.allLocked()
	p.mu.Unlock()
	for _, o := range list {
		if k := o.key; differs(k) || hop && k.TLS && k.Way == ByHop {
			o.setTLS(c.config(k, p.cfg.ShowTo))
		}
	}
}

// hopSecurity is what connections to the next hop are secured by, before what is behind
// it is; nil without TLS.
func (p *Pool) hopSecurity() *tls.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hopTLS
}

// setTLS secures connections by another configuration from now on.
func (o *Origin) setTLS(config *tls.Config) {
	o.mu.Lock()
	o.tls = config
	gone := o.idle.takeFor(func(l *Lease) Reason {
		if l.midway { // its client has begun to authenticate on it
			return ""
		}
		return TLSChanged
	})
	o.mu.Unlock()
	closeEach(gone)
}

// security is what a connection that is opened now is secured by.
func (o *Origin) security() *tls.Config {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tls
}

// quietTLS lets a TLS connection say whether there is application data. The
// socket cannot tell: what waits in it may be a session ticket, and crypto/tls
// may have read records ahead.
type quietTLS struct {
	*tls.Conn
	gate *gate // under all layers
	tap  *tap  // under this one, if it is not the lowest; else nil
	b    [1]byte
}

// over returns TLS, before its handshake, over a connection that has q already; q is
// nil for one that has none.
func (q *quietTLS) over(conn *sock.Conn, config *tls.Config) *quietTLS {
	if q == nil {
		g := &gate{Conn: conn}
		return &quietTLS{Conn: tls.Client(g, config), gate: g}
	}
	t := &tap{Conn: q.Conn}
	return &quietTLS{Conn: tls.Client(t, config), gate: q.gate, tap: t}
}

// gate is the connection under a quietTLS. While it is shut a read finds
// nothing where it would wait.
type gate struct {
	*sock.Conn
	shut bool
	passed
}

// passed is what has passed below a layer of TLS.
type passed struct {
	records records

	full bool // the last read had no room for more
	left int  // records at most that it has brought and that were not taken out
}

// note notes what a read has brought.
func (w *passed) note(p []byte, n int) { w.full, w.left = n == len(p), w.records.pass(p[:n]) }

func (g *gate) Read(p []byte) (n int, err error) {
	if g.shut {
		n, err = g.ReadNow(p) // that there is nothing is an error which crypto/tls takes for temporary
	} else {
		n, err = g.Conn.Read(p)
	}
	g.note(p, n)
	return n, err
}

// ReadMore implements sock.Layer. What it returns is one record, or the rest of one,
// at most. Where the last read from the socket has shown that there is nothing more it
// costs next to nothing.
func (q *quietTLS) ReadMore(p []byte) int {
	below := &q.gate.passed
	if q.tap != nil {
		below = &q.tap.passed
	}
	if below.left <= 0 && !below.full {
		return 0
	}
	q.gate.shut = true
	n, _ := q.Read(p)
	q.gate.shut = false
	if n < len(p) { // or else it may go on
		below.left--
	}
	return n
}

// look takes in what has come, session tickets, say. Of a record that is there in
// part nobody can tell what it will be.
func (q *quietTLS) look() (found, error) {
	q.gate.shut = true
	defer func() { q.gate.shut = false }()
	n, err := q.Read(q.b[:])
	switch {
	case n > 0:
		return someBytes, nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		if err == nil {
			err = io.EOF
		}
		return nothing, err
	case q.gate.records.within(), q.tap != nil && q.tap.records.within():
		return halfRecord, nil
	}
	return nothing, nil
}

// records follows where the records of a TLS stream begin and end: each has a
// head of five bytes, the last two of which are its length (RFC 8446 section 5.1).
type records struct {
	head int  // bytes of a head that have passed
	high byte // the fourth of them
	left int  // bytes of a record that are still to pass
}

// pass returns how many records have ended in b.
func (r *records) pass(b []byte) (ended int) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left, b = r.left-n, b[n:]
			if r.left == 0 {
				ended++
			}
			continue
		}
		switch r.head++; r.head {
		case 4:
			r.high = b[0]
		case 5:
			r.head, r.left = 0, int(r.high)<<8|int(b[0])
		}
		b = b[1:]
	}
	return ended
}

// within reports whether a record has passed in part.
func (r *records) within() bool { return r.head > 0 || r.left > 0 }

func trimDot(host string) string {
	if n := len(host); n > 1 && host[n-1] == '.' {
		return host[:n-1]
	}
	return host
}
