package pool

import (
	"crypto/tls"
	"errors"
	"io"
	"os"

	"github.com/carpoolproxy/carpool/internal/sock"
)

// tlsConfigs returns what connections to an origin are secured by, nil for none: any
// connection, and one that is for HTTP/1.1 alone. They differ if HTTP/2 is offered.
func (p *Pool) tlsConfigs(k Key, offer bool) (any, http1 *tls.Config) {
	if !k.TLS {
		return nil, nil
	}
	http1 = &tls.Config{
		ServerName:         trimDot(k.Host),
		RootCAs:            p.cfg.RootCAs,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	if !offer {
		return http1, http1
	}
	any = http1.Clone()
	any.NextProtos = []string{"h2", "http/1.1"}
	return any, http1
}

// quietTLS lets a TLS connection say whether there is application data. The
// socket cannot tell: what waits in it may be a session ticket, and crypto/tls
// may have read records ahead.
type quietTLS struct {
	*tls.Conn
	gate *gate
	b    [1]byte
}

// gate is the connection under a quietTLS. While it is shut a read finds
// nothing where it would wait.
type gate struct {
	*sock.Conn
	shut    bool
	records records
}

func (g *gate) Read(p []byte) (int, error) {
	if g.shut {
		if pending, err := g.Pending(); err == nil && !pending {
			return 0, os.ErrDeadlineExceeded // crypto/tls takes this for temporary
		}
	}
	n, err := g.Conn.Read(p)
	g.records.pass(p[:n])
	return n, err
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
	case q.gate.records.within():
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

func (r *records) pass(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left, b = r.left-n, b[n:]
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
}

// within reports whether a record has passed in part.
func (r *records) within() bool { return r.head > 0 || r.left > 0 }

func trimDot(host string) string {
	if n := len(host); n > 1 && host[n-1] == '.' {
		return host[:n-1]
	}
	return host
}
