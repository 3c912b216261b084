package proxy

import (
	"bytes"
	"time"
)

// speech is what the first bytes of a client in its tunnel show.
type speech uint8

const (
	unclear speech = iota // they are too few
	plainHTTP
	otherwise // TLS, HTTP/2, whatever: it is not for carpool to understand
)

// speechOf says what b, which may go on, begins. It is plainHTTP if that is sure to
// be the request line of an HTTP/1 request to the tunnel's end: one of the methods
// below, a target that is a path (RFC 9112 section 3.2.1) or "*", and the version. A
// line longer than limit counts too. Everything else is otherwise, as soon as one
// byte shows it: a request to another proxy at the tunnel's end as well, and
// "PRI * HTTP/2.0" (RFC 9113 section 3.4).
func speechOf(b []byte, limit int) speech {
	method, rest, spaced := bytes.Cut(b, space)
	switch {
	case !spaced && beginsMethod(method):
		return unclear
	case !spaced, !methods[string(method)]:
		return otherwise
	case len(rest) == 0:
		return unclear
	case rest[0] != '/' && (rest[0] != '*' || string(method) != "OPTIONS" || len(rest) > 1 && rest[1] != ' '):
		return otherwise
	}
	end := 0
	for end < len(rest) && rest[end] > ' ' && rest[end] != 0x7f {
		end++
	}
	const version = " HTTP/1."
	rest = rest[end:]
	n := min(len(rest), len(version))
	switch {
	case string(rest[:n]) != version[:n]:
		return otherwise
	case n == len(version), len(b) >= limit:
		return plainHTTP
	}
	return unclear
}

var space = []byte(" ")

// methods are those of IANA's registry that do not lead out of the tunnel again,
// and PURGE. They are listed so that few bytes show what begins with capital letters
// and is something else. A request by another method is tunnelled.
var methods = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true, "TRACE": true, "PATCH": true,
	"ACL": true, "BASELINE-CONTROL": true, "BIND": true, "CHECKIN": true, "CHECKOUT": true, "COPY": true, "LABEL": true,
	"LINK": true, "LOCK": true, "MERGE": true, "MKACTIVITY": true, "MKCALENDAR": true, "MKCOL": true,
	"MKREDIRECTREF": true, "MKWORKSPACE": true, "MOVE": true, "ORDERPATCH": true, "PROPFIND": true, "PROPPATCH": true,
	"PURGE": true, "QUERY": true, "REBIND": true, "REPORT": true, "SEARCH": true, "UNBIND": true, "UNCHECKOUT": true,
	"UNLINK": true, "UNLOCK": true, "UPDATE": true, "UPDATEREDIRECTREF": true, "VERSION-CONTROL": true,
}

// beginsMethod reports whether one of the methods begins with b.
func beginsMethod(b []byte) bool {
	for m := range methods {
		if len(b) <= len(m) && m[:len(b)] == string(b) {
			return true
		}
	}
	return false
}

// listen waits until the client has shown what it speaks in its tunnel, for what it
// has begun no longer than for the head of a request. Nobody can be sure of that:
// whatever it is then, or when it ends or is interrupted, goes on unread. The error
// is the connection's.
func (c *client) listen() (speech, error) {
	timed := false
	for {
		is := speechOf(c.in.Bytes(), c.cfg.MaxHeaderBytes)
		switch {
		case is != unclear:
			if timed {
				return is, c.stream.SetReadDeadline(time.Time{})
			}
			return is, nil
		case c.in.Len() > 0 && !timed && c.cfg.ClientHeaderTimeout > 0:
			timed = true
			if err := c.stream.SetReadDeadline(time.Now().Add(c.cfg.ClientHeaderTimeout)); err != nil {
				return otherwise, err
			}
		}
		c.in.Grow(2 * c.cfg.MaxHeaderBytes) // as far as it goes; speechOf's own limit comes first
		if err := c.stream.Fill(&c.in); err != nil {
			return otherwise, err
		}
	}
}
