/*
Package proxy is the half of carpool that the app talks to: it accepts
connections, reads requests, finds out where they go and whether they may,
borrows an upstream connection for each and relays both ways.

The way of a request:

	client ── accept ──► session.turn ──► readHead ──► find ──► exchange
	                         ▲                                      │
	                         │                 acquire ◄── carry ◄──┘
	                         │                    │
	                         │                 attempt: write the request (upload: the rest of a long body)
	                         │                    │      await the answer's head
	                         └──── finish ◄── relay: write the answer, settle the connection

A CONNECT begins in another way: serveConnect finds its origin, decider.decide
asks goproxy what becomes of it, open borrows a connection and answers 200. Then
an opening listens to both sides. If the client speaks HTTP, the connection goes
back, and the session's lane is within the tunnel from now on: its requests go the
way above. Or else it is a tunnel: the session becomes the splice of the opening. An
Upgrade comes from attempt by switchProtocols to join and a splice. A splice begins
in session.end, when what has led to it is over, and its last direction ends the
session.

An OPTIONS that ends here can ask whether an https origin can be verified. verify
borrows a connection for it and gives it back, as an opening does (verify.go).

Whatever an exchange ends by, judge gathers the facts and facts.judge says what
follows: the answer, what becomes of the connection, and the next step.
conclude, settle, brokenOff and join carry it out.

What is said to the upstream and heard from it goes through a wire, which knows
the version of HTTP that the connection speaks.

One goroutine does all of it, in this order, without handing anything to
another. The exceptions are the upload, which sends the part of a request body
that has not arrived with its head, because the upstream may answer first; and the
sweeper, which looks over all sessions a few times a second.

A splice has no goroutine but one for each direction. A direction that waits while
nothing moves for a second is sent to sleep by the sweeper, as an idle session is:
its read is interrupted, the watcher is told to look at its socket, and the
goroutine ends. What comes wakes that direction alone. Whoever ends a splice wakes
those that sleep.

Where bytes come in bulk, and no TLS is between, sock.Splice has the kernel move them.

# What other goroutines may do to a session

A session belongs to its goroutine. Others have only its reins: they make the
reads and writes under way on its two connections fail, under reins.mu, which
the session holds whenever it lets go of one of them. What the session finds
then (reins.gone) tells it why.

# Panics

A panic on a session's goroutine ends its connection. One on a goroutine that
works for it (an upload, the directions of a tunnel) is handed to the session and
becomes its own. One of the pool's (dials, look-ups) fails the request that waits
for it. The sweeper, the watchers and the janitor drop what they were at and go on.
All are counted and told to Config.Fault. Left out are goroutines that run
nothing of ours but a wait, and, in cmd, what looks at memory and keeps the
page's history: it reads figures, and no request waits for it. The accept loops
are left out on purpose: a carpool that accepts nothing is better restarted. On
the admin port net/http contains what a handler does.

# The retry rule (verdict.go)

A request is sent a second time, once, on a fresh connection, if no byte of an
answer has come, 1xx included, and

  - none of it was accepted by the first connection, or
  - the first connection was a kept one, the method is idempotent (GET, HEAD,
    OPTIONS, TRACE, PUT, DELETE; with RETRY_IDEMPOTENCY_KEY also what carries
    an Idempotency-Key), PUT and DELETE are not conditional (If-Match and the
    like: carried out twice they would be refused), and the body is absent or
    was kept whole, 64 KiB at most, or 4 KiB where memory was short.

It is never sent again after one of carpool's own time limits, nor for CONNECT
and Upgrade. The fresh connection leads to another address where there is one.
Requests with Upgrade take a new connection from the start.

A dial that is refused is made once more, whatever it is for: nothing was sent.
As long as connections to the origin are open it is made a few times more, for
half a second, and meanwhile the request takes what comes free. One that is sent
again then takes a connection that was used: behind the address of a Service it
leads to a pod that lives, while new ones are led to one that has ended.

The connection that a CONNECT has opened is none of the kept ones for the first
request in the tunnel, if that comes within a second: the client would have dialled
it just so. The pool looks at it all the same before it is used.

Two things that come on a kept connection are no answer for this rule: bytes
that do not begin like one, which are late ones of an answer before; and a 408,
which servers send as they close what was idle.

# Where the time goes (phases.go)

Each exchange is divided into phases that add up to its duration. It costs one look
at the clock, as the exchange ends: the pool reads it as a connection is asked for
and as the answer begins, and the session as a request begins. The pool divides a wait
by the steps of the dial that ended it (pool/waited.go). Of an exchange that is
sent twice the waits add up, the time to the first byte is the second's, and the
first attempt counts as the rest. Histograms are of what asked for a connection,
but for what became a tunnel.

# Bytes that no request asked for

A server can send more than its answer: a body behind a 204 or HEAD, one chunk
end too many, a second answer. If it comes with the answer, or before the next
request is sent on the connection, it is seen and the connection closed. If it
comes behind the next request, what does not begin with "HTTP/" is known for
what it is. A whole stray answer is not: nothing in HTTP/1.1 says which request
an answer belongs to, and the acknowledgements of TCP do not say either, for
the server's kernel may have the request before the server sends the stray.

So this rests on what was seen of the origin. After the first stray nothing
that is open to it serves another request, for ten seconds, and longer each
time it happens again; for ten minutes after that a connection is used only
when it has been idle for a second, so never handed straight from one request
to the next. What remains is the very first stray of an origin, where it is a
whole answer, the server sends it in a segment of its own, and the next request
is sent in between. Then one request gets the stray, and those behind it on this
connection the answer of the one before, until the connection is idle for as
long as the server takes to answer, which shows the stray. A 204 that announces
a body costs its connection for this reason; for servers that are known to do
such things there is NO_REUSE_HOSTS.

# Where requests may go (egress.go)

Rules on hosts are asked when a session's request names another host or port than
the one before, before anything is looked up; rules on addresses as one is
dialled. Neither is asked when a connection is used again. It was opened for the
host and port that it serves, which were judged for this session as well, and the
rules do not change while carpool runs: what was let in would be let in again.

# Plain requests that leave in TLS (originate.go)

Where TLS_ORIGINATE names a host, a request's origin is the one in TLS, from route.to
on: pool, rules and log know no other. Its Host stays.

A CONNECT to such a host says nothing of what it is for. If it was answered only when
there is a connection, that would be one to a port which may not be listening, for a
request that does not go there. So it is answered at once, and the client is heard,
as after a connection that has carried requests. Plain HTTP leaves in TLS. Anything
else is a tunnel to the host and port that the CONNECT names, and is judged as one
when it turns out to be one.

# Local ports

A lane to one origin rewrites Host and nothing else. Location, Set-Cookie and bodies
stay as they are. nginx has proxy_redirect for browsers behind it; neither Envoy nor
the local ports of Consul rewrite any of them, so no client of these can rely on it. A
base URL that has to survive a redirect is better mended at the upstream, or reached by
TLS_ORIGINATE, where the client knows the upstream's own name.

# The next hop (hop.go)

Where everything has to go out through a proxy, Hop has it. Plain HTTP is relayed: the
origin of such a request is the hop itself, its head is in absolute-form, and its
connections are shared by all hosts. For TLS, tunnels and upgrades the hop is asked by
CONNECT for a connection, which then belongs to the pool's origin of that host. One set
of credentials goes with each request and each CONNECT, so a connection has no identity
that would have to be in its key.

  - A hop that fails is never gone round. What it says to CONNECT, and that it cannot
    be reached, is told apart from faults behind it (hopfaults.go); of a relayed answer
    only a 407 is surely its own. A client would take that for a question to itself,
    answer it in vain, or give its password to nobody: it gets a 502.
  - A relayed TRACE has no credentials, for whoever answers it shows them (RFC 9110
    section 9.3.8). A hop that asks for some refuses it.
  - A relayed 5xx does not count against the hop's address, for others give it too.
  - A CONNECT to port 80 is taken for one that will carry plain HTTP: the client is told
    that it has a tunnel once the hop can be reached. Hops refuse such a CONNECT by
    default. If TLS comes in it, the tunnel is asked for then, and if it is refused
    the client's is reset; this happens once, as with used connections.
  - What is pinned to a client by NTLM is for one host, so a request to another one
    gives it up.
  - Rules on hosts come before a name is handed on. Rules on addresses see the hop's own,
    and those written in URLs, as if they were dialled. What a name leads to they do not
    see. The names of metadata services stand for their addresses.
  - NEXT_NO_PROXY's ranges are for addresses in URLs, as Go and curl have it: to look a
    name up only to find out whether to look it up would leak it, and fails where
    only the hop can.

# Where it differs from what might be expected

  - A folded line, a line that ends with LF alone and a space before a colon
    are refused in requests, and normalised in responses: old servers send
    them, and what the client gets is unambiguous.
  - Responses that are odd in other ways are put right and passed on where that
    leaves no doubt about where they, or their lines, end; their connection is
    not used again. http1/http1test/odd-answers.txt is the list. An empty line
    before a status line is not among it: on a kept connection it is what is
    late of the answer before.
  - User information and fragments in targets are cut off. A backslash in an
    authority is refused: readers differ about whether it ends there.
  - An Upgrade with a body in chunks, or of more than 64 KiB, is not passed on.
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
    that does not read for one that is dead. The sweeper looks for
    acknowledgements instead.
  - No timer says what a CONNECT is. One ends the wait for the rest of a request
    line that a client has begun, ClientHeaderTimeout: then it is a tunnel, so that
    a protocol that looks like HTTP for its first few letters works, if late.
  - Inside CONNECT, requests are recognised by a list of methods, and only in
    origin-form: others are meant for a proxy at the end of the tunnel. They are
    tunnelled, and so is CONNECT as the first word. A Host without a port is taken
    for the CONNECT's.
  - A CONNECT to an origin of which a used connection is idle holds none while its
    client is silent: what speaks HTTP does not speak first. If that client then
    says something other than HTTP and no connection can be had, its own is reset,
    for it was told 200. What the last tunnel to an origin was is remembered, so
    this happens once.
  - A tunnel or an upgraded connection of which one side has ended is closed
    after TUNNEL_HALF_CLOSED_TIMEOUT in which no buffer was passed on, be it
    that a reader takes more than that for one buffer (72 KB). A drain waits
    for it as long as something has moved in the last five seconds.

# HTTP/2 upstreams (wire2.go, head2.go, pool/h2, pool/shared.go)

Where a connection speaks HTTP/2 an exchange has a stream of it. All else is as it
was: heads are translated on the way, and the answer's is parsed as any other. What
changes for both sides:

  - Letter case of field names and the reason phrases get lost. Names go in lower case,
    both ways, and the phrase is the usual one of the status. Order and repeats stay.
  - Host becomes :authority, in front. A cookie goes in its parts.
  - What only one connection is about (Connection and what it names, Keep-Alive,
    Transfer-Encoding, Upgrade) does not go on. "TE: trailers" does. An answer's fields
    of this kind, which are not allowed, are left out.
  - An answer of which the length is not known goes to the client in chunks, as it came
    in frames, and trailers behind them. Trailers behind a Content-Length are left out.
  - CONNECT, Upgrade, and requests with NTLM or Negotiate credentials go in HTTP/1.1, on
    a connection of their own.
  - Where the upstream has done nothing of a request (REFUSED_STREAM, GOAWAY), that is
    sent again whatever the method, if all of its body is here still: three times at
    most. The body of a POST is kept for that, 64 KiB at most. All else that ends a
    stream follows the retry rule.
  - A 408 and bytes that no request asked for are no special cases: an answer says whose
    it is.

# Not met

Each row of docs/BEHAVIOUR.md has its tests. Of HTTP/2 upstreams it is not met that

  - HTTP2=auto is the default: it was not measured against HTTP/1.1 under load for long.
  - A Via that is added says 1.1 of an answer in HTTP/2.
  - A connection that is closed here says so to the upstream (GOAWAY) only if nothing
    else is about to be written.
  - The row tests run in HTTP/2 are those that say nothing of how HTTP/1.1 is written.
*/
package proxy
