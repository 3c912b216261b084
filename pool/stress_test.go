package pool_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpoolproxy/carpool/internal/testkit"
	"github.com/carpoolproxy/carpool/pool"
)

// moody is a server that answers each byte with the same byte, and now and then
// closes instead, resets, or says more than it was asked.
func moody(t testing.TB) *upstream {
	t.Helper()
	u := newUpstream(t)
	var serving sync.WaitGroup
	stop := make(chan struct{})
	serving.Go(func() {
		for {
			select {
			case c := <-u.conns:
				serving.Go(func() { serveMoodily(c) })
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		serving.Wait()
	})
	return u
}

func serveMoodily(c *net.TCPConn) {
	defer c.Close()
	var b [1]byte
	for {
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(1+rand.IntN(20)) * ms)) // a short idle timeout
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		switch rand.IntN(30) {
		case 0:
			return
		case 1:
			_ = c.SetLinger(0)
			return
		case 2:
			_, _ = c.Write([]byte{b[0], b[0] + 1}) // one answer too many
			continue
		case 3:
			_, _ = c.Write(b[:])
			return
		}
		if _, err := c.Write(b[:]); err != nil {
			return
		}
	}
}

// stress is what the stressing goroutines share.
type stress struct {
	t       *testing.T
	p       *pool.Pool
	origins []*pool.Origin
	lent    sync.Map // *pool.Lease
	wrong   atomic.Int64
	served  atomic.Int64
}

// exchange sends one byte and expects it back.
func (s *stress) exchange(l *pool.Lease) error {
	b := [1]byte{byte(rand.Uint32())}
	if _, err := l.Write(b[:]); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(l, answer[:]); err != nil {
		return err
	}
	if answer != b {
		s.wrong.Add(1)
	}
	return nil
}

// ride makes one exchange and gives the connection back in one of the ways
// there are.
func (s *stress) ride(o *pool.Origin, k *pool.Ticket) {
	k.Fresh, k.Replayable = rand.IntN(10) == 0, rand.IntN(2) == 0
	fresh := k.Fresh
	l, err := o.Acquire(k)
	if err != nil {
		if !errors.Is(err, pool.ErrCanceled) {
			s.t.Error(err)
		}
		return
	}
	if _, twice := s.lent.LoadOrStore(l, true); twice {
		s.t.Error("lent twice")
	}
	if fresh && l.Carried() {
		s.t.Error("a used connection for a fresh ticket")
	}
	reused := l.Reused()
	err = s.exchange(l)
	s.lent.Delete(l)
	switch {
	case err != nil && reused:
		l.Discard(pool.Dead(err, pool.ClosedOnReuse))
	case err != nil:
		l.Discard(pool.Dead(err, pool.BadAnswer))
	case rand.IntN(15) == 0:
		l.Interrupt()
		l.Discard(pool.ClientGone)
	default:
		l.Hint(int64(rand.IntN(7)-1), int64(rand.IntN(50)-1))
		s.served.Add(1)
		l.Release()
	}
}

// run lets passengers ride, some of whom give up waiting.
func (s *stress) run(passengers, rides int) {
	var wg sync.WaitGroup
	for range passengers {
		wg.Go(func() {
			var k pool.Ticket
			for range rides {
				o := s.origins[rand.IntN(len(s.origins))]
				if rand.IntN(4) > 0 {
					s.ride(o, &k)
					continue
				}
				done := testkit.In(func() bool { s.ride(o, &k); return true })
				o.Cancel(&k)
				<-done
			}
		})
	}
	served := make(chan struct{})
	ended := testkit.In(func() bool { // who looks at it all and tidies up
		tick := time.NewTicker(ms)
		defer tick.Stop()
		for {
			select {
			case <-served:
				return true
			case <-tick.C:
			}
			s.p.Snapshot()
			if rand.IntN(20) == 0 {
				s.p.EvictIdle()
			}
			for _, o := range s.origins {
				o.Tidy()
			}
		}
	})
	wg.Wait()
	close(served)
	<-ended
}

// atRest reports whether no dial is under way and all connections are idle.
// Those that the upstreams close just now count as in use for a moment.
func (s *stress) atRest() bool {
	idle := 0
	for _, o := range s.p.Snapshot().Origins {
		if idle += o.Idle; o.InUse != 0 {
			return false
		}
	}
	for _, o := range s.origins {
		if o.Dialing() > 0 {
			return false
		}
	}
	leases, slots := s.p.Open()
	return leases == idle && (slots == idle || slots == 0)
}

func TestNothingIsLostOrLentTwiceUnderStress(t *testing.T) {
	for name, change := range map[string]func(*pool.Config){
		"without limits":       func(*pool.Config) {},
		"few connections each": func(c *pool.Config) { c.MaxConnsPerHost, c.MaxIdlePerHost = 3, 2 },
		"few connections all in all": func(c *pool.Config) {
			c.MaxConns, c.MaxIdlePerHost = 5, 2
		},
		"all at once": func(c *pool.Config) {
			c.MaxConns, c.MaxConnsPerHost, c.MaxIdlePerHost, c.MaxRequests = 4, 3, 1, 5
			c.MaxAge, c.AgeJitter, c.IdleTimeout = 50*ms, 1, 5*ms
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, change)
			s := &stress{t: t, p: p}
			for range 3 {
				s.origins = append(s.origins, moody(t).origin(p))
			}
			const passengers, rides = 16, 100
			s.run(passengers, rides)
			testkit.Eventually(t, "all is at rest", s.atRest)
			if n := waiting(p); n != 0 {
				t.Errorf("%d still wait", n)
			}
			if n := s.served.Load(); n < passengers*rides/2 {
				t.Errorf("only %d were served", n)
			}
			// An answer too many can come after its connection was looked at.
			if n := s.wrong.Load(); n > passengers*rides/50 {
				t.Errorf("%d wrong answers", n)
			}
		})
	}
}

// Close comes in the middle of it all.
func TestCloseUnderStress(t *testing.T) {
	for range 10 {
		u := newUpstream(t)
		p := newPool(t, atMost(4))
		o := u.origin(p)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					l, err := o.Acquire(&pool.Ticket{Fresh: rand.IntN(3) == 0})
					if err != nil {
						return // closed, or a dial cut off
					}
					if rand.IntN(2) == 0 {
						l.Release()
					} else {
						l.Discard(pool.NotKept)
					}
				}
			})
		}
		testkit.Eventually(t, "it has begun", func() bool { return stats(t, p).Opened > 10 })
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}
