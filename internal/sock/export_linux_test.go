package sock

// FD returns the descriptor, -1 after Close.
func (c *Conn) FD() int { return c.fd }

// Registered reports whether the netpoller knows the socket.
func (c *Conn) Registered() bool { return c.registered.Load() }

// Parks counts how often a read or write found that it has to wait.
func (c *Conn) Parks() int { return int(c.parks.Load()) }

// ReadsSpent and WritesSpent report whether the next such call takes a turn first.
func (c *Conn) ReadsSpent() bool { return c.in.credit.spent(c.parks.Load()) }

// WritesSpent is ReadsSpent for writes.
func (c *Conn) WritesSpent() bool { return c.out.credit.spent(c.parks.Load()) }

// TakeTurn lets those run whose sockets are ready.
var TakeTurn = takeTurn

// Pipes counts the pipes there are.
func Pipes() int {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	return pipes.made
}
