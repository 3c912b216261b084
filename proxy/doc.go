/*
Package proxy is the half of carpool that the app talks to: it accepts
connections, reads requests, finds out where they go and whether they may,
borrows an upstream connection for each and relays both ways.

The way of a request:

	client ── accept ──► session.turn ──► readHead ──► route ──► exchange
	                         ▲                                      │
	                         │                 acquire ◄── carry ◄──┘
	                         │                    │
	                         │                 attempt: write the request (pump: the rest of a long body)
	                         │                    │      readResponse
	                         └──── finish ◄── relay: write the answer, settle the connection

One goroutine does all of it, in this order, without handing anything to
another. The exceptions are the pump, which sends the part of a request body
that has not arrived with its head, because the upstream may answer first; the
second direction of a tunnel; and the sweeper, which looks over all sessions a
few times a second.

# What other goroutines may do to a session

A session belongs to its goroutine. Others only ever interrupt it: they make
the reads and writes under way on its two connections fail, under session.mu,
which the session holds whenever it lets go of one of them. What the session
finds then (session.gone) tells it why.

# Panics

A panic on a session's goroutine ends its connection. One on a goroutine that
works for it (the pump, the directions of a tunnel) is handed to the session and
becomes its own. One of the pool's (dials, look-ups) fails the request that waits
for it. The sweeper, the watchers and the janitor drop what they were at and go on.
All are counted and told to Config.Fault. Left out are goroutines that run
nothing of ours but a wait, and, in cmd, what looks at memory and keeps the
page's history: it reads figures, and no request waits for it.

# The retry rule

A request is sent a second time, once, on a fresh connection, if no byte of an
answer has come, 1xx included, and

  - none of it was accepted by the first connection, or
  - the first connection was a kept one, the method is idempotent (GET, HEAD,
    OPTIONS, TRACE, PUT, DELETE; with RETRY_IDEMPOTENCY_KEY also what carries
    an Idempotency-Key), and its body is absent or was kept whole, 64 KiB at
    most, or 4 KiB where memory was short.

It is never sent again after one of carpool's own time limits, nor for CONNECT
and Upgrade.

# Where it differs from what might be expected

  - A folded line, a line that ends with LF alone and a space before a colon
    are refused in requests, and normalised in responses: old servers send
    them, and what the client gets is unambiguous.
  - A client that closes its sending side after a request (FIN) counts as gone
    when the answer takes longer than about half a second. TCP cannot tell it
    from one that has closed altogether.
  - "Upgrade: h2c" is not passed on: the connection would leave the pool for a
    tunnel.
  - Missing Date fields are not added (RFC 9110 section 6.6.1 lets an
    intermediary do so).
  - TRACE that ends here shows the request as it came, less Authorization,
    Proxy-Authorization and Cookie.
  - TCP_USER_TIMEOUT is lifted for long uploads and in tunnels: it takes a peer
    that does not read for one that is dead. For uploads the sweeper looks for
    acknowledgements instead; in tunnels only keep-alive probes are left.
  - A tunnel or an upgraded connection of which one side has ended is closed
    after TUNNEL_HALF_CLOSED_TIMEOUT in which no buffer was passed on, be it
    that a reader takes more than that for one buffer (72 KB). A drain waits
    for it as long as something has moved in the last five seconds.

# Not met

  - Stale DNS answers while the resolver is down, and retiring connections to
    addresses that a name no longer has: there is no DNS layer yet. New
    addresses are found when connections are replaced, MAX_CONN_AGE at most.
    Each new connection asks for its addresses, so a dead first name server
    costs each of them 0.3 seconds, and AAAA that is never answered 0.05.
  - Plain HTTP inside CONNECT is tunnelled, not pooled.
*/
package proxy
