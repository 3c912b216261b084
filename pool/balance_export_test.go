package pool

import "time"

// Balance is balance for the tests.
type Balance struct{ b balance }

// NewBalance returns a balance for connections of such an age.
func NewBalance(age time.Duration) *Balance { return &Balance{balance{age: age}} }

// SetReuse sets reuse.
func (b *Balance) SetReuse(is bool) { b.b.reuse = is }

// SetAlone sets alone.
func (b *Balance) SetAlone(is bool) { b.b.alone = is }

// Asked calls asked.
func (b *Balance) Asked(now time.Duration) { b.b.asked(now) }

// Begins calls begins.
func (b *Balance) Begins(now time.Duration) { b.b.begins(now) }

// Rate is the rate that was measured.
func (b *Balance) Rate(now time.Duration) float64 { return b.b.asks.rate(now) }

// Width calls width.
func (b *Balance) Width(now, warm time.Duration) int { return b.b.width(now, warm) }

// Endpoints calls endpoints.
func (b *Balance) Endpoints(width, addresses int) int { return b.b.endpoints(width, addresses) }

// Due calls due.
func (b *Balance) Due(now time.Duration, width, open int) bool { return b.b.due(now, width, open) }

// Lifetime calls lifetime.
func (b *Balance) Lifetime(jitter, random float64) time.Duration {
	return b.b.lifetime(jitter, random)
}

// TurnLasts is how long a connection is preferred once its turn has come.
const TurnLasts = turnLasts

// Widest is how many connections are used in turn at most.
const Widest = widest

// Asked returns how many requests count in the origin's rate.
func (o *Origin) Asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := &o.endpoints.balance.asks
	return m.n + m.before
}
