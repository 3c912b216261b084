package proxy

import (
	"errors"
	"strconv"
	"strings"

	"github.com/carpoolproxy/carpool/pool"
)

// What is wrong with the next hop, told apart from what is wrong behind it. What a
// relayed answer says, other than 407, is not: it may be the hop's or that of whoever
// was asked, and goes to the client.

// hopAnswer is why the next hop has not made a connection, by its own account.
type hopAnswer struct {
	problem
	received int // the status; 0 if it is no answer
}

func (a *hopAnswer) Unwrap() error { return &a.problem }

var (
	problemHopCredentials = problem{502, kindProxyConfiguration,
		"the next hop asks for credentials, or for others than it got: CARPOOL_NEXT_PROXY_AUTH_FILE names a file with user:password, which carpool sends by the scheme Basic"}
	problemHopSpeaks = problem{502, kindHTTPProtocolError,
		"the next hop sent something behind its answer to CONNECT, where the upstream has nothing to say yet (CARPOOL_NEXT_PROXY)"}
	problemHopTimeout    = problem{504, kindConnectionTimeout, "the next hop did not answer CONNECT in time (CARPOOL_NEXT_PROXY, CARPOOL_DIAL_TIMEOUT)"}
	problemHopTerminated = problem{502, kindConnectionTerminated,
		"the next hop closed the connection without an answer to CONNECT (CARPOOL_NEXT_PROXY; is it https:// that it speaks?)"}
)

func hopGarbled(err error) problem {
	return problem{502, kindHTTPProtocolError, "the next hop's answer to CONNECT is not valid HTTP/1.1 (is CARPOOL_NEXT_PROXY a proxy?): " + err.Error()}
}

// noLease tells why there is no connection for an exchange.
func (s *session) noLease(x *exchange, err error) *problem {
	p, atHop, received := leaseProblem(err)
	if atHop {
		x.hopStatus = received
		s.p.cfg.Hop.failures[p.kind].Add(1)
	}
	return p
}

// leaseProblem tells why there is no connection, whether it is the next hop that is to
// blame, and with what status that has refused its service; 0: it did not.
func leaseProblem(err error) (p *problem, hop bool, received int) {
	var failed *pool.DialError
	if !errors.As(err, &failed) || !failed.Hop {
		return dialProblem(err), false, 0
	}
	var a *hopAnswer
	switch {
	case errors.As(err, &a):
		return &a.problem, true, a.received
	case failed.Stage == pool.StageHop && isTimeout(err):
		return &problemHopTimeout, true, 0
	case failed.Stage == pool.StageHop:
		return &problemHopTerminated, true, 0
	}
	return atHop(dialProblem(err)), true, 0
}

// hopFailed sees to a problem with an answer that was to come from the next hop.
func (s *session) hopFailed(x *exchange, p *problem) *problem {
	switch {
	case p == nil || !x.relayed():
		return p
	case p == &problemHopCredentials:
		x.hopStatus = 407
	case p.kind == kindConnectionTerminated, p.kind == kindHTTPProtocolError, p.kind == kindHTTPResponseIncomplete, p.kind == kindConnectionTimeout:
		p = atHop(p)
	default:
		return p
	}
	s.p.cfg.Hop.failures[p.kind].Add(1)
	return p
}

var sayHop = strings.NewReplacer("the upstream", "the next hop", "the host name", "the host name of the next hop")

// atHop returns a problem with an upstream as one with the next hop. It is never the
// client's: its host and port were judged before.
func atHop(p *problem) *problem {
	q := problem{p.status, p.kind, sayHop.Replace(p.text)}
	if !strings.Contains(q.text, "the next hop") {
		q.text = "the next hop: " + q.text
	}
	q.text += " (CARPOOL_NEXT_PROXY)"
	if q.status != 503 && q.status != 504 {
		q.status = 502
	}
	return &q
}

// hopParams is what Proxy-Status says of the next hop, where there is one (RFC 9209
// sections 2.1.2 and 2.1.4).
func (x *exchange) hopParams() string {
	if x.origin == nil || x.origin.Key().Way == pool.Directly {
		return ""
	}
	s := `; next-hop="` + x.cfg.Hop.at.Authority() + `"`
	if x.hopStatus != 0 {
		s += "; received-status=" + strconv.Itoa(x.hopStatus)
	}
	return s
}
