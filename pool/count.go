package pool

// requestCount is what an upstream said in "Keep-Alive: max=N" of how many
// requests one of its connections takes. No standard says what N counts. Servers
// like Apache count down those that may follow. Node.js says the same each time
// (maxRequestsPerSocket): it counts all requests of the connection.
//
// The zero value is of an upstream that has said nothing.
type requestCount struct {
	known bool
	said  int // the last N
	total int // how many requests that makes in all
}

// say notes an N that came with the answer to the n-th request, from 1.
func (c *requestCount) say(max, n int) {
	if c.known && max == c.said {
		c.total = max
	} else {
		c.total = n + max
	}
	c.known, c.said = true, max
}

// reached reports whether a connection that has carried n requests is not to
// carry another.
func (c *requestCount) reached(n int) bool { return c.known && n >= c.total }
