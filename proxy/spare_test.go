package proxy_test

import "testing"

// spareTunnels has a spare tunnel wait for each origin.
func spareTunnels(s *settings) { s.pool.SpareTunnels = 1 }

// spares waits until so many wait for tunnels to o.
func (r *rig) spares(o *origin, want int) {
	r.t.Helper()
	eventually(r.t, "spare tunnels wait", func() bool { return r.stats(o).Spares == want })
}

// opaque has two tunnels in which the client speaks first end, so that o is known for
// them, and a spare waits. It returns the upstream's end of that.
func opaque(r *rig, o *origin) (spare *wire) {
	for range 2 {
		c, up := dozers["CONNECT"](r, o)
		_ = c.Close()
		up.end()
	}
	r.spares(o, 1)
	return o.accept()
}

func TestC9ATunnelTakesASpareConnection(t *testing.T) {
	t.Parallel()
	r, o := start(t, spareTunnels), newOrigin(t)
	spare := opaque(r, o)
	for range 3 {
		c := r.inside(o)
		c.send("\x16\x03\x01")
		spare.want("\x16\x03\x01")
		spare.send("\x16\x03\x03")
		c.want("\x16\x03\x03")
		r.spares(o, 1) // the next is there
		spare = o.accept()
	}
	if s := r.stats(o); s.SparesUsed != 3 || s.SparesUnused != 0 || s.SparesMade != 4 {
		t.Errorf("%+v", s)
	}
}

// C1: what the upstream says first reaches the client, whatever the last tunnels to it
// have carried.
func TestC1ASpareAndAnUpstreamThatSpeaksFirst(t *testing.T) {
	t.Parallel()
	t.Run("C1 before the spare is used", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, spareTunnels), newOrigin(t)
		spare := opaque(r, o)
		spare.send("220 to nobody\r\n")
		r.spares(o, 0) // the janitor has heard it
		c := r.inside(o)
		up := o.accept()
		up.send("220 hello\r\n")
		c.want("220 hello\r\n")
		spare.cut()
		for range 3 { // and there is no other
			c, up := dozers["CONNECT"](r, o)
			_ = c.Close()
			up.end()
		}
		o.served(7)
	})
	t.Run("C1 as it is used", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, spareTunnels), newOrigin(t)
		spare := opaque(r, o)
		c := r.inside(o)
		spare.send("220 hello\r\n")
		c.want("220 hello\r\n")
		c.send("EHLO\r\n")
		spare.want("EHLO\r\n")
	})
}

// HTTP inside a CONNECT gets no spare, and makes none. In a drain none is made.
func TestC8WhoGetsNoSpares(t *testing.T) {
	t.Parallel()
	t.Run("C8 HTTP", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, spareTunnels), newOrigin(t)
		up := (*wire)(nil)
		for range 3 {
			up = o.getInside(r.inside(o), up)
		}
		o.served(1)
	})
	t.Run("C8 a drain", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, spareTunnels), newOrigin(t)
		r.proxy.Drain()
		for range 3 {
			c, up := dozers["CONNECT"](r, o)
			_ = c.Close()
			up.end()
		}
		o.served(3)
	})
	t.Run("C8 an upstream that speaks first", func(t *testing.T) {
		t.Parallel()
		r, o := start(t, spareTunnels), newOrigin(t)
		for range 3 {
			c, up := tunnel(r, o)
			up.send("220 hello\r\n")
			c.want("220 hello\r\n")
			c.send("QUIT\r\n")
			up.want("QUIT\r\n")
			_ = c.Close()
			up.end()
		}
		o.served(3)
	})
}
