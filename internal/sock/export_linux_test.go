package sock

// FD returns the descriptor, -1 after Close.
func (c *Conn) FD() int { return c.fd }

// Registered reports whether the netpoller knows the socket.
func (c *Conn) Registered() bool { return c.registered.Load() }

// Parks counts how often a read or write found that it has to wait.
func (c *Conn) Parks() int { return int(c.parks.Load()) }

// RawReads and RawWrites report whether the next such call is a raw one.
func (c *Conn) RawReads() bool { return !c.in.credit.spent(c.parks.Load()) }

// RawWrites is RawReads for writes.
func (c *Conn) RawWrites() bool { return !c.out.credit.spent(c.parks.Load()) }
